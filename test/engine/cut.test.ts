/** A step that the runner cuts, since its sequences share more of the cache than it is thought to hold: answers are those without drafts. */
import { afterAll, expect, it } from "vitest";
import type { EngineOptions } from "../../ts/engine/options.js";
import { engines } from "../helpers/mini.js";
import { prompt } from "../helpers/runs.js";

const { open, closeAll } = engines();
afterAll(closeAll);

const PREFIX = prompt(2000, 1);
const REQUESTS = 16;

/** Questions behind one long prefix, all but the last of which end too soon to have drafts. */
async function answers(options: EngineOptions) {
  const engine = await open(undefined, options);
  const params = { temperature: 0, ignoreEos: true, logprobs: 0 };
  await engine.generate({ tokens: PREFIX }, { ...params, maxTokens: 1 });
  const all = await Promise.all(
    Array.from({ length: REQUESTS }, (_, i) =>
      engine.generate({ tokens: [...PREFIX, 5, 6, 7 + i] }, { ...params, maxTokens: i === REQUESTS - 1 ? 12 : 2 }),
    ),
  );
  return { results: all.map(({ tokens, logprobs }) => ({ tokens, logprobs })), stats: engine.stats };
}

it("of many sequences over one prefix, of which few have drafts, gives what it gives without drafts", async () => {
  const blockBytes = 16 * 288 * 4;
  const options = { maxSequences: REQUESTS, threads: 2 };
  const without = await answers({ ...options, speculative: "off", cacheBytes: 160 * 8 * blockBytes });
  const { results, stats } = await answers({ ...options, speculative: { drafts: 1 }, cacheBytes: 160 * 10 * blockBytes });
  expect(stats).toMatchObject({ numBlocks: 160, preemptions: 0 });
  expect(stats.prefixHitTokens).toBe(REQUESTS * PREFIX.length);
  expect(stats.speculation.draftedSteps).toBeGreaterThan(0);
  expect(results).toEqual(without.results);
});
