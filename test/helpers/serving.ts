/**
 * What an engine's answers may not depend on, whatever its device and latent cache hold: what the prefix cache has, and giving way to others.
 * Bits, not tolerances. Failures are thrown by node:assert, which Vitest and Node's own test runner both understand.
 */
import assert from "node:assert/strict";
import type { Engine } from "../../ts/engine/engine.js";
import type { GenerateResult } from "../../ts/engine/types.js";
import type { GenerateParams } from "../../ts/sampling/parameters.js";
import { bits, GREEDY, ids } from "./questions.js";

const PARAMS: GenerateParams = { ...GREEDY, maxTokens: 24, ignoreEos: true, logprobs: 3 };

/** All that must be the same. */
export const same = ({ text, tokens, finishReason, logprobs, routing }: GenerateResult) => ({
  ...{ text, tokens, finishReason, routing },
  logprobs: bits(logprobs),
});

/** Nothing runs or waits, and every cache block is back. A step that was under way behind the last token ends on its own. */
export async function untilIdle(engine: Engine): Promise<void> {
  for (let i = 0; i < 200 && engine.stats.blocksInUse > 0; i++) await new Promise((resolve) => setTimeout(resolve, 10));
  const { runningSequences, waitingSequences, blocksInUse } = engine.stats;
  assert.deepEqual({ runningSequences, waitingSequences, blocksInUse }, { runningSequences: 0, waitingSequences: 0, blocksInUse: 0 });
}

/** A prompt's beginning that is found in the prefix cache, at every length around a block's end. `fresh`: an engine without that cache. */
export async function sameOnPrefixHit(cached: Engine, fresh: Engine): Promise<void> {
  const { tokens } = ids(97, 1);
  await cached.generate({ tokens }, PARAMS);
  const expectHit = async (prompt: number[], found: number) => {
    const [hit, miss] = [await cached.generate({ tokens: prompt }, PARAMS), await fresh.generate({ tokens: prompt }, PARAMS)];
    assert.equal(hit.usage.promptTokens, prompt.length);
    assert.deepEqual([hit.usage.cachedTokens, miss.usage.cachedTokens], [found, 0]);
    assert.deepEqual(same(hit), same(miss), `a prompt of ${prompt.length}, ${found} cached`);
  };
  const found = [
    [1, 0],
    [16, 0],
    [17, 16],
    [31, 16],
    [32, 16],
    [33, 32],
    [80, 64],
    [81, 80],
    [97, 96],
  ] as const;
  for (const [length, cachedTokens] of found) await expectHit(tokens.slice(0, length), cachedTokens);
  // Another token in the first block: nothing is found. In the second: the first is.
  await expectHit(tokens.with(3, 7), 0);
  await expectHit(tokens.with(20, 7), 16);
  await untilIdle(cached);
}

/** Tokens that the caches of `sameAfterGivingWay` have room for. */
export const TIGHT_TOKENS = 288;

/** Sequences that do not fit together, some of which are moved to host memory and back. `wide`: an engine with room for all, one at a time. */
export async function sameAfterGivingWay(tight: Engine, wide: Engine): Promise<void> {
  const cases = Array.from({ length: 6 }, (_, i) => ({
    prompt: ids(40 + 7 * i, i),
    params: {
      ...{ temperature: i % 2, seed: i, maxTokens: 60, ignoreEos: true, logprobs: 2 },
      ...{ presencePenalty: 0.5, frequencyPenalty: 0.4, repetitionPenalty: 1.2 },
    },
  }));
  const got = await Promise.all(cases.map((one) => tight.generate(one.prompt, one.params)));
  assert.ok(tight.stats.preemptions > 0, "nobody gave way");
  for (const [i, one] of cases.entries()) assert.deepEqual(same(got[i]!), same(await wide.generate(one.prompt, one.params)), `case ${i}`);
  await untilIdle(tight);
}
