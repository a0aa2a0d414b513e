/** `inspect.routing`: its numbers, the tokens that it keeps, and what it refuses. */
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { RoutingTally } from "../../ts/engine/routing-tally.js";
import { inspect, type RoutingOptions, type TokenPrompt } from "../../ts/index.js";
import { copyModel, editJson, modelPath } from "../helpers/fixtures.js";
import { engines, ids, refused, SUM } from "../helpers/mini.js";

const { open, closeAll } = engines();
afterAll(closeAll);
const ON_CPU: RoutingOptions = { device: "cpu", threads: 2, cacheBytes: 64 * 1024 * 1024 };

describe("a tally", () => {
  // Two layers of four FFN experts (ids 0 … 3) and two zero experts; two tokens of three picks.
  const tally = new RoutingTally({ numLayers: 2, numExperts: 4, topK: 3 });
  const counts = tally.add({ rows: 2, ids: Int32Array.of(0, 1, 4, 0, 4, 5, 0, 1, 2, 0, 1, 3) });

  it("gives each token's FFN experts by layer", () => {
    expect(counts).toEqual([
      [2, 3],
      [1, 3],
    ]);
  });

  it("means, deviations between tokens, and zero experts", () => {
    expect(tally.use()).toEqual({ ffnExpertsPerToken: 2.25, deviation: 0.25, zeroExpertShare: 0.25 });
    const [first, second] = tally.layers();
    expect(first).toMatchObject({ ffnExpertsPerToken: 1.5, deviation: 0.5, zeroExpertShare: 0.5 });
    expect(second).toMatchObject({ ffnExpertsPerToken: 3, deviation: 0, zeroExpertShare: 0 });
  });

  it("load of each expert, and how even it is", () => {
    expect(tally.layers().map(({ load }) => load)).toEqual([
      { tokens: [2, 1, 0, 0], mean: 0.75, min: 0, max: 2, variation: Math.sqrt(0.6875) / 0.75, busiest: [0, 1, 2, 3] },
      { tokens: [2, 2, 1, 1], mean: 1.5, min: 1, max: 2, variation: 0.5 / 1.5, busiest: [0, 1, 2, 3] },
    ]);
  });

  it("no FFN expert chosen at all", () => {
    const idle = new RoutingTally({ numLayers: 1, numExperts: 2, topK: 1 });
    idle.add({ rows: 1, ids: Int32Array.of(2) });
    expect(idle.layers()[0]).toMatchObject({ zeroExpertShare: 1, load: { mean: 0, min: 0, max: 0, variation: 0 } });
  });
});

