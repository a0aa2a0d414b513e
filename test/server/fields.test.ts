/** What requests may hold: every wrong field is a 400 that names it, null is absent, and frames have OpenAI's shape to the letter (B10, B20, B32, B44, B47). */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { golden } from "../helpers/questions.js";
import { alive, framesOf, post, type Served, servers } from "./servers.js";

const { mini, closeAll } = servers();
let served: Served;
beforeAll(async () => {
  served = await mini();
});
afterAll(closeAll);

const CHAT = "/v1/chat/completions";
const sum = { messages: [{ role: "user", content: "Compute 56 + 80." }], temperature: 0 };
const chat = (fields: object) => post(served.url, CHAT, { ...sum, ...fields });
const completion = (fields: object) =>
  post(served.url, "/v1/completions", { prompt: "12 + 30 =", temperature: 0, max_tokens: 4, ...fields });

const tools = [{ type: "function", function: { name: "f" } }];

describe("fields that are refused by name", () => {
  const cases: [object, string][] = [
    [{ logit_bias: { 999999: -100 } }, "logit_bias"],
    [{ logit_bias: { "-1": 5 } }, "logit_bias"],
    [{ logit_bias: { "1.5": 5 } }, "logit_bias"],
    [{ logit_bias: { abc: 5 } }, "logit_bias"],
    [{ logit_bias: { 28: "x" } }, "logit_bias[28]"],
    [{ logit_bias: { 2047: 100 } }, "logit_bias"],
    [{ max_tokens: -1 }, "max_tokens"],
    [{ max_tokens: 1.5 }, "max_tokens"],
    [{ max_tokens: "16" }, "max_tokens"],
    [{ max_tokens: 4, max_completion_tokens: 8 }, "max_tokens"],
    [{ top_k: -1 }, "top_k"],
    [{ top_p: 0 }, "top_p"],
    [{ top_p: 1.0001 }, "top_p"],
    [{ min_p: 1.1 }, "min_p"],
    [{ repetition_penalty: 0 }, "repetition_penalty"],
    [{ temperature: "0" }, "temperature"],
    [{ temperature: -0.5 }, "temperature"],
    [{ n: 0 }, "n"],
    [{ n: 10_000 }, "n"],
    [{ stop: "" }, "stop"],
    [{ stop: [""] }, "stop[0]"],
    [{ stop: new Array<string>(1000).fill("a") }, "stop"],
    [{ stop_token_ids: [999999] }, "stop_token_ids[0]"],
    [{ seed: -1 }, "seed"],
    [{ logprobs: 2 }, "logprobs"],
    [{ top_logprobs: 2 }, "top_logprobs"],
    [{ logprobs: true, top_logprobs: 10_000 }, "top_logprobs"],
    [{ stream: "yes" }, "stream"],
    [{ stream_options: { include_usage: true } }, "stream_options"],
    [{ stream: true, stream_options: { usage: true } }, "stream_options.usage"],
    [{ stream: true, stream_options: { include_usage: 1 } }, "stream_options.include_usage"],
    [{ parallel_tool_calls: false }, "parallel_tool_calls"],
    [{ tempratur: 1 }, "tempratur"],
    [{ chat_template: "{{ evil }}" }, "chat_template"],
    [{ chat_template_kwargs: { chat_template: "{{ evil }}" } }, "chat_template_kwargs"],
    [{ chat_template_kwargs: [1] }, "chat_template_kwargs"],
    [{ enable_thinking: true, chat_template_kwargs: { enable_thinking: false } }, "enable_thinking"],
    [{ enable_thinking: "yes" }, "enable_thinking"],
    [{ functions: [] }, "functions"],
    [{ reasoning_effort: "low" }, "reasoning_effort"],
    [{ routing: 1 }, "routing"],
    [{ messages: null }, "messages"],
    [{ messages: "hello" }, "messages"],
    [{ messages: [{ role: "user", content: [{ type: "image_url", image_url: {} }] }] }, "messages[0].content[0]"],
    [{ response_format: { type: "yaml" } }, "response_format.type"],
    [{ response_format: { type: "json_object", schema: {} } }, "response_format.schema"],
    [{ response_format: { type: "json_schema", json_schema: { name: 5, schema: {} } } }, "response_format.json_schema.name"],
    [{ response_format: { type: "json_object" }, ignore_eos: true }, "ignore_eos"],
    [{ response_format: { type: "json_object" }, tools, tool_choice: "required" }, "response_format"],
    [{ tools, tool_choice: { type: "function", function: { name: "f" }, strict: true } }, "tool_choice.strict"],
    [{ tools, tool_choice: { type: "function", function: { name: "g" } } }, "tool_choice"],
    [{ model: 5 }, "model"],
    [{ user: 5 }, "user"],
    [{ safety_identifier: {} }, "safety_identifier"],
    [{ prompt_cache_key: true }, "prompt_cache_key"],
    [{ service_tier: 1 }, "service_tier"],
    [{ store: "yes" }, "store"],
    [{ metadata: "m" }, "metadata"],
    [{ metadata: ["m"] }, "metadata"],
    [{ metadata: { a: 1 } }, "metadata"],
    [
      {
        messages: [
          { role: "user", content: "a" },
          { role: "tool", content: "1" },
        ],
      },
      "messages[1].tool_call_id",
    ],
    [
      {
        messages: [
          ...sum.messages,
          { role: "assistant", tool_calls: [{ id: "c1", type: "function", function: { name: "f", arguments: "{}" } }] },
          { role: "tool", content: "1" },
        ],
      },
      "messages[2].tool_call_id",
    ],
    [{ tools: [{ name: "a" }] }, "tools[0].type"],
    [{ response_format: { type: "json_schema" } }, "response_format.json_schema"],
    [{ parse_special: true }, "parse_special"],
  ];
  it.each(cases)("%j", async (fields, param) => {
    const { status, json } = await chat(fields);
    expect([status, json.error.type]).toEqual([400, "invalid_request_error"]);
    expect(json.error.param === null ? json.error.message : json.error.param).toContain(param);
    expect(json.error.message).not.toMatch(/topP|maxTokens|stopTokens|minP|logitBias|responseFormat|toolChoice|ignoreEos/);
    expect(json.error.message).not.toContain(process.cwd());
  });

  it.each([
    [{ best_of: 4 }, "best_of"],
    [{ echo: true }, "echo"],
    [{ suffix: "x" }, "suffix"],
    [{ prompt: null }, "prompt"],
    [{ prompt: [] }, "prompt"],
    [{ prompt: {} }, "prompt"],
    [{ prompt: ["a", 5] }, "prompt[1]"],
    [{ prompt: [1, "a"] }, "prompt[1]"],
    [{ prompt: [999999] }, "prompt[0]"],
    [{ prompt: ["12", ""] }, "prompt[1]"],
    [{ prompt: new Array<string>(1000).fill("a") }, "prompt"],
    [{ logprobs: 10_000 }, "logprobs"],
    [{ messages: sum.messages }, "messages"],
  ])("completions: %j", async (fields, param) => {
    const { status, json } = await completion(fields);
    expect([status, json.error.param]).toEqual([400, param]);
  });

  it("what is missing is called missing, and nothing is offered that is refused", async () => {
    const messageOf = async (fields: object): Promise<string> => (await chat(fields)).json.error.message;
    expect(await messageOf({ tools: [{ name: "a" }] })).toBe('tools[0].type: is missing; "function" is');
    expect(await messageOf({ response_format: { type: "json_schema" } })).toBe(
      "response_format.json_schema: is missing; give an object with a schema",
    );
    expect(await messageOf({ foo: 1 })).not.toContain("parse_special");
    expect((await completion({ foo: 1 })).json.error.message).toContain("parse_special");
  });

  it("a prompt that is too long, by the field that holds it", async () => {
    const content = "12 ".repeat(5000);
    const messages = [{ role: "user", content }];
    for (const [path, body, param] of [
      [CHAT, { messages }, "messages"],
      ["/tokenize", { messages }, "messages"],
      ["/tokenize", { prompt: content }, "prompt"],
      ["/v1/score", { prompt: content }, "prompt"],
      ["/v1/completions", { prompt: content }, "prompt"],
      ["/v1/completions", { prompt: ["12", content] }, "prompt[1]"],
    ] as const) {
      const { status, json } = await post(served.url, path, body);
      expect([path, status, json.error.code, json.error.param]).toEqual([path, 400, "context_length_exceeded", param]);
    }
  });

  it("a number that JSON cannot hold", async () => {
    const { status, json } = await post(served.url, CHAT, JSON.stringify({ ...sum, logit_bias: 1 }).replace(":1}", ':{"28":1e400}}'));
    expect([status, json.error.param]).toEqual([400, "logit_bias[28]"]);
  });

  it("the server is as before", () => alive(served));
});

