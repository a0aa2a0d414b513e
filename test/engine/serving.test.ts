/** Prefix cache, preemption and load over real checkpoints: what an answer may not depend on, bit for bit. */
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import type { Engine } from "../../ts/engine/engine.js";
import type { EngineOptions } from "../../ts/engine/options.js";
import type { GenerateResult, TokenPrompt } from "../../ts/engine/types.js";
import { estimateModel } from "../../ts/engine/inspect.js";
import type { GenerateParams } from "../../ts/sampling/parameters.js";
import { type ModelName, modelPath } from "../helpers/fixtures.js";
import * as mini from "../helpers/mini.js";
import { same, sameAfterGivingWay, sameOnPrefixHit, TIGHT_TOKENS } from "../helpers/serving.js";

const { engines, GREEDY, golden, idle, ids, promptOf, user } = mini;
const { open, closeAll } = engines();
afterAll(closeAll);

/** Cache for so many tokens of a checkpoint. */
async function cacheFor(dir: string, tokens: number): Promise<number> {
  return (await estimateModel(dir, { device: "cpu" })).cacheBytesPerToken * tokens;
}

describe.each(["mini", "tiny-a", "tiny-lite-a"] as const)("%s", (name: ModelName) => {
  it("answers the same whether a prompt's beginning is found in the prefix cache or not, at every length", async () => {
    const [cached, fresh] = [await open(modelPath(name)), await open(modelPath(name), { prefixCache: false })];
    await sameOnPrefixHit(cached, fresh);
    const { prefixHitTokens, prefixQueryTokens } = cached.stats;
    expect(prefixHitTokens).toBe(0 + 16 + 16 + 16 + 32 + 64 + 80 + 96 + 16);
    expect(prefixQueryTokens).toBe(97 + 1 + 16 + 17 + 31 + 32 + 33 + 80 + 81 + 97 + 97 + 97);
  });

  it("runs the beginning of prompts that come at once only once, with the answers that each has alone", async () => {
    const params: GenerateParams = { ...GREEDY, maxTokens: 24, ignoreEos: true, logprobs: 3 };
    const [together, alone] = [await open(modelPath(name)), await open(modelPath(name), { prefixCache: false })];
    const { tokens } = ids(80, 3);
    const prompts = [5, 6, 7, 8].map((last) => ({ tokens: [...tokens, last, last] }));
    const answers = await together.generate(prompts, params);
    expect(answers.map(({ usage }) => usage.cachedTokens)).toEqual([0, 80, 80, 80]);
    for (const [i, answer] of answers.entries())
      expect(same(answer)).toEqual(same(await alone.generate(prompts[i] as TokenPrompt, params)));
    idle(together);
  });

  it("answers the same after it had to give way, whatever is sampled and penalised", async () => {
    const dir = modelPath(name);
    const wide = await open(dir);
    for (const prefixCache of [true, false, "all"] as const) {
      const tight = await open(dir, { cacheBytes: await cacheFor(dir, TIGHT_TOKENS), prefixCache });
      await sameAfterGivingWay(tight, wide);
      await tight.close();
    }
  });
});

describe("a greedy request", () => {
  it.each<EngineOptions>([{}, { maxBatchTokens: 24 }, { maxSequences: 6, prefixCache: "all" }])(
    "has the same bits alone and beside 16 others that come and go, with %j",
    async (options) => {
      const engine = await open(undefined, options);
      const params: GenerateParams = { ...GREEDY, maxTokens: 60, ignoreEos: true, logprobs: 1 };
      const prompts = [3, 9, 38].map((index) => promptOf(golden(index)));
      const alone = [];
      for (const prompt of prompts) alone.push(same(await engine.generate(prompt, params)));
      const others: Promise<unknown>[] = [];
      const targets: Promise<GenerateResult>[] = [];
      for (let i = 0; i < 16; i++) {
        others.push(engine.generate(ids(3 + 17 * i, i % 5), { maxTokens: 9 + 4 * i, ignoreEos: true, temperature: 1, seed: i }));
        if (i % 6 === 1) targets.push(engine.generate(prompts[targets.length]!, params));
        for (const before = engine.stats.steps; engine.stats.steps < before + 2; ) await new Promise((resolve) => setImmediate(resolve));
      }
      expect((await Promise.all(targets)).map(same)).toEqual(alone);
      await Promise.all(others);
      idle(engine);
    },
  );
});

describe("a chat that goes on", () => {
  const turn = async (engine: Engine) => {
    const messages = [{ role: "user" as const, content: "Compute 56 + 80. ".repeat(12).trim() }];
    const first = await engine.generate({ messages }, { ...GREEDY, maxTokens: 40, ignoreEos: true });
    const history = { tokens: [...(await engine.tokenize({ messages })), ...first.tokens, 20, 21, 22] };
    const second = await engine.generate(history, { ...GREEDY, maxTokens: 8, ignoreEos: true });
    return { first, second };
  };

  it('finds its prompt again, and with "all" the answer too', async () => {
    const block = (count: number) => Math.floor(count / 16) * 16;
    const on = await turn(await open(undefined, { maxSequences: 4 }));
    expect(on.second.usage.cachedTokens).toBe(block(on.first.usage.promptTokens));
    const all = await turn(await open(undefined, { maxSequences: 4, prefixCache: "all" }));
    expect(all.second.usage.cachedTokens).toBe(block(all.first.usage.promptTokens + 39));
    const off = await turn(await open(undefined, { maxSequences: 4, prefixCache: false }));
    expect(off.second.usage.cachedTokens).toBe(0);
    expect(same(on.second)).toEqual(same(off.second));
  });

  it("is forgotten only when the cache is full of what was used later", async () => {
    const engine = await open(undefined, { cacheBytes: await cacheFor(join(import.meta.dirname, "../../models/mini"), 256) });
    const system = ids(64, 1).tokens;
    const ask = async (seed: number) =>
      (await engine.generate({ tokens: [...system, ...ids(20, seed).tokens] }, { ...GREEDY, maxTokens: 4, ignoreEos: true })).usage
        .cachedTokens;
    expect(await ask(2)).toBe(0);
    for (let seed = 3; seed < 30; seed++) expect(await ask(seed)).toBe(64);
    await engine.generate(ids(250, 9), { ...GREEDY, maxTokens: 2, ignoreEos: true });
    expect(await ask(2)).toBe(0);
    idle(engine);
    expect(engine.stats.cachedBlocks).toBeGreaterThan(0);
  });

  it("scores a text that is cached as one that is not, token by token", async () => {
    const engine = await open(undefined, { maxSequences: 4 });
    const { tokens } = ids(70, 4);
    const first = await engine.score(tokens);
    await engine.generate(user("x"), { ...GREEDY, maxTokens: 1 });
    expect(await engine.score(tokens)).toEqual(first);
    const hit = await engine.generate({ tokens }, { ...GREEDY, maxTokens: 1 });
    expect(hit.usage.cachedTokens).toBe(64);
  });
});
