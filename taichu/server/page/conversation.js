/** The list of questions and their answers. */

import { fromPart } from "./files.js";
import { create, download, icon, show } from "./media.js";
import { say } from "./words.js";

/** A question in the list, and its answer, which grows. */
export class Entry {
  constructor(list, question) {
    this.began = performance.now();
    this.seed = question.request.seed;
    this.answer = create("div", "answer");
    this.foot = create("p", "foot", say(create("span", "making"), "making"));
    this.entry = create("li", "entry", asked(question), this.answer, this.foot);
    this.entry.setAttribute("aria-busy", "true"); // read aloud when it is whole
    list.append(this.entry);
    this.entry.scrollIntoView({ block: "start", behavior: "smooth" });
  }

  /** Take a piece of the answer in. */
  add({ content, parts, finish }) {
    if (content) {
      this.text ??= this.answer.appendChild(create("p", "text"));
      this.text.append(content);
    }
    for (const part of parts ?? []) {
      const { modality, file, error } = fromPart(part) ?? {};
      if (!modality) this.fail({ words: "unexpected" });
      else if (error) this.fail({ title: modality, message: error });
      else this.answer.append(figure(modality, file));
    }
    this.finish = finish ?? this.finish;
  }

  /** Say what failed, and why: by a name of our words, or the server's message. */
  fail({ title = "failed", words, message }) {
    const reason = words ? say(create("span"), words) : create("span", "", message);
    const error = create("p", "error", say(create("strong"), title), reason);
    error.setAttribute("role", "alert");
    this.answer.append(error);
  }

  /** Nothing more comes. */
  end(stopped) {
    const seconds = ((performance.now() - this.began) / 1000).toFixed(1);
    const notes = [say(create("span"), "took", seconds), say(create("span"), "seed_was", this.seed)];
    if (stopped) notes.push(say(create("span"), "stopped"));
    else if (!this.answer.hasChildNodes()) notes.push(say(create("span"), "empty"));
    else if (this.finish === "length") notes.push(say(create("span"), "length"));
    this.foot.replaceChildren(...notes);
    this.entry.removeAttribute("aria-busy");
  }
}

function asked({ text, files, wanted }) {
  const shown = [...files].map(([modality, file]) => show(modality, file));
  const given = create("div", "given", ...shown);
  if (text) given.append(create("p", "text", text));
  else if (!files.size) given.append(say(create("p", "muted"), "nothing_given"));
  const made = wanted.map((name) => create("span", "", icon(name), say(create("span"), name)));
  return create("div", "question", given, create("p", "made", icon("arrow"), ...made));
}

function figure(modality, file) {
  const caption = create("figcaption", "", say(create("span"), modality));
  if (modality === "shape3d") caption.append(say(create("span", "muted"), "turn"));
  caption.append(download(file));
  const whole = create("figure", "", show(modality, file), caption);
  whole.dataset.modality = modality;
  return whole;
}
