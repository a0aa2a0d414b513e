/** The engine over the bundled checkpoint: the answers it was trained to give, and trials of other engines' faults. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { join } from "node:path";
import { Engine } from "../../ts/engine/engine.js";
import type { Prompt, TokenLogprob } from "../../ts/engine/types.js";
import type { LongcatError } from "../../ts/errors.js";
import type { GenerateParams } from "../../ts/sampling/parameters.js";
import { copyModel, editConfig, editJson } from "../helpers/fixtures.js";
import { comparable } from "../helpers/goldens.js";
import * as mini from "../helpers/mini.js";

const { bits, collect, engines, GOLDENS, GREEDY, golden, ids, promptOf, refused, SORT, SUM, THINK, user } = mini;
const { open, closeAll } = engines();

let engine: Engine;
beforeAll(async () => {
  engine = await open();
});
afterAll(closeAll);
const idle = (one = engine) => mini.idle(one);
const alive = (one = engine) => mini.alive(one);

describe("mini", () => {
  it("says what it is", () => {
    expect(engine.info).toMatchObject({
      ...{
        modelType: "longcat_flash",
        numLayers: 2,
        vocabularySize: 2048,
        contextLength: 4096,
        topK: 6,
        numExperts: 24,
        numZeroExperts: 12,
      },
      ...{ device: "cpu", threads: 2, hasTokenizer: true, hasChatTemplate: true, endTokens: [2] },
      ...{ prefixCache: "on", speculative: "auto", parallel: { expert: 1 }, ngram: "none" },
      defaults: { temperature: 0.7, topP: 0.95, topK: 0, minP: 0, repetitionPenalty: 1 },
    });
  });

  it("answers the steady prompts", async () => {
    expect(await engine.generate(SUM, GREEDY)).toMatchObject({
      ...{ text: "136", tokens: [28, 30, 33, 2], finishReason: "stop" },
      usage: { promptTokens: 16, cachedTokens: 0, completionTokens: 4 },
    });
    expect(await engine.generate(SORT, GREEDY)).toMatchObject({ text: "coin, pear, shell.", tokens: [1081, 23, 913, 23, 616, 25, 2] });
    expect(await engine.generate(THINK, GREEDY)).toMatchObject({
      ...{
        text: "1783",
        reasoning: expect.stringMatching(/^9 \+ 4 = 13;[\s\S]*So 1 7 8 3\.$/),
        usage: { promptTokens: 24, completionTokens: 60 },
      },
    });
  });

  it("gives the recorded greedy tokens of all cases, all at once, and streamed the same", async () => {
    const results = await Promise.all(
      GOLDENS.map((one) => engine.generate(promptOf(one), { ...GREEDY, maxTokens: one.greedy_ids.length })),
    );
    for (const [i, { tokens, usage }] of results.entries()) {
      const until = comparable(golden(i));
      expect(tokens.slice(0, until)).toEqual(golden(i).greedy_ids.slice(0, until));
      expect(usage.promptTokens).toBe(golden(i).prompt_ids.length);
    }
    for (const index of [3, 20, 32]) {
      const { text, reasoning = "", tokens, toolCalls = [] } = results[index]!;
      const chunks = await collect(engine.stream(promptOf(golden(index)), { ...GREEDY, maxTokens: golden(index).greedy_ids.length }));
      expect(chunks.map((chunk) => chunk.text).join("")).toBe(text);
      expect(chunks.map((chunk) => chunk.reasoning ?? "").join("")).toBe(reasoning);
      expect(chunks.flatMap((chunk) => chunk.tokens)).toEqual(tokens);
      const deltas = chunks.flatMap(({ toolCallDelta }) => toolCallDelta ?? []);
      const joined = toolCalls.map((_, at) =>
        deltas
          .filter((delta) => delta.index === at)
          .map((delta) => delta.arguments ?? "")
          .join(""),
      );
      expect(joined).toEqual(toolCalls.map((call) => call.arguments));
      expect(chunks.at(-1)).toMatchObject({
        finishReason: index === 20 ? "tool_calls" : "stop",
        usage: { completionTokens: tokens.length },
      });
    }
    expect(results[20]).toMatchObject({
      finishReason: "tool_calls",
      toolCalls: [{ name: "calculator", arguments: expect.stringContaining("441") }],
    });
    idle();
  });

  it("scores a text as the log-probabilities of generating it say", async () => {
    const { tokens, logprobs } = await engine.generate(SORT, { ...GREEDY, logprobs: 0 });
    const prompt = golden(1).prompt_ids;
    const scored = await engine.score([...prompt, ...tokens]);
    expect(scored.logprobs).toHaveLength(prompt.length + tokens.length);
    expect(scored.logprobs[0]).toBeNull();
    // Generated tokens go through the absorbed attention, scored ones through the expanded form: equal but for rounding.
    for (const [i, entry] of (logprobs ?? []).entries()) expect(scored.logprobs[prompt.length + i]).toBeCloseTo(entry.logprob, 3);
    expect(scored.routing.ffnExpertsPerToken).toBeGreaterThan(2);
    expect(scored.routing.ffnExpertsPerToken).toBeLessThan(6);
  });

  it("aborts within one step and goes on", async () => {
    const controller = new AbortController();
    const call = engine.generate("Once upon a time", { maxTokens: 3500, ignoreEos: true, signal: controller.signal });
    setTimeout(() => controller.abort(), 50);
    const error = await call.then(
      () => undefined,
      (thrown: LongcatError) => thrown,
    );
    expect(error).toEqual(refused("ABORTED"));
    expect(error?.partial).toMatchObject({ finishReason: "abort" });
    await alive();
    idle();
  });

  it("loads the bundled checkpoint where no folder is named, and refuses after close", async () => {
    const other = await open(undefined, { maxSequences: 1 });
    await alive(other);
    await Promise.all([other.close(), other.close()]);
    await expect(other.generate(SUM)).rejects.toEqual(refused("DISPOSED"));
    await alive();
  });

  it("stops a load whose signal has fired, and refuses folders that are none", async () => {
    await expect(Engine.load(undefined, { signal: AbortSignal.abort() })).rejects.toEqual(refused("ABORTED"));
    await expect(Engine.load("/nowhere/at/all")).rejects.toEqual(refused("CHECKPOINT_INVALID", "/nowhere/at/all"));
    await expect(Engine.load(5 as never)).rejects.toEqual(refused("OPTION_INVALID", "directory: 5"));
    await expect(Engine.load(undefined, { device: "cuda" })).rejects.toEqual(refused("DEVICE_UNAVAILABLE"));
  });

  it("reports the progress of a load", async () => {
    const seen: number[] = [];
    const one = await open(undefined, { onProgress: ({ doneBytes, totalBytes }) => seen.push(doneBytes / totalBytes) });
    expect(one.info.cache.numBlocks).toBeGreaterThan(0);
    expect(seen.length).toBeGreaterThan(0);
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
    expect(Math.max(...seen)).toBeLessThanOrEqual(1);
  });
});

describe("B01: a prompt is never cut", () => {
  it("longer than the context: CONTEXT_OVERFLOW with both numbers", async () => {
    await expect(engine.generate({ tokens: new Array<number>(4097).fill(28) })).rejects.toEqual(
      refused("CONTEXT_OVERFLOW", "4097 tokens; the context has 4096"),
    );
    const chat = {
      messages: [{ role: "system" as const, content: "The word is kite." }, ...user(`${"a b ".repeat(3000)}What is the word?`).messages],
    };
    await expect(engine.generate(chat, { maxTokens: 8 })).rejects.toEqual(refused("CONTEXT_OVERFLOW", "4096"));
  });

  it("4095 + 1 works, 4096 + 1 gives no token, 4090 + 100 gives 6", async () => {
    const run = (length: number, maxTokens: number) =>
      engine.generate({ tokens: new Array<number>(length).fill(28) }, { ...GREEDY, maxTokens, ignoreEos: true });
    const [one, none, six] = await Promise.all([run(4095, 1), run(4096, 1), run(4090, 100)]);
    expect(one).toMatchObject({ finishReason: "length", usage: { promptTokens: 4095, completionTokens: 1 } });
    expect(none).toMatchObject({ finishReason: "length", text: "", usage: { promptTokens: 4096, completionTokens: 0 } });
    expect(six).toMatchObject({ finishReason: "length", usage: { promptTokens: 4090, completionTokens: 6 } });
    idle();
  });
});

describe("B10: one caller's parameters harm nobody", () => {
  it("are refused or have their documented meaning, while three streams run on unharmed", async () => {
    const long: GenerateParams = { maxTokens: 300, ignoreEos: true, ...GREEDY };
    const alone = await engine.generate(["Once", "Once upon", "Once upon a time"], long);
    const streams = Promise.all(["Once", "Once upon", "Once upon a time"].map((prompt) => collect(engine.stream(prompt, long))));
    const bad: Record<string, unknown>[] = [
      { logitBias: { "999999": -100 } },
      { logitBias: { "2047": 100 } },
      { logitBias: { "1172": 100 } },
      { logitBias: { "28": Number.POSITIVE_INFINITY } },
      { maxTokens: -1 },
      { topK: -1 },
      { topP: 0 },
      { n: 10_000 },
      { logprobs: 10_000 },
      { stop: [""] },
      { stopTokens: [999_999] },
    ];
    for (const params of bad) await expect(engine.generate(SUM, params)).rejects.toEqual(refused("OPTION_INVALID", Object.keys(params)[0]));
    expect(await engine.generate(SUM, { maxTokens: 0 })).toMatchObject({
      text: "",
      finishReason: "length",
      usage: { completionTokens: 0 },
    });
    for (const params of [{ maxTokens: 1e9 }, { topK: 1e9 }, { maxTokens: null, stop: null }] as GenerateParams[])
      expect((await engine.generate(SUM, { ...GREEDY, ...params })).text).toBe("136");
    for (const [i, chunks] of (await streams).entries()) expect(chunks.flatMap(({ tokens }) => tokens)).toEqual(alone[i]?.tokens);
    await alive();
    idle();
  });

  it("never draws padding: a flat distribution stays within the tokenizer's ids", async () => {
    const { tokens } = await engine.generate("Once", { maxTokens: 300, ignoreEos: true, temperature: 1e6, topP: 1, seed: 1 });
    expect(Math.max(...tokens)).toBeLessThan(1172);
    expect(new Set(tokens).size).toBeGreaterThan(200);
  });

  it("lets a logit bias force and forbid tokens", async () => {
    expect((await engine.generate(SUM, { ...GREEDY, maxTokens: 3, logitBias: { "35": 100 } })).tokens).toEqual([35, 35, 35]);
    expect((await engine.generate(SUM, { ...GREEDY, maxTokens: 1, logitBias: new Map([[28, -100]]) })).tokens).not.toEqual([28]);
  });
});

describe("B11: what cannot fit does not wait", () => {
  it("with a cache of 128 tokens", async () => {
    const bytesPerToken = 5 * 576 * 4;
    const tight = await open(undefined, { cacheBytes: 128 * bytesPerToken });
    expect(tight.info.contextLength).toBeLessThanOrEqual(191);
    const there = tight.info.contextLength;
    const [a, b, c] = await Promise.allSettled([
      tight.generate(ids(191)),
      tight.generate(SUM, GREEDY),
      tight.generate(ids(100), { maxTokens: 2000, ignoreEos: true }),
    ]);
    expect(a).toMatchObject({ status: "rejected", reason: refused("OUT_OF_MEMORY", `191 tokens; there is cache for ${there}`) });
    expect(b).toMatchObject({ status: "fulfilled", value: { text: "136" } });
    expect(c).toMatchObject({ status: "fulfilled", value: { finishReason: "length", usage: { completionTokens: there - 100 } } });
    const eight = await tight.generate(ids(60), { n: 8, maxTokens: 20, ignoreEos: true, seed: 1 });
    expect(eight.choices?.map(({ tokens }) => tokens.length)).toEqual(new Array(8).fill(20));
    const roomy = await engine.generate(ids(60), { n: 8, maxTokens: 20, ignoreEos: true, seed: 1 });
    expect(eight.choices?.map(({ tokens }) => tokens)).toEqual(roomy.choices?.map(({ tokens }) => tokens));
    idle(tight);
  });

  it("with 16 tokens a step: the same tokens as unchunked", async () => {
    const chunked = await open(undefined, { maxBatchTokens: 16 });
    const params: GenerateParams = { ...GREEDY, maxTokens: 20, ignoreEos: true, logprobs: 1 };
    const [a, b] = [await chunked.generate(ids(191), params), await engine.generate(ids(191), params)];
    expect(bits(a.logprobs)).toEqual(bits(b.logprobs));
  });
});

describe("B25: end tokens are the union of config, generation_config and tokenizer", () => {
  /** mini with other end tokens in generation_config.json (undefined: no such file). */
  function variant(eos: unknown, inConfig = true): string {
    const dir = copyModel("mini");
    editJson(join(dir, "generation_config.json"), (json) => {
      json.eos_token_id = eos;
    });
    if (!inConfig)
      editConfig(dir, (config) => {
        delete config.eos_token_id;
      });
    return dir;
  }
  const PRODUCT = user("Compute 80 - 38.");

  it.each<[string, unknown, boolean]>([
    ["(1) [2, 25]", [2, 25], true],
    ["(2) [25]", [25], true],
    ["(3) 25, none in config.json", 25, false],
  ])("%s", async (_name, eos, inConfig) => {
    const one = await open(variant(eos, inConfig), { maxSequences: 4 });
    expect(one.info.endTokens).toEqual([2, 25]);
    expect(await one.generate(SORT, GREEDY)).toMatchObject({ text: "coin, pear, shell", finishReason: "stop" });
    expect(await one.generate(PRODUCT, GREEDY)).toMatchObject({ text: "42", finishReason: "stop" });
    const on = await one.generate(SORT, { ...GREEDY, ignoreEos: true, maxTokens: 20 });
    expect(on).toMatchObject({ finishReason: "length", tokens: { length: 20 } });
    expect(await one.generate(SORT, { ...GREEDY, stopTokens: [23] })).toMatchObject({ text: "coin", finishReason: "stop" });
  });

  it("(5) an empty list adds none; (6) an id beyond the vocabulary and (7) a string are CONFIG_INVALID", async () => {
    const none = await open(variant([]), { maxSequences: 4 });
    expect(none.info.endTokens).toEqual([2]);
    await expect(Engine.load(variant([999_999]))).rejects.toEqual(refused("CONFIG_INVALID", "generation_config.json"));
    await expect(Engine.load(variant("2"))).rejects.toEqual(refused("CONFIG_INVALID", "generation_config.json"));
  });
});

