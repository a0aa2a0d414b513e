/** `longcat-node/ai-sdk` through the AI SDK's own callers, over the bundled checkpoint. */
import { APICallError, InvalidArgumentError, InvalidPromptError, NoSuchModelError, UnsupportedFunctionalityError } from "@ai-sdk/provider";
import { generateObject, generateText, jsonSchema, Output, stepCountIs, streamObject, streamText, tool } from "ai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createLongcat, type LongcatProvider } from "../../ts/ai-sdk/index.js";
import type { Engine } from "../../ts/index.js";
import { alive, engines, golden, idle } from "../helpers/mini.js";

const { open, closeAll } = engines();
afterAll(closeAll);

let engine: Engine;
let longcat: LongcatProvider;
beforeAll(async () => {
  engine = await open();
  longcat = createLongcat(engine);
});

const SUM = "Compute 56 + 80.";
const calculator = (calls: unknown[] = []) =>
  tool({
    description: "Compute the value of an expression.",
    inputSchema: jsonSchema<{ expression: string }>({
      type: "object",
      properties: { expression: { type: "string" } },
      required: ["expression"],
    }),
    execute: (input) => {
      calls.push(input);
      return "379701";
    },
  });

describe("generateText", () => {
  it("answers, counts and says what the router did", async () => {
    const result = await generateText({ model: longcat(), prompt: SUM, temperature: 0 });
    expect(result.text).toBe("136");
    expect(result.finishReason).toBe("stop");
    expect(result.usage).toMatchObject({ inputTokens: 16, outputTokens: 4, totalTokens: 20 });
    expect(result.response.modelId).toBe("mini");
    const { routing, timings } = result.providerMetadata!["longcat"] as Record<string, Record<string, number>>;
    expect(routing!["zeroExpertShare"]).toBeGreaterThan(0);
    expect(routing!["zeroExpertShare"]).toBeLessThan(1);
    expect(timings!["ttftMs"]).toBeGreaterThan(0);
  });

  it("gives the engine's own answer for the same settings", async () => {
    const settings = { temperature: 0.9, topP: 0.9, topK: 40, seed: 7, presencePenalty: 0.5, frequencyPenalty: 0.25 };
    const system = { role: "system" as const, content: "You tell stories." };
    const user = { role: "user" as const, content: "Tell a story." };
    const longcatOptions = { minP: 0.01, repetitionPenalty: 1.1, logitBias: { 300: -5 }, logprobs: 2 };
    const theirs = await generateText({
      ...{ model: longcat(), system: system.content, messages: [user], maxOutputTokens: 24, stopSequences: ["zzz"], ...settings },
      providerOptions: { longcat: longcatOptions },
    });
    const ours = await engine.generate({ messages: [system, user] }, { maxTokens: 24, stop: ["zzz"], ...settings, ...longcatOptions });
    expect(theirs.text).toBe(ours.text);
    expect(theirs.finishReason).toBe(ours.finishReason);
    expect(theirs.providerMetadata!["longcat"]!["logprobs"]).toEqual(ours.logprobs);
  });

  it("thinks when told to, by call or by default", async () => {
    const prompt = "What is 879 + 904?";
    const byCall = await generateText({
      ...{ model: longcat(), prompt, temperature: 0 },
      providerOptions: { longcat: { enableThinking: true } },
    });
    const thoughtful = createLongcat(engine, { modelId: "thoughtful", defaults: { enableThinking: true } });
    const byDefault = await generateText({ model: thoughtful("thoughtful"), prompt, temperature: 0 });
    expect(byCall.text).toBe("1783");
    expect(byCall.reasoningText).toMatch(/\w/);
    expect([byDefault.text, byDefault.reasoningText]).toEqual([byCall.text, byCall.reasoningText]);
  });

  it("calls a tool, reads its result and answers", async () => {
    const calls: unknown[] = [];
    const result = await generateText({
      ...{ model: longcat(), prompt: "What is 441 * 861?", temperature: 0 },
      ...{ tools: { calculator: calculator(calls) }, stopWhen: stepCountIs(3) },
    });
    expect(calls).toEqual([{ expression: "441 * 861" }]);
    expect(result.steps.map(({ finishReason }) => finishReason)).toEqual(["tool-calls", "stop"]);
    expect(result.text).toBe("441 * 861 is 379701.");
  });

  it("hides the tools when none may be called", async () => {
    const settings = { model: longcat(), prompt: SUM, temperature: 0, tools: { calculator: calculator() } };
    const { usage, text } = await generateText({ ...settings, toolChoice: "none" });
    expect([usage.inputTokens, text]).toEqual([16, "136"]);
  });

  it("ends at the limit", async () => {
    const result = await generateText({ model: longcat(), prompt: "Tell a story.", maxOutputTokens: 5, temperature: 0 });
    expect([result.finishReason, result.usage.outputTokens]).toEqual(["length", 5]);
  });
});

