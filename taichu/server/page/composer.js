/** Where a question is put together: words, a file of each modality, what to make, and settings. */

import { modalityOf, toPart } from "./files.js";
import { create, icon, show } from "./media.js";
import { label, say } from "./words.js";

// name, first value, least, most
const SETTINGS = [
  ["temperature", 0.7, 0, 2],
  ["top_p", 0.95, 0.01, 1],
  ["guidance", 2, 0, 20],
  ["candidates", 1, 1, 64],
  ["seed", "", 0, 2 ** 31 - 1],
];
const WHOLE = ["candidates", "seed"];

const at = (id) => document.getElementById(id);
const files = new Map(); // modality -> file
let wanted = [];
let model;

/** Offer what a model has: its modalities, and the suffixes of its files. */
export function offer(described) {
  model = described;
  at("words").hidden = !model.modalities.includes("text");
  at("files").accept = Object.values(model.suffixes).flat().join();
  wanted = wanted.filter((name) => model.modalities.includes(name));
  if (!wanted.length) wanted = [model.modalities.find((name) => name === "image") ?? model.modalities[0]];
  const toggles = model.modalities.map((name) => {
    const toggle = create("button", "toggle", icon(name), say(create("span"), name), create("b"));
    Object.assign(toggle, { type: "button", name });
    toggle.addEventListener("click", () => {
      wanted = wanted.includes(name) ? wanted.filter((other) => other !== name) : [...wanted, name];
      press();
    });
    return toggle;
  });
  at("wanted").replaceChildren(at("wanted").firstElementChild, ...toggles);
  press();
  for (const name of [...files.keys()]) if (!model.suffixes[name]) files.delete(name);
  showAttached();
}

/** What was put together as {text, files, wanted, request}, and the place emptied for the next. */
export async function take() {
  if (!wanted.length) return notify("nothing_wanted");
  const settings = readSettings();
  if (!settings) return undefined;
  const text = at("words").value.trim();
  const parts = text ? [{ type: "text", text }] : [];
  for (const [modality, file] of files) {
    try {
      parts.push(await toPart(modality, file));
    } catch {
      return notify("unreadable", file.name);
    }
  }
  const question = {
    text,
    files: new Map(files),
    wanted: [...wanted],
    request: {
      model: model.id,
      messages: [{ role: "user", content: parts }],
      modalities: [...wanted],
      ...settings,
    },
  };
  at("words").value = "";
  files.clear();
  showAttached();
  fitWords();
  notify();
  return question;
}

/** Say something beside the composer; nothing clears it. */
export function notify(name, ...values) {
  if (name) say(at("notice"), name, ...values);
  else {
    delete at("notice").dataset.say;
    at("notice").textContent = "";
  }
}

/** Take files in, one of each modality. */
async function attach(added) {
  notify();
  for (const file of added) {
    const modality = model && (await modalityOf(file, model.suffixes));
    if (modality === "text") {
      at("words").value = await file.text();
      fitWords();
    } else if (modality) {
      const earlier = files.get(modality);
      files.set(modality, file);
      if (earlier) notify("replaced", earlier.name, file.name);
    } else if (model) {
      notify("unknown", file.name, Object.values(model.suffixes).flat().join(" "));
    }
  }
  showAttached();
}

function showAttached() {
  const items = [...files].map(([modality, file]) => {
    const remove = label(create("button", "remove", icon("remove")), "remove", file.name);
    remove.type = "button";
    remove.addEventListener("click", () => {
      files.delete(modality);
      showAttached();
      at("attach").focus();
    });
    const item = create("li", "", show(modality, file), remove);
    item.dataset.modality = modality;
    return item;
  });
  at("attached").replaceChildren(...items);
}

function press() {
  for (const toggle of at("wanted").querySelectorAll("button")) {
    const place = wanted.indexOf(toggle.name);
    toggle.setAttribute("aria-pressed", place >= 0);
    toggle.lastElementChild.textContent = place >= 0 && wanted.length > 1 ? place + 1 : "";
  }
}

/** The settings by name; undefined where one is no number in its range. */
function readSettings() {
  const settings = {};
  for (const [name, , least, most] of SETTINGS) {
    const field = at(name);
    if (!field.checkValidity()) {
      field.closest("details").open = true;
      field.focus();
      return notify("wrong_number", field.labels[0].firstChild.textContent, least, most);
    }
    if (field.value) settings[name] = Number(field.value);
  }
  settings.seed ??= Math.floor(Math.random() * 1e6);
  return settings;
}

/** As high as the words need, up to what the style allows. */
function fitWords() {
  const { style } = at("words");
  style.height = "auto";
  style.height = `${at("words").scrollHeight}px`;
}

for (const [name, value, min, max] of SETTINGS) {
  const field = create("input");
  const step = WHOLE.includes(name) ? 1 : "any";
  Object.assign(field, { id: name, type: "number", value, min, max, step });
  const hint = say(create("small"), `${name}_hint`);
  at("settings").append(create("label", "", say(create("span"), name), field, hint));
}
at("attach").append(icon("add"));
at("send").append(icon("send"));
at("stop").append(icon("stop"));

at("attach").addEventListener("click", () => at("files").click());
at("files").addEventListener("change", async ({ target }) => {
  await attach([...target.files]);
  target.value = ""; // the same file may be chosen again
});
at("words").addEventListener("input", fitWords);
at("words").addEventListener("keydown", (event) => {
  // an input method's Enter confirms its word; some report it only by the key code
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  at("composer").requestSubmit();
});
addEventListener("paste", ({ clipboardData }) => attach([...clipboardData.files]));

const dragsFiles = (event) => event.dataTransfer?.types.includes("Files");
addEventListener("dragenter", (event) => {
  if (dragsFiles(event)) document.body.classList.add("dragging");
});
addEventListener("dragover", (event) => dragsFiles(event) && event.preventDefault());
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging"); // left the window
});
addEventListener("drop", (event) => {
  document.body.classList.remove("dragging");
  if (!dragsFiles(event)) return;
  event.preventDefault();
  attach([...event.dataTransfer.files]);
});