describe("fields that are accepted", () => {
  it.each([
    [
      {
        user: "u",
        safety_identifier: "s",
        prompt_cache_key: "k",
        store: true,
        metadata: { a: "b" },
        service_tier: "auto",
        parallel_tool_calls: true,
      },
    ],
    [{ max_tokens: null, top_p: null, stop: null, tools: null, stream: null, stream_options: null, logit_bias: null, seed: null, n: null }],
    [{ reasoning_effort: null, suffix: null, no_such_field: null, stream: false, stream_options: null }],
    [{ max_tokens: 8, max_completion_tokens: 8 }],
    [{ response_format: { type: "text" } }],
    [{ chat_template_kwargs: { enable_thinking: false } }],
    [{ temperature: 5e-324, top_k: 0, min_p: 0 }],
  ])("%j", async (fields) => {
    const { status, json } = await chat(fields);
    expect([status, json.choices?.[0].message.content]).toEqual([200, "136"]);
  });

  it("max_tokens 0 runs the prompt alone", async () => {
    const { json } = await chat({ max_tokens: 0 });
    expect(json.choices[0]).toMatchObject({ message: { content: "" }, finish_reason: "length" });
    expect(json.usage).toMatchObject({ prompt_tokens: 16, completion_tokens: 0 });
  });

  it("completions, tokenize, score: null under a name that they do not have", async () => {
    const fields = { suffix: null, best_of: null, messages: null, no_such_field: null };
    expect((await completion(fields)).json.choices[0].text).toBe(" 42");
    expect((await post(served.url, "/tokenize", { prompt: "12", suffix: null })).status).toBe(200);
    expect((await post(served.url, "/v1/score", { prompt: "12", suffix: null })).status).toBe(200);
  });

  it("completions: echo false", async () => {
    expect((await completion({ echo: false })).json.choices[0].text).toBe(" 42");
  });

  it.each([4095, 4096, 4090])("%i tokens of a context of 4096 (B01)", async (length) => {
    const { json } = await completion({ prompt: new Array<number>(length).fill(28), max_tokens: 100, ignore_eos: true });
    expect(json.usage).toMatchObject({ prompt_tokens: length, completion_tokens: 4096 - length });
    expect(json.choices[0].finish_reason).toBe("length");
  });
});