describe("streamText", () => {
  it("streams what generateText gives", async () => {
    const result = streamText({ model: longcat(), prompt: SUM, temperature: 0 });
    const pieces: string[] = [];
    for await (const piece of result.textStream) pieces.push(piece);
    expect(pieces.join("")).toBe("136");
    expect(pieces.length).toBeGreaterThan(1);
    expect(await result.finishReason).toBe("stop");
    expect(await result.usage).toMatchObject({ inputTokens: 16, outputTokens: 4 });
    const { ffnExperts } = (await result.providerMetadata)!["longcat"] as unknown as { ffnExperts: number[][] };
    expect(ffnExperts).toHaveLength(4);
    for (const layers of ffnExperts) expect(layers).toHaveLength(engine.info.numLayers);
  });

  it("streams thoughts before the answer", async () => {
    const result = streamText({
      ...{ model: longcat(), prompt: "What is 879 + 904?", temperature: 0 },
      providerOptions: { longcat: { enableThinking: true } },
    });
    const kinds: string[] = [];
    for await (const { type } of result.fullStream) if (kinds.at(-1) !== type) kinds.push(type);
    expect(kinds.filter((kind) => /reasoning|text/.test(kind))).toEqual(
      ["reasoning", "text"].flatMap((kind) => [`${kind}-start`, `${kind}-delta`, `${kind}-end`]),
    );
    expect(await result.text).toBe("1783");
    expect(await result.reasoningText).toMatch(/\w/);
  });

  it("streams a tool call, runs it and answers", async () => {
    const calls: unknown[] = [];
    const result = streamText({
      ...{ model: longcat(), prompt: "What is 441 * 861?", temperature: 0 },
      ...{ tools: { calculator: calculator(calls) }, stopWhen: stepCountIs(3) },
    });
    let input = "";
    for await (const part of result.fullStream) if (part.type === "tool-input-delta") input += part.delta;
    expect(JSON.parse(input)).toEqual({ expression: "441 * 861" });
    expect(calls).toEqual([{ expression: "441 * 861" }]);
    expect(await result.text).toBe("441 * 861 is 379701.");
  });

  it("a call that the limit cuts off is no call", async () => {
    const result = streamText({
      ...{ model: longcat(), prompt: "What is 441 * 861?", temperature: 0, maxOutputTokens: 16 },
      tools: { calculator: calculator() },
    });
    const kinds: string[] = [];
    for await (const { type } of result.fullStream) kinds.push(type);
    expect(kinds).toContain("tool-input-start");
    expect(kinds).not.toContain("tool-call");
    expect(await result.finishReason).toBe("length");
  });

  it("a stream that is left ends the work", async () => {
    const { stream } = await longcat().doStream({ prompt: [{ role: "user", content: [{ type: "text", text: "Tell a story." }] }] });
    const reader = stream.getReader();
    for (let i = 0; i < 4; i++) await reader.read();
    await reader.cancel();
    idle(engine);
    await alive(engine);
  });
});

