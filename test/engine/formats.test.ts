/** Answers in a format, and demanded tool calls, over the bundled checkpoint: whole, cut, in batches, after reasoning, streamed. */
import { Ajv2020 } from "ajv/dist/2020.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Engine } from "../../ts/engine/engine.js";
import type { GenerateParams } from "../../ts/sampling/parameters.js";
import type { Tool } from "../../ts/text/index.js";
import { alive, engines, idle, refused } from "../helpers/mini.js";

const { open, closeAll } = engines();
afterAll(closeAll);

const ajv = new Ajv2020({ strict: false });
const ask = (content: string, more: object = {}) => ({ messages: [{ role: "user" as const, content }], ...more });
const PERSON = {
  type: "object",
  properties: {
    name: { type: "string", minLength: 2, maxLength: 12 },
    age: { type: "integer", minimum: 0, maximum: 150 },
    tags: { type: "array", items: { enum: ["red", "green", "blue"] }, maxItems: 3 },
    size: { type: ["number", "null"], exclusiveMinimum: 0, maximum: 2.5 },
    id: { type: "string", pattern: "^[A-Z]{2}-\\d{3}$" },
  },
  required: ["name", "age", "tags", "size", "id"],
  additionalProperties: false,
};
const format = (schema: object): GenerateParams => ({ responseFormat: { type: "json_schema", json_schema: { name: "answer", schema } } });
const constant = (value: unknown): GenerateParams => format({ type: "object", properties: { x: { const: value } }, required: ["x"] });
const CALCULATOR: Tool = {
  type: "function",
  function: {
    name: "calculator",
    parameters: { type: "object", properties: { expression: { type: "string", maxLength: 12 } }, required: ["expression"] },
  },
};
const WEATHER: Tool = {
  type: "function",
  function: { name: "weather", parameters: { type: "object", properties: { city: { enum: ["Paris", "Rome"] } }, required: ["city"] } },
};

let engine: Engine;
beforeAll(async () => {
  engine = await open();
});