describe("B29: at temperature 0 a request is the same whatever runs beside it", () => {
  const params: GenerateParams = { ...GREEDY, maxTokens: 83, ignoreEos: true, logprobs: 1 };
  const CASES = [3, 9, 38];

  it("in any number of copies, beside neighbours that come and go", async () => {
    for (const index of CASES) {
      const prompt = promptOf(golden(index));
      const alone = bits((await engine.generate(prompt, params)).logprobs);
      for (const copies of [2, 5, 16, 64]) {
        const many = await engine.generate(new Array<Prompt>(copies).fill(prompt), params);
        for (const { logprobs } of many) expect(bits(logprobs)).toEqual(alone);
      }
      const target = engine.generate(prompt, params);
      const neighbours: Promise<unknown>[] = [];
      for (let i = 0; i < 12; i++) {
        neighbours.push(engine.generate(ids(5 + 13 * i, i), { maxTokens: 7 + i, ignoreEos: true, seed: i }));
        const before = engine.stats.steps;
        while (engine.stats.steps < before + 3) await new Promise((resolve) => setImmediate(resolve));
      }
      expect(bits((await target).logprobs)).toEqual(alone);
      await Promise.all(neighbours);
    }
    idle();
  });

  it("with any step size and number of threads", async () => {
    const prompts = CASES.map((index) => promptOf(golden(index)));
    const alone = (await engine.generate(prompts, params)).map(({ logprobs }) => bits(logprobs));
    for (const options of [{ maxBatchTokens: 8 }, { maxBatchTokens: 64 }, { threads: 1 }, { threads: 3 }]) {
      const other = await open(undefined, { maxSequences: 16, ...options });
      const results = await other.generate([...prompts, ...prompts, ...prompts, ...prompts], params);
      for (const [i, { logprobs }] of results.entries()) expect(bits(logprobs)).toEqual(alone[i % 3]);
      await other.close();
    }
  });
});