describe("generateObject", () => {
  const schema = jsonSchema<{ sum: number; sure: boolean }>({
    type: "object",
    properties: { sum: { type: "integer" }, sure: { type: "boolean" } },
    required: ["sum", "sure"],
    additionalProperties: false,
  });

  it("gives an object of the schema", async () => {
    const { object, usage } = await generateObject({ model: longcat(), schema, prompt: SUM, temperature: 0, maxOutputTokens: 200 });
    expect(Object.keys(object).sort()).toEqual(["sum", "sure"]);
    expect([Number.isInteger(object.sum), typeof object.sure]).toEqual([true, "boolean"]);
    expect(usage.inputTokens).toBe(16);
  });

  it("streams one, and generateText gives one as its output", async () => {
    const settings = { model: longcat(), prompt: SUM, temperature: 0, maxOutputTokens: 200 };
    const streamed = streamObject({ ...settings, schema });
    const partial: unknown[] = [];
    for await (const one of streamed.partialObjectStream) partial.push(one);
    const object = await streamed.object;
    expect(partial.at(-1)).toEqual(object);
    expect((await generateText({ ...settings, output: Output.object({ schema }) })).output).toEqual(object);
  });

  it("any JSON object without a schema, choices of a list", async () => {
    const settings = { model: longcat(), prompt: SUM, temperature: 0, maxOutputTokens: 300 };
    const choice = await generateObject({ ...settings, output: "enum", enum: ["odd", "even"] });
    expect(["odd", "even"]).toContain(choice.object);
    // Without a schema the bundled model's strings may never end: that it begins as an object is what can be said.
    const prompt = [{ role: "user" as const, content: [{ type: "text" as const, text: SUM }] }];
    const free = await longcat().doGenerate({ prompt, temperature: 0, maxOutputTokens: 20, responseFormat: { type: "json" } });
    expect(free.content).toEqual([{ type: "text", text: expect.stringMatching(/^\s*\{/) }]);
  });

  it("a schema that cannot be kept is refused by name", async () => {
    const odd = jsonSchema({ type: "object", properties: { a: { not: {} } } });
    const asked = generateObject({ model: longcat(), schema: odd, prompt: SUM, maxRetries: 0 });
    await expect(asked).rejects.toSatisfy(InvalidArgumentError.isInstance);
    await expect(asked).rejects.toThrow(/not/);
  });
});

describe("a tool that must be called", () => {
  it.each(["required" as const, { type: "tool" as const, toolName: "calculator" as const }])("toolChoice %j", async (toolChoice) => {
    const { toolCalls, finishReason } = await generateText({
      ...{ model: longcat(), prompt: "Tell a story.", temperature: 0, maxOutputTokens: 300 },
      ...{ tools: { calculator: calculator() }, toolChoice },
    });
    expect(finishReason).toBe("tool-calls");
    expect(toolCalls[0]).toMatchObject({ toolName: "calculator", input: { expression: expect.any(String) } });
  });
});

describe("aborts", () => {
  it("an aborted generateText rejects with the SDK's abort, and the work ends", async () => {
    const controller = new AbortController();
    const asked = generateText({
      ...{ model: longcat(), prompt: "Tell a story.", abortSignal: controller.signal },
      providerOptions: { longcat: { ignoreEos: true } },
    });
    setTimeout(() => controller.abort(), 100);
    await expect(asked).rejects.toMatchObject({ name: "AbortError" });
    idle(engine);
  });

  it("an aborted streamText ends with an abort part", async () => {
    const controller = new AbortController();
    const result = streamText({
      ...{ model: longcat(), prompt: "Tell a story.", abortSignal: controller.signal },
      providerOptions: { longcat: { ignoreEos: true } },
    });
    const kinds: string[] = [];
    for await (const { type } of result.fullStream) {
      kinds.push(type);
      if (type === "text-delta") controller.abort();
    }
    expect(kinds).toContain("abort");
    expect(kinds).not.toContain("error");
    await alive(engine);
    idle(engine);
  });

  it("a signal that has fired already starts nothing", async () => {
    const steps = engine.stats.steps;
    const asked = generateText({ model: longcat(), prompt: SUM, abortSignal: AbortSignal.abort() });
    await expect(asked).rejects.toMatchObject({ name: "AbortError" });
    expect(engine.stats.steps).toBe(steps);
  });
});

describe("createLongcat", () => {
  it.each<[string, unknown[], string]>([
    ["no engine", [], "engine: not an engine"],
    ["null", [null], "engine: not an engine"],
    ["no engine but an object", [{}], "engine: not an engine"],
    ["settings that are no object", ["mini"], "settings: not an object"],
    ["an unknown setting", [{ foo: 1 }], "settings.foo: not known; known are modelId, defaults"],
    ["an id that is no name", [{ modelId: 5 }], "modelId: not a name"],
    ["an empty id", [{ modelId: "" }], "modelId: not a name"],
    ["defaults that are no object", [{ defaults: [] }], "defaults: not an object"],
    ["an unknown default", [{ defaults: { foo: 1 } }], "defaults.foo: not known; known are minP, "],
  ])("refuses %s when it is called", (_, given, message) => {
    const [first, ...rest] = message.startsWith("engine") ? given : [engine, ...given];
    const refused = expect.objectContaining({ code: "OPTION_INVALID", message: expect.stringContaining(message) });
    expect(() => createLongcat(first as Engine, ...(rest as []))).toThrow(refused);
  });

  it.each([undefined, null, {}, { modelId: null, defaults: null }])("takes absent settings: %j", (settings) => {
    expect(createLongcat(engine, settings)().modelId).toBe("mini");
  });
});

describe("errors arrive as the SDK's, the engine's as their cause", () => {
  const cause = (code: string) => ({ cause: expect.objectContaining({ name: "LongcatError", code }) });

  it("a wrong option", async () => {
    const asked = generateText({ model: longcat(), prompt: SUM, topP: 7, maxRetries: 0 });
    await expect(asked).rejects.toSatisfy(InvalidArgumentError.isInstance);
    await expect(asked).rejects.toMatchObject({ argument: "topP", ...cause("OPTION_INVALID") });
  });

  it("an unknown option of ours, by name", async () => {
    const asked = generateText({ model: longcat(), prompt: SUM, providerOptions: { longcat: { minp: 0.1 } } });
    await expect(asked).rejects.toMatchObject({ argument: "providerOptions.longcat.minp" });
  });

  it("a prompt longer than the context, streamed too", async () => {
    const prompt = "Compute 56 + 80. ".repeat(2000);
    const asked = generateText({ model: longcat(), prompt, maxRetries: 0 });
    await expect(asked).rejects.toSatisfy(InvalidPromptError.isInstance);
    await expect(asked).rejects.toMatchObject(cause("CONTEXT_OVERFLOW"));
    const errors: unknown[] = [];
    await streamText({ model: longcat(), prompt, maxRetries: 0, onError: ({ error }) => void errors.push(error) }).consumeStream();
    expect(errors).toEqual([expect.objectContaining(cause("CONTEXT_OVERFLOW"))]);
  });

  it("an image", async () => {
    const image = { type: "file" as const, data: new Uint8Array([137, 80, 78, 71]), mediaType: "image/png" };
    const asked = generateText({ model: longcat(), messages: [{ role: "user", content: [image] }] });
    await expect(asked).rejects.toSatisfy(UnsupportedFunctionalityError.isInstance);
  });

  it("another model", () => {
    expect(() => longcat("gpt")).toThrow(NoSuchModelError);
    expect(() => longcat.embeddingModel("mini")).toThrow(NoSuchModelError);
    expect(longcat("mini").modelId).toBe("mini");
  });

  it("a full queue may be asked again", async () => {
    const { LongcatError } = await import("../../ts/index.js");
    let asked = 0;
    const busy = createLongcat({
      info: engine.info,
      generate: (async (prompt: never, params: never) => {
        if (asked++ === 0) throw new LongcatError("OVERLOADED", "the queue is full");
        return engine.generate(prompt, params);
      }) as Engine["generate"],
      stream: engine.stream.bind(engine),
    });
    await expect(generateText({ model: busy(), prompt: SUM, maxRetries: 0 })).rejects.toSatisfy(APICallError.isInstance);
    asked = 0;
    expect((await generateText({ model: busy(), prompt: SUM, temperature: 0, maxRetries: 1 })).text).toBe("136");
    expect(asked).toBe(2);
  });
});

it("history goes to the model as the engine's own tests have it", async () => {
  const { messages, tools } = golden(21) as unknown as { messages: { content: string }[]; tools: never };
  const ours = await engine.generate({ messages: messages as never, tools }, { temperature: 0 });
  const theirs = await generateText({
    model: longcat(),
    temperature: 0,
    tools: { calculator: calculator() },
    messages: [
      { role: "user", content: "What is 441 * 861?" },
      { role: "assistant", content: [{ type: "tool-call", toolCallId: "a", toolName: "calculator", input: { expression: "441 * 861" } }] },
      {
        role: "tool",
        content: [{ type: "tool-result", toolCallId: "a", toolName: "calculator", output: { type: "json", value: 379701 } }],
      },
    ],
  });
  expect(theirs.text).toBe(ours.text);
  expect(theirs.usage.inputTokens).toBe(ours.usage.promptTokens);
});