describe("history as OpenAI writes it (B20)", () => {
  const { messages, tools } = golden(21) as {
    messages: { tool_calls?: { function: { arguments: unknown } }[]; content?: unknown }[];
    tools: unknown;
  };
  const withCall = (change: { args?: unknown; content?: unknown }) => {
    const copy = structuredClone(messages);
    const message = copy.find((one) => one.tool_calls);
    if (message?.tool_calls?.[0] === undefined) throw new Error("case 21 has a tool call");
    if ("args" in change) message.tool_calls[0].function.arguments = change.args;
    if ("content" in change) message.content = change.content;
    return { messages: copy, tools };
  };
  it.each([
    [{ args: { expression: "441 * 861" } }],
    [{ args: '{"expression": "441 * 861"}' }],
    [{ args: '{"expression":"441 \\u002a 861"}' }],
    [{ content: null }],
    [{ content: "" }],
    [{ content: [] }],
  ])("%j: the same prompt", async (change) => {
    const { json } = await chat(withCall(change));
    expect([json.usage.prompt_tokens, json.choices[0].message.content]).toEqual([110, "441 * 861 is 379701."]);
  });

  it.each(["{bad", "[1]"])("arguments %j: 400 with their path", async (args) => {
    const { status, json } = await chat(withCall({ args }));
    expect([status, json.error.param]).toEqual([400, "messages[1].tool_calls[0].function.arguments"]);
  });
});