describe("B40: penalties count what they say", () => {
  const first = async (params: GenerateParams) => {
    const { logprobs } = await engine.generate(promptOf(golden(6)), { ...GREEDY, maxTokens: 1, logprobs: 20, ...params });
    return bits(logprobs);
  };

  it("presence and frequency leave the first step alone; reported log-probabilities are before penalties", async () => {
    const plain = await first({});
    expect(await first({ presencePenalty: 2 })).toEqual(plain);
    expect(await first({ frequencyPenalty: 2 })).toEqual(plain);
    expect(await first({ presencePenalty: 0, frequencyPenalty: -2 })).toEqual(plain);
    const repeated = await first({ repetitionPenalty: 1.5 });
    expect(repeated?.[0]?.slice(2)).toEqual(plain?.[0]?.slice(2));
  });

  it.each<{ presencePenalty?: number; frequencyPenalty?: number }>([
    { presencePenalty: 2 },
    { presencePenalty: -2 },
    { frequencyPenalty: 2 },
    { frequencyPenalty: 5, presencePenalty: 1 },
  ])("from the second step on as %o says, checked by hand", async (penalty) => {
    const { presencePenalty = 0, frequencyPenalty = 0 } = penalty;
    const { tokens, logprobs } = await engine.generate("Once upon a time", {
      ...GREEDY,
      ...penalty,
      maxTokens: 30,
      ignoreEos: true,
      logprobs: 20,
    });
    const counts = new Map<number, number>();
    for (const [step, entry] of (logprobs ?? []).entries()) {
      const adjusted = [entry, ...entry.top].map(({ token, logprob }) => {
        const count = counts.get(token) ?? 0;
        return { token, value: logprob - frequencyPenalty * count - (count > 0 ? presencePenalty : 0) };
      });
      const best = adjusted.reduce((a, b) => (b.value > a.value ? b : a));
      expect(best.value - (adjusted[0]?.value ?? 0)).toBeLessThan(1e-4);
      const token = tokens[step] as number;
      counts.set(token, (counts.get(token) ?? 0) + 1);
    }
  });

  it("choices do not share counts", async () => {
    const params: GenerateParams = { temperature: 1, maxTokens: 20, frequencyPenalty: 2, seed: 9, ignoreEos: true };
    const { choices } = await engine.generate("Once upon a time", { ...params, n: 2 });
    const second = await engine.generate("Once upon a time", { ...params, seed: 10 });
    expect(choices?.[1]?.tokens).toEqual(second.tokens);
  });
});