describe("an answer of a schema", () => {
  test("parses and matches, at any temperature, for sixteen seeds at once", async () => {
    const params = { ...format(PERSON), temperature: 1.5, n: 16, seed: 3, maxTokens: 400 };
    const { choices = [] } = await engine.generate(ask("Who?"), params);
    expect(choices).toHaveLength(16);
    for (const { text, finishReason } of choices) {
      expect([text, finishReason]).toEqual([text, "stop"]);
      expect([text, ajv.validate(PERSON, JSON.parse(text))]).toEqual([text, true]);
    }
    idle(engine);
  });

  test("that is cut by the limit says so", async () => {
    const whole = await engine.generate(ask("Who?"), { ...format(PERSON), temperature: 0 });
    const numTokens = whole.tokens.length;
    const cut = await engine.generate(ask("Who?"), { ...format(PERSON), temperature: 0, maxTokens: numTokens - 1 });
    expect(cut.finishReason).toBe("length");
    expect(cut.tokens).toEqual(whole.tokens.slice(0, -1));
    const exact = await engine.generate(ask("Who?"), { ...format(PERSON), temperature: 0, maxTokens: numTokens });
    expect([exact.text, exact.finishReason]).toEqual([whole.text, "stop"]);
  });

  test("may force any text: characters of several tokens, tags, what needs escapes", async () => {
    for (const text of ["👩‍👩‍👧‍👦 🇩🇪 中文字符 삼겹살 naïve — ok", "</longcat_think>", '<longcat_tool_call>{"a"', 'a"b\\c\nd', ""]) {
      const result = await engine.generate(ask("?"), constant(text));
      expect(result.text).toContain('"x"');
      expect(JSON.parse(result.text)).toEqual({ x: text });
    }
  });

  test("is the same alone and beside others, free and guided, streamed and not", async () => {
    const params = { ...format(PERSON), temperature: 1, seed: 11, logprobs: 1 };
    const alone = await engine.generate(ask("Who?"), params);
    const [beside] = await Promise.all([
      engine.generate(ask("Who?"), params),
      engine.generate("Once upon a time", { maxTokens: 60, temperature: 0 }),
      engine.generate(ask("Other"), { ...constant("abc"), temperature: 0 }),
      engine.generate("The cat", { maxTokens: 30, seed: 4 }),
    ]);
    expect({ ...beside, timings: 0 }).toEqual({ ...alone, timings: 0 });
    let text = "";
    for await (const chunk of engine.stream(ask("Who?"), params)) text += chunk.text;
    expect(text).toBe(alone.text);
    idle(engine);
  });

  test("leaves free neighbours as they are", async () => {
    const free = { maxTokens: 40, temperature: 1, seed: 9 };
    const alone = await engine.generate("Once upon a time", free);
    const [beside] = await Promise.all([engine.generate("Once upon a time", free), engine.generate(ask("Who?"), format(PERSON))]);
    expect(beside.tokens).toEqual(alone.tokens);
    // The slot that was guided is free again.
    expect((await engine.generate("Once upon a time", free)).tokens).toEqual(alone.tokens);
    await alive(engine);
  });

  test("keeps to it under penalties, bias, filters and stop tokens", async () => {
    const hostile = {
      repetitionPenalty: 3,
      presencePenalty: 50,
      frequencyPenalty: 50,
      minP: 0.5,
      topK: 2,
      topP: 0.5,
      stopTokens: [232, 27],
    };
    const bias = { "30": 100, "2": 100, "79": 100 };
    for (const seed of [1, 2, 3]) {
      const { text, finishReason } = await engine.generate(ask("Who?"), { ...format(PERSON), ...hostile, logitBias: bias, seed });
      expect([text, finishReason, ajv.validate(PERSON, JSON.parse(text))]).toEqual([text, "stop", true]);
    }
  });

  test("may be any object, also of a raw prompt", async () => {
    const { text, finishReason, tokens } = await engine.generate("A list:", {
      responseFormat: { type: "json_object" },
      seed: 5,
      maxTokens: 300,
    });
    if (finishReason === "stop") expect(typeof JSON.parse(text)).toBe("object");
    else expect(tokens).toHaveLength(300);
    expect(text[0]).toBe("{");
  });

  test("a number's end is drawn, and is no part of the text", async () => {
    const schema = { type: "integer", minimum: 1, maximum: 9999 };
    for (const seed of [1, 2, 3, 4]) {
      const { text, finishReason } = await engine.generate(ask("A number?"), { ...format(schema), seed });
      expect([text, finishReason, ajv.validate(schema, JSON.parse(text))]).toEqual([text, "stop", true]);
    }
  });
});

describe("reasoning", () => {
  test("comes first and is free; the format is of the answer alone", async () => {
    const chat = ask("What is 879 + 904?", { enableThinking: true });
    const free = await engine.generate(chat, { temperature: 0 });
    const { reasoning, text } = await engine.generate(chat, { temperature: 0, ...constant("</longcat_think>") });
    expect(reasoning).toBe(free.reasoning);
    expect(JSON.parse(text)).toEqual({ x: "</longcat_think>" });
    const cut = await engine.generate(chat, { temperature: 0, ...constant("a"), maxTokens: 10 });
    expect([cut.text, cut.finishReason]).toEqual(["", "length"]);
  });

  test("cannot end the generation", async () => {
    const chat = ask("What is 879 + 904?", { enableThinking: true });
    const { text, finishReason } = await engine.generate(chat, { temperature: 0, ...constant("a"), logitBias: { "2": 100, "5": 20 } });
    expect([JSON.parse(text), finishReason]).toEqual([{ x: "a" }, "stop"]);
  });
});

