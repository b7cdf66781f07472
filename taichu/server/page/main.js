/** The page: models are listed, questions are asked, one at a time. */

import { notify, offer, take } from "./composer.js";
import { Entry } from "./conversation.js";
import { create, icon } from "./media.js";
import { ask, keepKey, listModels, Refusal } from "./service.js";
import { say, switchLanguage, translate } from "./words.js";

const at = (id) => document.getElementById(id);
const UNAUTHORIZED = 401;
let running; // aborts the question that is being answered

async function start() {
  try {
    const models = await listModels();
    at("model").replaceChildren(...models.map(({ id }) => new Option(id, id)));
    at("model").hidden = models.length < 2;
    at("model").onchange = () => choose(models[at("model").selectedIndex]);
    choose(models[0]);
    notify();
  } catch (error) {
    refuse(error);
    if (error.words) notify(error.words);
    else at("notice").textContent = error.message;
  }
}

function choose(model) {
  offer(model);
  const kinds = Object.entries(model.suffixes).map(([name, suffixes]) => {
    const list = suffixes.map((suffix) => suffix.slice(1)).join(", ");
    return create("li", "", icon(name), say(create("span"), name), create("small", "", list));
  });
  at("kinds").replaceChildren(...kinds);
}

async function send() {
  if (running) return;
  running = new AbortController();
  const question = await take();
  if (!question) {
    running = undefined;
    return;
  }
  at("greeting").hidden = true;
  turn(true);
  const entry = new Entry(at("conversation"), question);
  try {
    for await (const piece of ask(question.request, running.signal)) entry.add(piece);
  } catch (error) {
    if (error.name !== "AbortError") {
      refuse(error);
      entry.fail(error);
    }
  }
  entry.end(running.signal.aborted);
  turn(false);
  running = undefined;
}

/** Ask for a key where that is what is missing; an error that is none of the server's is ours. */
function refuse(error) {
  if (!(error instanceof Refusal)) console.error(error);
  if (error.status !== UNAUTHORIZED) return;
  at("key").hidden = false;
  at("key-field").focus();
}

/** Send becomes Stop, and back; the focus stays where it was. */
function turn(busy) {
  const [shown, hidden] = busy ? ["stop", "send"] : ["send", "stop"];
  const focused = document.activeElement === at(hidden);
  at(shown).hidden = false;
  at(hidden).hidden = true;
  if (focused) at(shown).focus();
}

at("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
at("stop").addEventListener("click", () => running?.abort());
at("key").addEventListener("submit", (event) => {
  event.preventDefault();
  keepKey(at("key-field").value.trim());
  at("key-field").value = "";
  at("key").hidden = true;
  start();
});
at("language").addEventListener("click", switchLanguage);

translate();
start();