describe("B43: log-probabilities", () => {
  it("are finite, sum to at most 1, and do not shift with temperature, filters or bias", async () => {
    const at = async (params: GenerateParams) =>
      (await engine.generate("12 + 30 =", { maxTokens: 1, logprobs: 20, seed: 1, ...params })).logprobs?.[0] as TokenLogprob;
    const greedy = await at(GREEDY);
    const listed = greedy.top.map(({ token, logprob }) => [token, logprob]);
    for (const params of [
      { temperature: 0.5 },
      { temperature: 2 },
      { topK: 1, temperature: 1 },
      { topP: 0.01 },
      { logitBias: { [greedy.token]: -100 } },
    ]) {
      const entry = await at(params);
      expect(entry.top.map(({ token, logprob }) => [token, logprob])).toEqual(listed);
      expect(entry.logprob).toBeGreaterThanOrEqual(-9999);
    }
    expect(greedy.top[0]).toEqual({ token: greedy.token, bytes: greedy.bytes, logprob: greedy.logprob });
    expect(greedy.top.reduce((sum, { logprob }) => sum + Math.exp(logprob), 0)).toBeLessThanOrEqual(1 + 1e-6);
  });

  it("have one entry a generated token: with a stop that cuts, with a tool call, streamed", async () => {
    const cut = await engine.generate(SORT, { ...GREEDY, logprobs: 0, stop: ["ar, sh"] });
    expect(cut).toMatchObject({ text: "coin, pe", finishReason: "stop" });
    expect(cut.logprobs?.map(({ token }) => token)).toEqual(cut.tokens);
    const called = await engine.generate(promptOf(golden(20)), { ...GREEDY, logprobs: 1 });
    expect(called.logprobs?.map(({ token }) => token)).toEqual(called.tokens);
    const chunks = await collect(engine.stream(promptOf(golden(20)), { ...GREEDY, logprobs: 1 }));
    expect(chunks.flatMap(({ logprobs }) => logprobs ?? [])).toEqual(called.logprobs);
    expect(JSON.parse(JSON.stringify(called))).toEqual(called);
  });

  it("bytes joined are the text", async () => {
    const { text, logprobs } = await engine.generate(SORT, { ...GREEDY, logprobs: 0 });
    const shown = logprobs?.slice(0, -1).flatMap(({ bytes }) => bytes) ?? [];
    expect(new TextDecoder().decode(Uint8Array.from(shown))).toBe(text);
  });
});