describe("tool calls", () => {
  test("required: a call, whatever was asked, with arguments of the tool's schema", async () => {
    for (const seed of [1, 2, 3, 4]) {
      const params: GenerateParams = { toolChoice: "required", seed, temperature: 1.5, maxTokens: 500 };
      const result = await engine.generate(ask("Tell me a story.", { tools: [CALCULATOR, WEATHER] }), params);
      if (result.finishReason === "length") continue; // call after call
      expect(result.finishReason).toBe("tool_calls");
      for (const { name, arguments: text } of result.toolCalls ?? []) {
        const tool = [CALCULATOR, WEATHER].find((one) => one.function.name === name);
        expect(ajv.validate(tool?.function.parameters as object, JSON.parse(text))).toBe(true);
      }
      expect(result.text.trim()).toBe("");
    }
  });

  test("a named tool: one call of it, in the prompt or the parameters", async () => {
    const toolChoice = { type: "function" as const, function: { name: "weather" } };
    const inPrompt = await engine.generate(ask("What is 441 * 861?", { tools: [CALCULATOR, WEATHER], toolChoice }), { temperature: 0 });
    const inParams = await engine.generate(ask("What is 441 * 861?", { tools: [CALCULATOR, WEATHER] }), { temperature: 0, toolChoice });
    for (const { toolCalls = [], finishReason } of [inPrompt, inParams]) {
      expect([finishReason, toolCalls.map(({ name }) => name)]).toEqual(["tool_calls", ["weather"]]);
      expect(ajv.validate(WEATHER.function.parameters as object, JSON.parse(toolCalls[0]?.arguments ?? ""))).toBe(true);
    }
  });

  test("auto beside a format: a call or the format", async () => {
    const chat = ask("What is 441 * 861?", { tools: [CALCULATOR] });
    const called = await engine.generate(chat, { temperature: 0, ...constant("a") });
    expect([called.finishReason, called.toolCalls?.[0]?.name]).toEqual(["tool_calls", "calculator"]);
    const told = await engine.generate(chat, { temperature: 0, ...constant("a"), logitBias: { "6": -100 } });
    expect([told.finishReason, JSON.parse(told.text)]).toEqual(["stop", { x: "a" }]);
    const none = await engine.generate(chat, { temperature: 0, ...constant("a"), toolChoice: "none" });
    expect(JSON.parse(none.text)).toEqual({ x: "a" });
  });

  test("come after reasoning too", async () => {
    const chat = ask("What is 441 * 861?", { tools: [CALCULATOR], enableThinking: true, toolChoice: "required" });
    const { reasoning, toolCalls, finishReason } = await engine.generate(chat, { temperature: 0, maxTokens: 400 });
    if (finishReason === "length") expect(reasoning).toBeDefined();
    else expect([finishReason, toolCalls?.[0]?.name]).toEqual(["tool_calls", "calculator"]);
  });
});

describe("what is refused when it enters", () => {
  const REFUSED: [string, object, GenerateParams, string][] = [
    [
      "a keyword that is not supported",
      {},
      format({ type: "object", properties: { a: { not: {} } } }),
      "responseFormat.json_schema.schema.properties.a.not",
    ],
    ["an impossible schema", {}, format({ enum: [] }), "responseFormat.json_schema.schema.enum"],
    ["ignoreEos", {}, { ...constant("a"), ignoreEos: true }, "ignoreEos"],
    ["a format beside a demanded call", { tools: [CALCULATOR] }, { ...constant("a"), toolChoice: "required" }, "responseFormat"],
    ["a demanded call without tools", {}, { toolChoice: "required" }, "toolChoice"],
    ["a tool that is not there", { tools: [CALCULATOR] }, { toolChoice: { type: "function", function: { name: "x" } } }, "toolChoice"],
    ["two choices", { tools: [CALCULATOR], toolChoice: "auto" }, { toolChoice: "required" }, "toolChoice"],
    [
      "a tool whose schema cannot be kept",
      { tools: [{ type: "function", function: { name: "f", parameters: { type: "object", properties: { a: { not: {} } } } } }] },
      { toolChoice: "required" },
      "tools[0].function.parameters.properties.a.not",
    ],
  ];
  test.each(REFUSED)("%s", async (_, more, params, named) => {
    await expect(engine.generate(ask("?", more), params)).rejects.toEqual(refused("OPTION_INVALID", named));
    idle(engine);
  });
});
