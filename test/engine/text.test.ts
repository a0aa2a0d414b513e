/** The engine with mini's tokenizer, template and parser, over a runner that says given tokens: every text trial without a model. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { Engine } from "../../ts/engine/engine.js";
import { loadTextTools } from "../../ts/engine/text-tools.js";
import type { Chunk, EngineInfo, GenerateResult, Prompt } from "../../ts/engine/types.js";
import type { GenerateParams } from "../../ts/sampling/parameters.js";
import { modelPath, ROOT } from "../helpers/fixtures.js";
import { FakeRunner } from "./fake-runner.js";

interface MiniCase {
  prompt_ids: number[];
  greedy_ids: number[];
  messages: unknown;
  tools?: unknown;
  enable_thinking?: boolean;
  prompt?: string;
  text: string;
}
const GOLDENS = (JSON.parse(readFileSync(`${ROOT}/test/fixtures/mini/goldens.json`, "utf8")) as { cases: MiniCase[] }).cases;
/** Half of a character outside the basic plane. */
const LONE_SURROGATE = /[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/;
const golden = (index: number) => GOLDENS[index] as MiniCase;
const text = (await loadTextTools(modelPath("mini"), 2048))!;
const idsOf = async (content: string, parseSpecial = false) => {
  const encoded = await text.encode(content, { parseSpecial, maxTokens: 4096 });
  if (encoded.tooLong) throw new Error("too long");
  return encoded.ids;
};

/** An engine that says `tokens` after any prompt, then end tokens. */
function saying(tokens: readonly number[]): Engine {
  const starts = new Map<object, number>();
  const runner = new FakeRunner(
    { vocabulary: 2048, contextLength: 4096, numBlocks: 600, blockSize: 16, maxBatchTokens: 512 },
    (history, sampling) => {
      if (!starts.has(sampling)) starts.set(sampling, history.length);
      return tokens[history.length - (starts.get(sampling) as number)] ?? 2;
    },
  );
  const info = { endTokens: [2] } as unknown as EngineInfo;
  return Engine.fromParts({ runner, text, info, modelContext: 4096, defaults: {}, close: () => runner.close() });
}

const promptOf = ({ messages, tools, enable_thinking, prompt }: MiniCase): Prompt =>
  prompt ?? ({ messages, ...(tools !== undefined && { tools }), ...(enable_thinking && { enableThinking: true }) } as Prompt);

/** The unstreamed result, after checking that the stream of it says the same. */
async function both(engine: Engine, prompt: Prompt, params: GenerateParams = {}): Promise<GenerateResult> {
  const result = await engine.generate(prompt, { seed: 1, ...params });
  const chunks: Chunk[] = [];
  for await (const chunk of engine.stream(prompt, { seed: 1, ...params })) chunks.push(chunk);
  for (const choice of result.choices ?? [result]) {
    const own = chunks.filter(({ index }) => index === (result.choices?.indexOf(choice) ?? 0));
    expect(own.map((chunk) => chunk.text).join("")).toBe(choice.text);
    expect(own.map((chunk) => chunk.reasoning ?? "").join("")).toBe(choice.reasoning ?? "");
    expect(own.flatMap((chunk) => chunk.tokens)).toEqual(choice.tokens);
    expect(own.at(-1)?.finishReason).toBe(choice.finishReason);
    for (const chunk of own) expect(chunk.text).not.toMatch(LONE_SURROGATE);
    const deltas = own.flatMap(({ toolCallDelta }) => toolCallDelta ?? []);
    const calls = choice.toolCalls ?? [];
    if (choice.finishReason === "tool_calls")
      expect(
        calls.map((call, i) => ({
          ...call,
          arguments: deltas
            .filter(({ index }) => index === i)
            .map((delta) => delta.arguments ?? "")
            .join(""),
        })),
      ).toEqual(calls);
  }
  expect(chunks.at(-1)?.usage).toEqual({ ...result.usage, cachedTokens: expect.any(Number) });
  return result;
}

describe("prompts", () => {
  it("are encoded as recorded, chat and raw", async () => {
    const engine = saying([]);
    for (const one of GOLDENS) expect(await engine.tokenize(promptOf(one))).toEqual(one.prompt_ids);
  });

  it("raw strings are plain text unless parseSpecial is set", async () => {
    const engine = saying([]);
    const special = "</longcat_s>";
    expect(await engine.tokenize(special)).not.toContain(2);
    expect(engine.detokenize(await engine.tokenize(special))).toBe(special);
    expect(await engine.tokenize(special, { parseSpecial: true })).toEqual([2]);
    expect((await engine.generate(special, { parseSpecial: true })).usage.promptTokens).toBe(1);
  });

  it("of a chat that is wrong are refused by the field's name", async () => {
    const engine = saying([]);
    const cases: [unknown, string][] = [
      [{ messages: [] }, "messages"],
      [{ messages: "hi" }, "messages"],
      [{ messages: [{ role: "robot", content: "hi" }] }, "messages[0].role"],
      [{ messages: [{ role: "user", content: 5 }] }, "messages[0].content"],
      [{ messages: [{ role: "user", content: "hi" }], temperature: 1 }, "temperature"],
    ];
    for (const [prompt, field] of cases)
      await expect(engine.generate(prompt as Prompt)).rejects.toMatchObject({
        code: "PROMPT_INVALID",
        message: expect.stringContaining(field),
      });
  });
});

describe("answers", () => {
  it("of all recorded cases are the recorded text, streamed and not", async () => {
    for (const one of GOLDENS) {
      const result = await both(saying(one.greedy_ids), promptOf(one), { maxTokens: one.greedy_ids.length });
      const raw = one.prompt !== undefined;
      if (raw || (one.tools === undefined && !one.enable_thinking)) expect(result.text).toBe(one.text);
      expect(result.tokens).toEqual(one.greedy_ids);
    }
  });

  it("B08: characters of several tokens never come in pieces", async () => {
    const said = '{"x":"👩‍👩‍👧‍👦 🇩🇪 中文字符 삼겹살 naïve — ok"}';
    const tokens = await idsOf(said);
    expect(tokens.length).toBeGreaterThan(said.length);
    for (const prompt of ["Once", promptOf(golden(5))])
      for (const params of [{}, { n: 2 }, { stop: ["zzz"] }])
        for (const choice of [await both(saying(tokens), prompt, params)].flatMap((result) => result.choices ?? [result]))
          expect(choice.text).toBe(said);
  });

  it("an unfinished character at the end becomes one U+FFFD", async () => {
    const tokens = await idsOf("ok 👍");
    const cut = await both(saying(tokens), "Once", { maxTokens: tokens.length - 1 });
    expect(cut).toMatchObject({ text: "ok \uFFFD", finishReason: "length" });
  });

  it("B16: stop strings and limits", async () => {
    const engine = saying(golden(1).greedy_ids);
    for (const maxTokens of [1, 2, 3, 4, 5, 6, 7, 8]) {
      const result = await both(engine, promptOf(golden(1)), { maxTokens, stop: ["ar, sh"] });
      expect(result.finishReason).toBe(maxTokens <= 4 ? "length" : "stop");
      expect(result.usage.completionTokens).toBe(Math.min(maxTokens, 5));
      if (maxTokens >= 5) expect(result.text).toBe("coin, pe");
    }
  });

  it("B26: a tool call, whole and cut", async () => {
    const engine = saying(golden(20).greedy_ids);
    const whole = await both(engine, promptOf(golden(20)));
    expect(whole).toMatchObject({
      text: "",
      finishReason: "tool_calls",
      toolCalls: [{ name: "calculator", arguments: '{"expression": "441 * 861"}' }],
    });
    const cut = await both(engine, promptOf(golden(20)), { maxTokens: 12 });
    expect(cut).toMatchObject({ text: "", finishReason: "length" });
    expect(cut).not.toHaveProperty("toolCalls");
    const hidden = await both(engine, { ...(promptOf(golden(20)) as object), toolChoice: "none" } as Prompt, { toolChoice: "none" });
    expect(hidden.finishReason).toBe("stop");
    expect(hidden).not.toHaveProperty("toolCalls");
  });

  it("B26: tags of ordinary characters are text, with and without tools", async () => {
    const said = "<longcat_tool_call>{}";
    const tokens = await idsOf(said);
    for (const index of [5, 20])
      expect(await both(saying(tokens), promptOf(golden(index)))).toMatchObject({ text: said, finishReason: "stop" });
  });

  it("B31: reasoning, whole and cut around its closing tag", async () => {
    const think = golden(32);
    const [reasoning, answer] = think.text.split("\n</longcat_think>\n") as [string, string];
    const engine = saying(think.greedy_ids);
    expect(await both(engine, promptOf(think))).toMatchObject({ reasoning, text: answer, finishReason: "stop" });
    for (let maxTokens = 1; maxTokens < think.greedy_ids.length; maxTokens++) {
      const result = await both(engine, promptOf(think), { maxTokens });
      expect(result.finishReason).toBe("length");
      expect(reasoning.startsWith((result.reasoning as string).replace(/\n$/, ""))).toBe(true);
      expect(answer.startsWith(result.text)).toBe(true);
    }
    expect((await both(engine, promptOf(think), { maxTokens: 10 })).text).toBe("");
    const stopped = await both(engine, promptOf(think), { stop: ["8 + 9"] });
    expect(stopped).toMatchObject({ text: "", finishReason: "stop", reasoning: expect.not.stringContaining("8 + 9") });
  });

  it("B31: a raw prompt gives the raw text; a literal tag stays", async () => {
    const think = golden(32);
    const raw = await both(saying(think.greedy_ids), "Once");
    expect(raw.text).toBe(think.text);
    expect(raw).not.toHaveProperty("reasoning");
    const tokens = await idsOf("a </longcat_think> b");
    expect((await both(saying(tokens), promptOf(golden(5)))).text).toBe("a </longcat_think> b");
  });
});