describe("frames (B32)", () => {
  const stream = async (fields: object) => {
    const { status, headers, text } = await chat({ ...fields, stream: true });
    expect([status, headers.get("content-type")]).toEqual([200, "text/event-stream; charset=utf-8"]);
    expect(headers.get("content-encoding")).toBeNull();
    const frames = framesOf(text);
    expect(frames.indexOf("[DONE]")).toBe(frames.length - 1);
    return frames.slice(0, -1).map((frame) => JSON.parse(frame));
  };
  const mul = () => ({ messages: golden(20).messages, tools: golden(20).tools });

  it.each([
    ["sum", () => ({})],
    ["think", () => ({ messages: [{ role: "user", content: "What is 879 + 904?" }], enable_thinking: true })],
    ["a tool call", mul],
    ["n", () => ({ n: 2, logprobs: true })],
    ["usage off", () => ({ stream_options: { include_usage: false } })],
    ["no stream options", () => ({ stream_options: {} })],
  ])("%s: nothing that OpenAI does not have, the role once, one finish", async (_, fields) => {
    const chunks = await stream(fields());
    const finishes = new Map<number, number>();
    const roles = new Map<number, number>();
    for (const chunk of chunks) {
      expect(Object.keys(chunk).sort()).toEqual(["choices", "created", "id", "model", "object"]);
      expect(chunk).toMatchObject({ id: chunks[0].id, created: chunks[0].created, model: "mini", object: "chat.completion.chunk" });
      expect(Number.isInteger(chunk.created)).toBe(true);
      expect(chunk.choices).toHaveLength(1);
      const [{ index, delta, finish_reason, ...rest }] = chunk.choices;
      expect(Object.keys(rest).filter((key) => key !== "logprobs")).toEqual([]);
      for (const [key, value] of Object.entries(delta)) {
        expect(["role", "content", "reasoning_content", "tool_calls"]).toContain(key);
        expect(value).not.toBeNull();
      }
      expect(finishes.get(index), "nothing comes behind the finish").toBeUndefined();
      if (delta.role !== undefined) roles.set(index, (roles.get(index) ?? 0) + 1);
      else expect(roles.get(index), "the role comes first").toBe(1);
      if (finish_reason !== null) finishes.set(index, 1);
    }
    expect([...finishes.keys()].sort()).toEqual([...roles.keys()].sort());
  });

  it("a tool call: index, id, type and name in the first piece only", async () => {
    const calls = (await stream(mul())).flatMap(({ choices }) => choices[0].delta.tool_calls ?? []);
    expect(calls[0]).toEqual({
      index: 0,
      id: expect.any(String),
      type: "function",
      function: { name: "calculator", arguments: expect.any(String) },
    });
    for (const call of calls.slice(1)) expect(call).toEqual({ index: 0, function: { arguments: expect.any(String) } });
  });

  it("usage: one more frame without choices, only when asked for", async () => {
    const chunks = await stream({ stream_options: { include_usage: true } });
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { prompt_tokens: 16, completion_tokens: 4, total_tokens: 20 } });
    expect(chunks.slice(0, -1).every(({ usage, choices }) => usage === undefined && choices.length === 1)).toBe(true);
  });

  it("characters of several tokens are never cut (B08)", async () => {
    const content = "👩‍👩‍👧‍👦 🇩🇪 中文字符 삼겹살 naïve — ok";
    const fields = { messages: [{ role: "user", content }], temperature: 1.5, max_tokens: 60, ignore_eos: true };
    for (let seed = 0; seed < 5; seed++) {
      const whole = (await chat({ ...fields, seed })).json.choices[0].message.content;
      const pieces = (await stream({ ...fields, seed })).map(({ choices }) => choices[0].delta.content ?? "");
      expect(pieces.join("")).toBe(whole);
      for (const piece of pieces) expect(piece.isWellFormed?.() ?? true).toBe(true);
    }
  });
});