describe("inspect.routing", () => {
  it("means are those that the engine reports of the same prompts", async () => {
    const prompts: (string | TokenPrompt)[] = ["Once upon a time", ids(300), "12 + 30 = 42"];
    const engine = await open(undefined, { prefixCache: false });
    const { data, ...facts } = await inspect.routing(undefined, { story: prompts[0]!, rest: prompts.slice(1) }, ON_CPU);
    expect(facts).toMatchObject({ numLayers: 2, numExperts: 24, numZeroExperts: 12, topK: 6, evenFfnExperts: 4, device: "cpu" });
    const scores = [];
    for (const prompt of prompts) scores.push(await engine.score(prompt));
    const [story, ...rest] = scores.map(({ tokens, routing }) => ({ tokens: tokens.length, ffn: routing.ffnExpertsPerToken }));
    const tokens = rest.reduce((sum, one) => sum + one.tokens, 0);
    const mean = rest.reduce((sum, one) => sum + one.tokens * one.ffn, 0) / tokens;
    expect(data).toMatchObject([
      { name: "story", texts: 1, pieces: 1, tokens: story!.tokens },
      { name: "rest", texts: 2, pieces: 2, tokens },
    ]);
    expect(data[0]!.ffnExpertsPerToken).toBeCloseTo(story!.ffn, 10);
    expect(data[1]!.ffnExpertsPerToken).toBeCloseTo(mean, 10);
    for (const { layers, tokens: count } of data)
      for (const { load, ffnExpertsPerToken } of layers)
        expect(load.tokens.reduce((a, b) => a + b)).toBeCloseTo(count * ffnExpertsPerToken, 6);
  });

  it("keeps the first tokens with their text: bytes of a character go with the token that ends it, special tokens are written out", async () => {
    const { data } = await inspect.routing(null, { a: ["é 你", { tokens: [2, 12] }, SUM] }, { ...ON_CPU, keepTokens: 8 });
    const kept = data[0]!.kept;
    expect(kept.flat().length).toBe(8);
    expect(kept[0]!.map(({ text }) => text).join("")).toBe("é 你");
    const bytes = kept[0]!.flatMap((token) => token.bytes);
    expect(bytes).toEqual([...Buffer.from("é 你")]);
    expect(kept[0]!.filter(({ text }) => text === "").length).toBeGreaterThan(0);
    expect(kept[1]!.map(({ token, special }) => [token, special])).toEqual([
      [2, true],
      [12, false],
    ]);
    expect(kept[1]![0]!.text).not.toBe("");
    for (const { ffnExperts } of kept.flat()) expect(ffnExperts.length).toBe(2);
    expect((await inspect.routing(null, { a: "é" }, ON_CPU)).data[0]!.kept).toEqual([]);
  });

  it("cuts texts that are longer than the context, and depends on no size of a step", async () => {
    const cut = copyModel("tiny-a");
    editJson(join(cut, "config.json"), (config) => {
      config.max_position_embeddings = 48;
    });
    const tokens = ids(100).tokens.map((id) => id % 90);
    const options = { ...ON_CPU, keepTokens: 100 };
    const whole = await inspect.routing(cut, { long: { tokens } }, options);
    expect(whole.data[0]).toMatchObject({ texts: 1, pieces: 3, tokens: 100 });
    const pieces = [0, 48, 96].map((first) => ({ tokens: tokens.slice(first, first + 48) }));
    const byHand = await inspect.routing(cut, { long: pieces }, { ...options, maxBatchTokens: 7, maxSequences: 1 });
    expect(byHand.data[0]).toEqual({ ...whole.data[0], texts: 3 });
  });

  it("tells how far it is", async () => {
    const told: number[][] = [];
    await inspect.routing(null, { a: ids(9), b: ids(7) }, { ...ON_CPU, onRouted: (...numbers) => told.push(numbers) });
    expect(told).toEqual([
      [9, 16],
      [16, 16],
    ]);
  });

  it("without a tokenizer takes ids, and has no text", async () => {
    const { data } = await inspect.routing(modelPath("tiny-a"), { a: { tokens: [1, 5] } }, { ...ON_CPU, keepTokens: 1 });
    expect(data[0]!.kept).toMatchObject([[{ token: 1, text: "", bytes: [], special: false }]]);
    const text = inspect.routing(modelPath("tiny-a"), { a: "text" }, ON_CPU);
    await expect(text).rejects.toEqual(refused("PROMPT_INVALID", 'data["a"][0]: this checkpoint has no tokenizer'));
  });

  // biome-ignore lint/suspicious/noExplicitAny: what callers may hand in although its type forbids it
  const wrong: [string, any, any, ReturnType<typeof refused>][] = [
    ["no data", {}, {}, refused("PROMPT_INVALID", "there is no data set")],
    ["data of another kind", "text", {}, refused("PROMPT_INVALID", "data: ")],
    ["a data set without a text", { a: [] }, {}, refused("PROMPT_INVALID", 'data["a"]: there is no text')],
    ["an empty text", { a: ["x", ""] }, {}, refused("PROMPT_INVALID", 'data["a"][1]: the prompt is empty')],
    ["ids that are not there", { a: { tokens: [1e6] } }, {}, refused("PROMPT_INVALID", 'data["a"][0]: tokens[0]')],
    ["an unknown option", { a: "x" }, { keep: 1 }, refused("OPTION_INVALID", 'unknown option "keep"')],
    ["ranks", { a: "x" }, { parallel: { expert: 2 } }, refused("OPTION_INVALID", "parallel: has no effect on routing")],
    ["too many tokens to keep", { a: "x" }, { keepTokens: 1e9 }, refused("OPTION_INVALID", "keepTokens")],
  ];
  it.each(wrong)("refuses %s", async (_, data, options, error) => {
    await expect(inspect.routing(null, data, { ...ON_CPU, ...options })).rejects.toEqual(error);
  });

  it("ends when its signal fires", async () => {
    const controller = new AbortController();
    const options = { ...ON_CPU, signal: controller.signal, maxBatchTokens: 16, onRouted: () => controller.abort() };
    await expect(inspect.routing(null, { a: ids(300) }, options)).rejects.toEqual(refused("ABORTED"));
  });
});