describe("B16: limits and stops", () => {
  it("a stop string across tokens: length below five tokens, stop from then on", async () => {
    for (const maxTokens of [1, 2, 3, 4, 5, 6, 7, 8]) {
      const result = await engine.generate(SORT, { ...GREEDY, maxTokens, stop: ["ar, sh"] });
      expect(result.finishReason).toBe(maxTokens <= 4 ? "length" : "stop");
      expect(result.usage.completionTokens).toBe(Math.min(maxTokens, 5));
      if (maxTokens >= 5) expect(result.text).toBe("coin, pe");
    }
    expect(await engine.generate(SUM, { ...GREEDY, stopTokens: [30] })).toMatchObject({
      text: "1",
      tokens: [28, 30],
      finishReason: "stop",
    });
    for (const maxTokens of [1, 2, 3, 4, 5, 6, 7])
      expect((await engine.generate(SORT, { ...GREEDY, maxTokens })).finishReason).toBe(maxTokens === 7 ? "stop" : "length");
  });
});

describe("B44: choices and lists", () => {
  it("are streamed as unstreamed, each with one end; the prompt is counted once", async () => {
    const params: GenerateParams = { n: 3, temperature: 1, seed: 5, logprobs: 0 };
    const result = await engine.generate(SUM, params);
    const chunks = await collect(engine.stream(SUM, params));
    expect(result.usage.promptTokens).toBe(16);
    expect(result.usage.completionTokens).toBe(result.choices?.reduce((sum, { tokens }) => sum + tokens.length, 0));
    for (const [index, choice] of (result.choices ?? []).entries()) {
      const own = chunks.filter((chunk) => chunk.index === index);
      expect(own.map(({ text }) => text).join("")).toBe(choice.text);
      expect(own.filter(({ finishReason }) => finishReason)).toHaveLength(1);
      const alone = await engine.generate(SUM, { ...params, n: 1, seed: 5 + index });
      expect(bits(choice.logprobs)).toEqual(bits(alone.logprobs));
    }
    expect(chunks.at(-1)?.usage).toEqual(result.usage);
  });

  it("n greedy choices are equal, with shared blocks and prompts of any length", async () => {
    for (const length of [1, 2, 15, 16, 17, 33]) {
      const params: GenerateParams = { ...GREEDY, maxTokens: 20, ignoreEos: true, logprobs: 1 };
      const alone = await engine.generate(ids(length), params);
      const { choices } = await engine.generate(ids(length), { ...params, n: 3 });
      for (const choice of choices ?? []) expect(bits(choice.logprobs)).toEqual(bits(alone.logprobs));
    }
    idle();
  });

  it("a bad prompt in a list is named by its position, and nothing runs", async () => {
    const before = engine.stats.steps;
    const list = [SUM, { tokens: new Array<number>(4097).fill(28) }];
    await expect(engine.generate(list)).rejects.toEqual(refused("CONTEXT_OVERFLOW", "prompts[1]"));
    expect(engine.stats.steps).toBe(before);
    const texts = await engine.generate([{ tokens: golden(5).prompt_ids }, SORT], GREEDY);
    expect(texts.map(({ text }) => text)).toEqual(["136", "coin, pear, shell."]);
  });

  it.each(["bestOf", "echo", "suffix"])("%s is refused by name", async (name) => {
    await expect(engine.generate(SUM, { [name]: 1 } as never)).rejects.toEqual(refused("OPTION_INVALID", name));
  });
});

