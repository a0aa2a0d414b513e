/**
 * Field trials over HTTP: what is out of bounds (B10), can never fit (B11), is nested or malformed (B17) or endless (B38) is answered by
 * name and soon, while streams of others run on unharmed and `/health` answers.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { inspect } from "../../ts/index.js";
import { onABusyMachine } from "../helpers/time.js";
import { alive, framesOf, post, type Served, servers } from "../server/servers.js";

const { mini, closeAll } = servers();
afterAll(closeAll);
let served: Served;
beforeAll(async () => {
  served = await mini();
  await alive(served);
});

const CHAT = "/v1/chat/completions";
const sum = { messages: [{ role: "user", content: "Compute 56 + 80." }], temperature: 0, max_tokens: 16 };
/** The trials' bounds: a second for an answer, 250 ms between tokens of the others and for `/health`. */
const [ANSWER_MS, LAG_MS] = [onABusyMachine(1000), onABusyMachine(250)];

/** A stream whose answer does not depend on what runs beside it: its text, and the longest time between two reads. */
async function longStream(seed: number, onStart: () => void) {
  const body = { prompt: "Once upon a time", seed, max_tokens: 600, ignore_eos: true, stream: true };
  const response = await fetch(`${served.url}/v1/completions`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  let [text, longestMs, lastMs] = ["", 0, 0];
  for await (const bytes of response.body as unknown as AsyncIterable<Uint8Array>) {
    const now = performance.now();
    if (lastMs > 0) longestMs = Math.max(longestMs, now - lastMs);
    else onStart();
    lastMs = now;
    text += Buffer.from(bytes).toString("latin1");
  }
  const frames = framesOf(text);
  expect(frames.at(-1)).toBe("[DONE]");
  const words = frames.slice(0, -1).map((frame) => JSON.parse(frame).choices[0].text);
  return { text: words.join(""), longestMs };
}

let streamsAlone: string[] | undefined;

/** Runs `work` beside three streams, which must say what they say without it, and looks at `/health` all the time. */
async function besideStreams(work: () => Promise<void>): Promise<void> {
  const run = async (beside: () => Promise<void>): Promise<{ text: string; longestMs: number }[]> => {
    let started = 0;
    let start: () => void = () => undefined;
    const all = new Promise<void>((resolve) => {
      start = resolve;
    });
    const streams = Promise.all([1, 2, 3].map((seed) => longStream(seed, () => ++started === 3 && start())));
    await all;
    await beside();
    return streams;
  };
  streamsAlone ??= (await run(async () => undefined)).map(({ text }) => text);
  let [over, slowestMs] = [false, 0];
  const polling = (async () => {
    while (!over) {
      const begun = performance.now();
      expect((await fetch(`${served.url}/health`)).status).toBe(200);
      slowestMs = Math.max(slowestMs, performance.now() - begun);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  })();
  const streams = await run(work).finally(() => {
    over = true;
  });
  await polling;
  expect(streams.map(({ text }) => text)).toEqual(streamsAlone);
  for (const { longestMs } of streams) expect(longestMs).toBeLessThan(LAG_MS);
  expect(slowestMs).toBeLessThan(LAG_MS);
  await alive(served);
}

/** Sends each and expects a 400 within the time; what is wrong with the answer is told with the case's name. */
async function allRefused(cases: readonly (readonly [name: string, body: unknown, named: string])[], path = CHAT): Promise<void> {
  for (const [name, body, named] of cases) {
    const begun = performance.now();
    const { status, json } = await post(served.url, path, body);
    const ms = performance.now() - begun;
    expect([name, status, json.error.type]).toEqual([name, 400, "invalid_request_error"]);
    expect([name, json.error.message], name).toEqual([name, expect.stringContaining(named)]);
    expect(json.error.message.length, name).toBeLessThan(1000);
    expect([name, ms < ANSWER_MS]).toEqual([name, true]);
  }
}

describe("B10: parameters out of bounds", () => {
  it("are refused by field and value", async () => {
    const cases = Object.entries({
      logit_bias: [{ 999999: -100 }, { "-1": 5 }, { "1.5": 5 }, { abc: 5 }, { 28: "x" }, { 2047: 100 }, { 1172: 100 }],
      max_tokens: [-1, 1.5, "16"],
      top_k: [-1, 1.5],
      top_p: [0, 1.0001],
      min_p: [1.1],
      repetition_penalty: [0],
      n: [0, 10_000],
      top_logprobs: [10_000],
      stop: ["", [""], Array.from({ length: 1000 }, (_, i) => `s${i}`)],
      stop_token_ids: [[999_999]],
    }).flatMap(([field, values]) =>
      values.map((value) => [`${field} ${JSON.stringify(value)}`, { ...sum, logprobs: true, [field]: value }, field] as const),
    );
    await besideStreams(async () => {
      await allRefused(cases);
      await allRefused([["two limits", { ...sum, max_tokens: 4, max_completion_tokens: 8 }, "max_tokens"]]);
      const many = { ...sum, logit_bias: Object.fromEntries(Array.from({ length: 5000 }, (_, id) => [id, 1])) };
      await allRefused([["5,000 biases", many, "logit_bias: 5000 entries"]]);
    });
  });
});

describe("B11: what can never fit", () => {
  it("is refused at once with both numbers, and holds nobody up", async () => {
    const { cacheBytes } = await inspect.estimate(undefined, { device: "cpu", context: 16, batch: 1 });
    const tight = await mini({ engine: { cacheBytes: (cacheBytes / 16) * 144, maxSequences: 8 } });
    const room = (await (await fetch(`${tight.url}/v1/models`)).json()) as { data: { max_model_len: number }[] };
    const most = room.data[0]?.max_model_len ?? 0;
    expect(most).toBeGreaterThan(100);
    expect(most).toBeLessThan(191);
    const [tooLong, answer, endless] = await Promise.all([
      post(tight.url, "/v1/completions", { prompt: new Array(191).fill(28), max_tokens: 1 }),
      post(tight.url, CHAT, sum),
      post(tight.url, "/v1/completions", { prompt: new Array(100).fill(28), max_tokens: 2000, ignore_eos: true }),
    ]);
    expect([tooLong.status, tooLong.json.error.code]).toEqual([400, "out_of_memory"]);
    for (const number of ["191", String(most)]) expect(tooLong.json.error.message).toContain(number);
    expect(answer.json.choices[0].message.content).toBe("136");
    expect([endless.json.choices[0].finish_reason, endless.json.usage.completion_tokens]).toEqual(["length", most - 100]);
    await alive(tight);
  });
});

describe("B17: nested and malformed", () => {
  const schema = (value: unknown) => ({ ...sum, response_format: { type: "json_schema", json_schema: { name: "x", schema: value } } });
  const nested = (open: string, inner: string, close: string, times: number) => open.repeat(times) + inner + close.repeat(times);
  const body = (fields: string) => JSON.stringify(sum).replace("{", `{${fields},`);
  const at = "response_format.json_schema.schema";

  it("tools, fields, schemas and patterns are refused by the part that is wrong", async () => {
    await besideStreams(() =>
      allRefused([
        ["3,000 brackets", body(`"tools":${nested("[", "", "]", 3000)}`), "nested deeper"],
        ["100,000 brackets", body(`"tools":${nested("[", "", "]", 100_000)}`), "nested deeper"],
        ["100,000 objects", body(`"x":${nested('{"a":', "1", "}", 100_000)}`), "nested deeper"],
        [
          "10,000 levels of properties",
          JSON.stringify(schema(0)).replace('"schema":0', `"schema":${nested('{"properties":{"a":', "{}", "}}", 10_000)}`),
          "nested deeper",
        ],
        [
          "120 levels of properties",
          JSON.stringify(schema(0)).replace('"schema":0', `"schema":${nested('{"properties":{"a":', "{}", "}}", 120)}`),
          "nested too deeply",
        ],
        ["a reference to itself", schema({ $ref: "#" }), "refers to itself"],
        ["a ring", schema({ $ref: "#/$defs/a", $defs: { a: { $ref: "#/$defs/b" }, b: { $ref: "#/$defs/a" } } }), "refers to itself"],
        ["a property that is a text", schema({ properties: { foo: "bar" } }), `${at}.properties.foo`],
        ["a type that is none", schema({ type: "objekt" }), `${at}.type: "objekt"`],
        ...["foo**", "^+[a-z]$", "^{2}x$", "(?<=x)y", "(".repeat(60_000)].map(
          (pattern) => [`pattern ${pattern.slice(0, 9)}`, schema({ type: "string", pattern }), `${at}.pattern`] as const,
        ),
        ["100,000 values", schema({ enum: Array.from({ length: 100_000 }, (_, i) => i) }), `${at}.enum`],
        ["a huge length", schema({ type: "string", minLength: 1e9 }), `${at}.minLength`],
        ["a property that may not be", schema({ type: "object", required: ["a"], additionalProperties: false }), `${at}.required`],
        [
          "the same of a tool that must be called",
          { ...sum, tool_choice: "required", tools: [{ type: "function", function: { name: "f", parameters: { not: {} } } }] },
          "tools[0].function.parameters.not",
        ],
      ]),
    );
  });

  it("a pattern that backtracks elsewhere is kept", async () => {
    await besideStreams(async () => {
      const { status, json } = await post(served.url, CHAT, schema({ type: "string", pattern: "^(a+)+$" }));
      expect([status, json.choices[0].message.content]).toEqual([200, expect.stringMatching(/^"a+"?$/)]);
    });
  });
});

describe("B38: texts without end", () => {
  it("are refused over every route", async () => {
    const long = (unit: string) => unit.repeat(1_000_000 / unit.length);
    await besideStreams(() =>
      allRefused(
        ["a", "_", " ", "\n", "1", "é", "中", "ab"].map((unit) => [`/v1/completions ${unit}`, { prompt: long(unit) }, "context"]),
        "/v1/completions",
      ),
    );
    await besideStreams(async () => {
      for (const path of ["/tokenize", "/v1/score"]) await allRefused([[path, { prompt: long("a") }, "context"]], path);
      await allRefused([
        ["a message", { messages: [{ role: "user", content: long("a") }] }, "context"],
        ["a stop string", { ...sum, stop: long("a") }, "stop"],
        ["a tool's name", { ...sum, tools: [{ type: "function", function: { name: long("a") } }] }, "context"],
        ["a model", { ...sum, seed: long("a") }, "seed"],
      ]);
    });
  });
});
