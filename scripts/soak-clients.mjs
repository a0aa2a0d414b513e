/**
 * The clients of a soak (scripts/soak.mjs): good ones, whose answers are checked, and those that a public port meets.
 * Each returns what it saw: "right" (a good answer, checked), "refused" (429 with Retry-After), "stopped" (it went away), "told" (the server
 * said what was wrong, as it should). It throws where the server did what it must not.
 */
import { request } from "node:http";
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

/** Bytes of a body that is far too large. */
const HUGE_BYTES = 100 * 1024 * 1024;
/** Longest that any answer may take. */
const PATIENCE_MS = 60_000;
/** Longest that a client dribbles its head before it gives up; the server does at 10 s. */
const SLOW_MS = 14_000;

const chat = (content, extra = {}) => ({ path: "/v1/chat/completions", body: { messages: [{ role: "user", content }], ...extra } });
const completion = (prompt, extra = {}) => ({ path: "/v1/completions", body: { prompt, max_tokens: 24, ...extra } });

/** Questions whose answers are known once they have been asked alone: greedy and seeded, short and long, plain and with a schema. */
export const QUESTIONS = [
  chat("Compute 56 + 80.", { temperature: 0 }),
  chat("What is 879 + 904?", { temperature: 0, enable_thinking: true }),
  chat("Sort these words: coin, shell, pear.", { temperature: 0 }),
  chat("Tell a story.", { temperature: 0.9, seed: 11, max_tokens: 80 }),
  chat("Compute 3 + 4.", { temperature: 1, seed: 5, n: 3, max_tokens: 12 }),
  chat("What is 441 * 861?", {
    temperature: 0,
    tools: [{ type: "function", function: { name: "calculator", parameters: { type: "object" } } }],
  }),
  chat("Compute 1 + 2.", {
    ...{ temperature: 0, max_tokens: 40 },
    response_format: {
      type: "json_schema",
      json_schema: {
        name: "sum",
        schema: { type: "object", properties: { sum: { type: "integer" } }, required: ["sum"], additionalProperties: false },
      },
    },
  }),
  completion("Once upon a time", { temperature: 0, stop: ["\n"] }),
  completion("Once upon a time", { temperature: 0.8, seed: 3, max_tokens: 48, presence_penalty: 0.5, logprobs: 2 }),
  completion("One morning, a brave mouse ".repeat(8), { temperature: 0 }),
];

/** What cannot be asked for; each is a 400, or a 404 of an unknown model. */
const IMPOSSIBLE = [
  { temperature: "hot" },
  { temperature: -1 },
  { n: 1e9 },
  { max_tokens: -5 },
  { top_p: 7 },
  { top_k: 1.5 },
  { seed: -1 },
  { stop: Array.from({ length: 1000 }, (_, i) => `s${i}`) },
  { logit_bias: { nonsense: 1 } },
  { response_format: { type: "json_schema", json_schema: { name: "x", schema: { type: "bogus" } } } },
  { tools: [{ type: "function", function: {} }] },
  { tool_choice: "required" },
  { messages: [] },
  { messages: [{ role: "king", content: "hi" }] },
  { messages: [{ role: "user", content: [{ type: "image_url", image_url: { url: "http://127.0.0.1/x.png" } }] }] },
  { messages: [{ role: "user", content: "word ".repeat(20_000) }] },
  { stream_options: { include_usage: true } },
  { model: "another" },
  { chat_template: "{{ 7 * 7 }}" },
  { colour: "blue" },
];