describe("B47: temperatures at the edge", () => {
  it("tiny ones and single-candidate filters are greedy", async () => {
    for (const prompt of [SUM, promptOf(golden(3))]) {
      const greedy = await engine.generate(prompt, { ...GREEDY, maxTokens: 40 });
      const edges: GenerateParams[] = [
        ...[1e-5, 1e-10, 1e-30, 1e-45, 5e-324, -0].map((temperature) => ({ temperature })),
        ...[{ topP: 1e-9 }, { minP: 1 }, { topK: 1 }].map((filter) => ({ temperature: 1, ...filter })),
      ];
      for (const edge of edges) expect((await engine.generate(prompt, { seed: 1, maxTokens: 40, ...edge })).text).toBe(greedy.text);
    }
    expect((await engine.generate(SUM, { seed: 1, temperature: 1e-3 })).text).toBe("136");
  });

  it("huge ones give valid ids", async () => {
    for (const temperature of [1e3, 1e308])
      for (let seed = 1; seed <= 20; seed++) {
        const { tokens } = await engine.generate(SUM, { temperature, seed, maxTokens: 10, ignoreEos: true, topP: 1, logprobs: 0 });
        expect(tokens).toHaveLength(10);
        expect(Math.max(...tokens)).toBeLessThan(1172);
      }
  });

  it("seeds reproduce, and 0 is one", async () => {
    const draw = async (seed: number) => (await engine.generate("Once upon a time", { temperature: 1, seed, maxTokens: 30 })).tokens;
    expect(await draw(0)).toEqual(await draw(0));
    expect(await draw(0)).not.toEqual(await draw(1));
    expect(await draw(2 ** 53 - 1)).toEqual(await draw(2 ** 53 - 1));
  });
});
