/**
 * Penalties by hand from the model's own logits (field trial B40), and the answers of near ties with every number of threads and every
 * step size (B29).
 */
import { afterAll, describe, expect, it } from "vitest";
import { openModel } from "../../ts/model/open.js";
import { trace } from "../../ts/model/trace.js";
import type { GenerateParams } from "../../ts/sampling/parameters.js";
import { modelPath } from "../helpers/fixtures.js";
import { bits, engines, GREEDY, golden, idle, promptOf } from "../helpers/mini.js";
import { TEST_MODEL_OPTIONS } from "../helpers/models.js";
import { logSoftmax } from "../helpers/scores.js";

const { open, closeAll } = engines();
afterAll(closeAll);

/** Ids that mini's tokenizer has. */
const KNOWN = 1172;

describe("B40: each step of a greedy answer is the largest logit after the penalties", () => {
  const prompts = [golden(6).prompt_ids, golden(0).prompt_ids];

  it.each<GenerateParams>([
    { repetitionPenalty: 1.5 },
    { repetitionPenalty: 0.7 },
    { repetitionPenalty: 1.3, presencePenalty: 0.5, frequencyPenalty: 0.25, logitBias: { "23": -3, "25": 2 } },
    { presencePenalty: -2 },
    { presencePenalty: 0, frequencyPenalty: -6 },
  ])("%o", async (params) => {
    const engine = await open();
    const model = await openModel(modelPath("mini"), TEST_MODEL_OPTIONS);
    let changed = false;
    for (const prompt of prompts) {
      const { tokens, logprobs = [] } = await engine.generate(
        { tokens: prompt },
        { ...GREEDY, ...params, maxTokens: 16, ignoreEos: true, logprobs: 0 },
      );
      const { logits } = await trace(model.runner, [...prompt, ...tokens.slice(0, -1)]);
      tokens.forEach((token, step) => {
        const at = (prompt.length - 1 + step) * 2048;
        const row = logits.subarray(at, at + 2048);
        const adjusted = adjust(row, prompt, tokens.slice(0, step), params);
        // Generated tokens go through another form of attention than the trace's: equal but for rounding.
        expect(Math.max(...adjusted) - (adjusted[token] as number)).toBeLessThan(2e-3);
        // What is reported is the model's own distribution, before any penalty.
        expect(Math.abs((logprobs[step]?.logprob as number) - logSoftmax(row, token))).toBeLessThan(2e-3);
      });
      const plain = await engine.generate({ tokens: prompt }, { ...GREEDY, maxTokens: 16, ignoreEos: true });
      changed ||= tokens.join() !== plain.tokens.join();
      const { choices } = await engine.generate({ tokens: prompt }, { ...GREEDY, ...params, maxTokens: 16, ignoreEos: true, n: 2 });
      for (const choice of choices ?? []) expect(choice.tokens).toEqual(tokens);
    }
    expect(changed, "the penalty changes an answer").toBe(true);
    await model.close();
    await engine.close();
  });

  /** The definition: repetition over prompt and output, the others over the output alone. */
  function adjust(logits: Float32Array, prompt: readonly number[], output: readonly number[], params: GenerateParams): number[] {
    const { repetitionPenalty: r, presencePenalty, frequencyPenalty } = params;
    const bias = (params.logitBias ?? {}) as Record<string, number>;
    return Array.from(logits.subarray(0, KNOWN), (logit, id) => {
      const count = output.filter((token) => token === id).length;
      const seen = count > 0 || prompt.includes(id);
      const repeated = seen && r ? (logit > 0 ? logit / r : logit * r) : logit;
      return repeated - (frequencyPenalty ?? 0) * count - (count > 0 ? (presencePenalty ?? 0) : 0) + (bias[id] ?? 0);
    });
  }

  it("the first step's alternatives are the same with every penalty", async () => {
    const engine = await open();
    const first = async (params: GenerateParams) =>
      (await engine.generate(promptOf(golden(6)), { ...GREEDY, maxTokens: 1, logprobs: 20, ...params })).logprobs?.[0]?.top;
    const plain = await first({});
    for (const params of [{ presencePenalty: 2 }, { frequencyPenalty: 2 }, { repetitionPenalty: 1.5 }, { presencePenalty: -2 }])
      expect(await first(params)).toEqual(plain);
    await engine.close();
  });
});

describe("B29: near ties fall the same way", () => {
  const params: GenerateParams = { ...GREEDY, maxTokens: 60, ignoreEos: true, logprobs: 1 };
  const prompts = [3, 9, 38].map((index) => promptOf(golden(index)));

  it("with 1, 3 and 16 threads, and steps of 8, 64 and 4096 tokens", async () => {
    const wanted: unknown[] = [];
    for (const options of [
      ...[1, 3, 16].map((threads) => ({ threads })),
      ...[8, 64, 4096].map((maxBatchTokens) => ({ maxBatchTokens })),
      { threads: 3, maxBatchTokens: 8 },
    ]) {
      const engine = await open(undefined, { maxSequences: 16, ...options });
      const results = await engine.generate([...prompts, ...prompts], params);
      wanted.push(results.slice(0, 3).map(({ logprobs }) => bits(logprobs)));
      expect(results.slice(3).map(({ logprobs }) => bits(logprobs))).toEqual(wanted[0]);
      expect(wanted.at(-1)).toEqual(wanted[0]);
      idle(engine);
      await engine.close();
    }
  });
});
