/** What a call asks of sampling is its own affair: every parameter gives the same tokens and numbers alone and among other calls. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Engine } from "../../ts/engine/engine.js";
import type { GenerateResult } from "../../ts/engine/types.js";
import type { GenerateParams } from "../../ts/sampling/parameters.js";
import { engines, idle } from "../helpers/mini.js";

const { open, closeAll } = engines();
afterAll(closeAll);
let engine: Engine;
beforeAll(async () => {
  engine = await open();
});

const PROMPT = "Once upon a time";
const CALLS: Record<string, GenerateParams> = {
  seed: { seed: 1 },
  "another seed": { seed: 2 },
  "seed 0": { seed: 0, temperature: 2 },
  greedy: { temperature: 0 },
  minP: { seed: 3, minP: 0.1 },
  topK: { seed: 4, topK: 5 },
  topP: { seed: 5, topP: 0.7 },
  "presence penalty": { seed: 6, presencePenalty: 2 },
  "frequency penalty": { seed: 7, frequencyPenalty: 1.5 },
  "repetition penalty": { seed: 8, repetitionPenalty: 1.4 },
  "logit bias": { seed: 9, logitBias: { 25: -100, 284: 3 } },
  "stop string": { seed: 10, stop: ["he "] },
  "stop token": { seed: 11, stopTokens: [25] },
  logprobs: { seed: 12, logprobs: 4 },
  format: {
    seed: 13,
    responseFormat: { type: "json_schema", schema: { type: "array", items: { type: "integer" }, minItems: 3, maxItems: 5 } },
  },
  everything: {
    ...{ seed: 14, temperature: 1.2, topP: 0.95, topK: 200, minP: 0.01, presencePenalty: 0.5, frequencyPenalty: 0.5 },
    ...{ repetitionPenalty: 1.1, logitBias: { 284: 2 }, stop: ["zzz"], stopTokens: [900], logprobs: 2 },
  },
};
const untimed = ({ timings, ...rest }: GenerateResult): unknown => ({ ...rest, usage: { ...rest.usage, cachedTokens: 0 } });
const run = (params: GenerateParams): Promise<GenerateResult> => engine.generate(PROMPT, { maxTokens: 24, ...params });

describe("every parameter", () => {
  test("gives alone what it gives among all others", async () => {
    const together = await Promise.all(Object.values(CALLS).map(run));
    for (const [i, [name, params]] of Object.entries(CALLS).entries())
      expect([name, untimed(await run(params))]).toEqual([name, untimed(together[i] as GenerateResult)]);
    idle(engine);
  });

  test("has its effect", async () => {
    const [one, two] = [await run({ seed: 1 }), await run({ seed: 2 })];
    expect(one.tokens).not.toEqual(two.tokens);
    expect((await run({ seed: 9, logitBias: { 25: -100 } })).tokens).not.toContain(25);
    const penalised = await run({ temperature: 0, presencePenalty: 100 });
    expect(new Set(penalised.tokens).size).toBe(penalised.tokens.length);
  });
});

describe("choice i of n", () => {
  test.each(["seed", "logit bias", "presence penalty", "format", "everything"])("with %s is what seed + i gives alone", async (name) => {
    const params = CALLS[name] as GenerateParams;
    const { choices = [], usage } = await run({ ...params, n: 4 });
    const alone = await Promise.all([0, 1, 2, 3].map((i) => run({ ...params, seed: (params.seed as number) + i })));
    expect(choices.map(({ tokens, text, logprobs, finishReason }) => ({ tokens, text, logprobs, finishReason }))).toEqual(
      alone.map(({ tokens, text, logprobs, finishReason }) => ({ tokens, text, logprobs, finishReason })),
    );
    expect(usage.completionTokens).toBe(alone.reduce((sum, { tokens }) => sum + tokens.length, 0));
    idle(engine);
  });
});

test("guided and penalised sequences that give way to others come back to the same tokens", async () => {
  const narrow = await open(undefined, { cacheBytes: 2_000_000, maxSequences: 8, prefixCache: false });
  const calls = ["format", "everything", "presence penalty", "repetition penalty"].map((name) => CALLS[name] as GenerateParams);
  const many = [...calls, ...calls, ...calls].map((params) => narrow.generate(PROMPT, { maxTokens: 40, ...params }));
  const together = await Promise.all(many);
  for (const [i, params] of calls.entries()) {
    const alone = await engine.generate(PROMPT, { maxTokens: 40, ...params });
    for (const k of [i, i + 4, i + 8]) expect((together[k] as GenerateResult).tokens).toEqual(alone.tokens);
  }
  expect(narrow.stats.preemptions).toBeGreaterThan(0);
  idle(narrow);
});