const GARBAGE = [
  () => Buffer.from("GET / HTTP/9.9\r\n\r\n"),
  () => Buffer.from("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "latin1"),
  () => Buffer.from("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
  () => Buffer.from("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
  () => Buffer.from(`GET /${"a".repeat(70_000)} HTTP/1.1\r\nHost: localhost\r\n\r\n`),
  (random) => Buffer.from(Array.from({ length: 2000 }, () => Math.floor(random() * 256))),
];

const NOT_JSON = ["{", "null", "[]", '"text"', "\u0000", '{"messages":', `{"a":${"[".repeat(50_000)}`, '{"model":"\\ud800"}', "{'a':1}"];

/** @returns {Promise<{ status: number, headers: object, text: string }>} The answer to a POST; rejects if the connection breaks. */
export function post(server, path, body, { signal } = {}) {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  return new Promise((resolve, reject) => {
    const sent = request(
      {
        ...{ host: "127.0.0.1", port: server.port, path, method: "POST", agent: false, timeout: PATIENCE_MS, signal },
        headers: { "content-type": "application/json", "content-length": Buffer.byteLength(text), host: `127.0.0.1:${server.port}` },
      },
      (response) => {
        let answer = "";
        response.setEncoding("utf8").on("data", (piece) => {
          answer += piece;
        });
        response.on("end", () => resolve({ status: response.statusCode, headers: response.headers, text: answer }));
        response.on("error", reject);
      },
    );
    sent.on("timeout", () => sent.destroy(new Error(`no answer within ${PATIENCE_MS} ms`)));
    sent.on("error", reject);
    sent.end(text);
  });
}

/** What must be the same whenever a question is asked: texts, reasons, log-probabilities, counts. */
export function essence({ choices, usage }) {
  return JSON.stringify({
    choices: choices.map(({ index, text, message, finish_reason, logprobs }) => ({
      ...{ index, text, finish_reason, logprobs },
      message: message && { ...message, tool_calls: message.tool_calls?.map((call) => call.function) },
    })),
    usage: [usage.prompt_tokens, usage.completion_tokens],
  });
}

/** The texts of a stream, by choice, and how it ended. */
function readStream(text) {
  const frames = text.split("\n\n").filter((frame) => frame.startsWith("data: "));
  if (frames.pop() !== "data: [DONE]") throw new Error(`a stream ended without [DONE]: ${text.slice(-200)}`);
  const texts = {};
  const ends = {};
  for (const frame of frames) {
    const { choices = [], error } = JSON.parse(frame.slice(6));
    if (error) throw new Error(`a stream failed: ${error.message}`);
    for (const { index, delta, text: piece, finish_reason } of choices) {
      texts[index] = (texts[index] ?? "") + (delta?.content ?? piece ?? "");
      if (finish_reason) ends[index] = finish_reason;
    }
  }
  return { texts, ends };
}

/** Asks a question, whole or streamed; the answer must be the one that was given alone. */
async function good({ server, random, expected, until }) {
  const at = Math.floor(random() * QUESTIONS.length);
  const { path, body } = QUESTIONS[at];
  const stream = random() < 0.5;
  const { status, headers, text } = await post(server, path, stream ? { ...body, stream } : body, { signal: until });
  if (status === 429) {
    if (!(Number(headers["retry-after"]) >= 1)) throw new Error("a 429 without Retry-After");
    await sleep(20 + 80 * random());
    return "refused";
  }
  if (status !== 200) throw new Error(`question ${at} was answered ${status}: ${text.slice(0, 300)}`);
  const wanted = JSON.parse(expected[at]);
  if (!stream) {
    const got = essence(JSON.parse(text));
    if (got !== expected[at]) throw new Error(`question ${at} was answered otherwise than alone:\n${got}\n${expected[at]}`);
    return "right";
  }
  const { texts, ends } = readStream(text);
  for (const { index, text: alone, message, finish_reason } of wanted.choices) {
    if ((texts[index] ?? "") !== (alone ?? message.content ?? "") || ends[index] !== finish_reason)
      throw new Error(`question ${at}, streamed, was answered otherwise than alone: ${JSON.stringify(texts[index])} ${ends[index]}`);
  }
  return "right";
}

/** Goes away: before the answer, or some pieces into it. */
async function vanish({ server, random }) {
  const { path, body } = QUESTIONS[Math.floor(random() * QUESTIONS.length)];
  const text = JSON.stringify({ ...body, max_tokens: 400, ignore_eos: true, response_format: undefined, stream: random() < 0.8 });
  const socket = connect(server.port, "127.0.0.1");
  socket.on("error", () => undefined);
  socket.write(`POST ${path} HTTP/1.1\r\nHost: 127.0.0.1:${server.port}\r\nContent-Type: application/json\r\n`);
  socket.write(`Content-Length: ${Buffer.byteLength(text)}\r\n\r\n${random() < 0.2 ? text.slice(0, text.length >> 1) : text}`);
  let pieces = Math.floor(random() * 12);
  await new Promise((resolve) => {
    socket.on("data", () => --pieces <= 0 && resolve());
    socket.on("close", resolve);
    setTimeout(resolve, 400 * random());
  });
  if (random() < 0.5) socket.resetAndDestroy();
  else socket.destroy();
  return "stopped";
}

/** Sends bytes that are no request, or a body that is no JSON: an error, or a closed connection. */
async function garbage({ server, random, until }) {
  if (random() < 0.5) {
    const { status, text } = await post(server, "/v1/chat/completions", NOT_JSON[Math.floor(random() * NOT_JSON.length)], {
      signal: until,
    });
    return told(status, text, [400, 404]);
  }
  const answer = await exchange(server, GARBAGE[Math.floor(random() * GARBAGE.length)](random), 12_000);
  if (answer !== "" && !/^HTTP\/1\.1 4\d\d /.test(answer)) throw new Error(`garbage was answered ${JSON.stringify(answer.slice(0, 200))}`);
  return "told";
}

/** Bytes over a connection of their own; what came back until it closed. */
function exchange(server, bytes, patienceMs) {
  return new Promise((resolve, reject) => {
    const socket = connect(server.port, "127.0.0.1");
    let answer = "";
    const timer = setTimeout(() => {
      socket.destroy();
      reject(new Error(`a broken request was kept open for ${patienceMs} ms`));
    }, patienceMs);
    socket.setEncoding("latin1").on("data", (piece) => {
      answer += piece;
    });
    socket.on("error", () => undefined);
    socket.on("close", () => {
      clearTimeout(timer);
      resolve(answer);
    });
    socket.end(bytes);
  });
}

/** A hundred megabytes: announced, or in chunks. It goes on sending whatever it is told; the answer must be 413 all the same. */
function huge({ server, random }) {
  const chunked = random() < 0.5;
  const piece = Buffer.alloc(1 << 16, "x");
  return new Promise((resolve, reject) => {
    const socket = connect(server.port, "127.0.0.1");
    let [answer, sent] = ["", 0];
    const push = () => {
      while (!socket.destroyed && sent < HUGE_BYTES) {
        sent += piece.length;
        if (chunked) socket.write(`${piece.length.toString(16)}\r\n`);
        const room = socket.write(piece);
        if (chunked) socket.write("\r\n");
        if (!room) return void socket.once("drain", push);
      }
    };
    socket.on("error", () => undefined);
    socket.on("data", (data) => {
      answer += data.toString("latin1");
    });
    socket.setTimeout(PATIENCE_MS, () => socket.destroy());
    socket.on("close", () => {
      if (answer === "" && sent >= HUGE_BYTES) reject(new Error("a body of 100 MB was taken without a word"));
      else if (answer !== "" && !answer.startsWith("HTTP/1.1 413 "))
        reject(new Error(`a body of 100 MB was answered ${answer.slice(0, 200)}`));
      else resolve("told");
    });
    const length = chunked ? "Transfer-Encoding: chunked" : `Content-Length: ${HUGE_BYTES}`;
    socket.write(`POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:${server.port}\r\nContent-Type: application/json\r\n${length}\r\n\r\n`);
    push();
  });
}

/** Sends its head a letter at a time, or asks and does not read: the server closes, or the client gives up. */
async function slow({ server, random, until }) {
  const socket = connect(server.port, "127.0.0.1");
  socket.on("error", () => undefined);
  const closed = new Promise((resolve) => socket.on("close", resolve));
  const startMs = Date.now();
  if (random() < 0.5) {
    socket.pause();
    const text = JSON.stringify({ prompt: "Once upon a time", max_tokens: 300, ignore_eos: true, stream: true, logprobs: 5 });
    const head = `POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:${server.port}\r\nContent-Type: application/json\r\n`;
    socket.write(`${head}Content-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`);
    await sleep(3000 * random());
  } else {
    socket.resume();
    socket.write("GET /health HTTP/1.1\r\nX-Slow: ");
    while (!socket.destroyed && !until.aborted && Date.now() - startMs < SLOW_MS) {
      socket.write("a");
      await Promise.race([sleep(200), closed]);
    }
    if (Date.now() - startMs >= SLOW_MS) throw new Error(`a head that does not end was listened to for ${SLOW_MS} ms`);
  }
  socket.destroy();
  await closed;
  return "stopped";
}

/** Asks for what cannot be. */
async function impossible({ server, random, until }) {
  const body = { messages: [{ role: "user", content: "hi" }], ...IMPOSSIBLE[Math.floor(random() * IMPOSSIBLE.length)] };
  const { status, text } = await post(server, "/v1/chat/completions", body, { signal: until });
  return told(status, text, [400, 404, 413], body);
}

function told(status, text, accepted, body) {
  if (status === 429) return "refused";
  const { error } = JSON.parse(text);
  if (!accepted.includes(status) || typeof error?.message !== "string" || !("type" in error && "param" in error && "code" in error))
    throw new Error(`${JSON.stringify(body)?.slice(0, 200)} was answered ${status}: ${text.slice(0, 300)}`);
  return "told";
}

/** Kinds of clients with how often each comes; `most` bounds how many of a kind run at once. */
export const CLIENTS = [
  { name: "good", client: good, weight: 60, most: Infinity },
  { name: "vanish", client: vanish, weight: 16, most: Infinity },
  { name: "garbage", client: garbage, weight: 8, most: 6 },
  { name: "huge", client: huge, weight: 2, most: 2 },
  { name: "slow", client: slow, weight: 4, most: 4 },
  { name: "impossible", client: impossible, weight: 10, most: Infinity },
];
