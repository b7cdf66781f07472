/** The server's API: which models there are, and a question's answer as it comes. */

const KEPT = "taichu.key"; // for this tab only

export const keepKey = (key) => sessionStorage.setItem(KEPT, key);

/** What the server, or the way to it, refused: `name` of our words, or a message of the server's. */
export class Refusal extends Error {
  constructor({ name, message = "", status = 0 }) {
    super(message);
    Object.assign(this, { words: name, status });
  }
}

export async function listModels() {
  const response = await request("v1/models");
  return (await response.json()).data;
}

/**
 * An answer in pieces, {content, parts, finish}, as they come; at once where it is the best of
 * several candidates, which is known at the end only.
 *
 * Throws a Refusal, and an AbortError once the signal is aborted.
 */
export async function* ask(question, signal) {
  const stream = !(question.candidates > 1);
  const response = await request("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...question, stream }),
    signal,
  });
  if (!stream) {
    const { message, finish_reason } = (await response.json()).choices[0];
    for (const part of message.parts)
      yield part.type === "text" ? { content: part.text } : { parts: [part] };
    yield { finish: finish_reason };
    return;
  }
  for await (const line of lines(response.body)) {
    if (!line.startsWith("data:")) continue;
    const data = line.slice(5).trim();
    if (data === "[DONE]") return;
    const { error, choices } = JSON.parse(data);
    if (error) throw new Refusal(error);
    for (const { delta, finish_reason } of choices)
      yield { content: delta.content, parts: delta.parts, finish: finish_reason };
  }
  throw new Refusal({ name: "broken_off" });
}

async function request(address, options = {}) {
  const key = sessionStorage.getItem(KEPT);
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(address, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal({ name: "unreachable" });
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  const message = body.error?.message ?? `${response.status} ${response.statusText}`;
  throw new Refusal({ message, status: response.status });
}

async function* lines(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let kept = []; // pieces of a line that has not ended: one may be megabytes long
  for (;;) {
    const { done, value } = await reader.read().catch((error) => {
      if (error.name === "AbortError") throw error;
      throw new Refusal({ name: "broken_off" });
    });
    if (done) return;
    const [first, ...others] = value.split("\n");
    kept.push(first);
    for (const other of others) {
      yield kept.join("");
      kept = [other];
    }
  }
}
