/** `cacheDType: "fp8"` through the engine: answers, prefix cache, preemption, estimate. */
import { afterAll, describe, expect, it } from "vitest";
import { estimateModel } from "../../ts/engine/inspect.js";
import { modelPath } from "../helpers/fixtures.js";
import * as mini from "../helpers/mini.js";
import { sameAfterGivingWay, sameOnPrefixHit, TIGHT_TOKENS } from "../helpers/serving.js";

const { engines, GREEDY, golden, ids, promptOf } = mini;
const { open, closeAll } = engines();
afterAll(closeAll);

const FP8 = { cacheDType: "fp8" } as const;

describe.each(["mini", "tiny-lite-a"] as const)("%s", (name) => {
  const dir = modelPath(name);

  it("says what it holds, and answers near what float32 latents would", async () => {
    const [engine, exact] = [await open(dir, FP8), await open(dir)];
    expect(engine.info.cacheDType).toBe("fp8");
    expect(exact.info.cacheDType).toBe("float32");
    const { tokens } = ids(60, 2);
    const [near, want] = [await engine.score(tokens), await exact.score(tokens)];
    const off = near.logprobs.map((logprob, i) => Math.abs((logprob ?? 0) - (want.logprobs[i] ?? 0)));
    expect(Math.max(...off)).toBeGreaterThan(0);
    expect(off.reduce((sum, x) => sum + x, 0) / off.length, "of ids drawn at random, by which routings change").toBeLessThan(0.15);
  });

  it("answers the same on a hit of the prefix cache as on a miss", async () => {
    const [cached, fresh] = [await open(dir, FP8), await open(dir, { ...FP8, prefixCache: false })];
    await sameOnPrefixHit(cached, fresh);
  });

  it("answers the same after it had to give way", async () => {
    const wide = await open(dir, FP8);
    const { cacheBytesPerToken } = await estimateModel(dir, { device: "cpu", ...FP8 });
    const tight = await open(dir, { ...FP8, cacheBytes: cacheBytesPerToken * TIGHT_TOKENS });
    await sameAfterGivingWay(tight, wide);
  });

  it("is estimated as it is loaded", async () => {
    const options = { device: "cpu", batch: 4, maxBatchTokens: 64, speculative: "off" } as const;
    const [fp8, plain] = [await estimateModel(dir, { ...options, ...FP8 }), await estimateModel(dir, options)];
    expect(fp8).toMatchObject({ activations: "float32", cacheDType: "fp8" });
    expect(fp8.cacheBytes).toBe(4 * Math.ceil(fp8.context / 16) * 16 * fp8.cacheBytesPerToken);
    expect(plain.cacheDType).toBe("float32");
    expect(fp8.cacheBytesPerToken).toBeLessThan(0.6 * plain.cacheBytesPerToken);
    expect({ ...fp8, cacheBytes: 0 }).toMatchObject({ stateBytes: plain.stateBytes, scratchBytes: plain.scratchBytes });
  });
});

it("still writes English", async () => {
  const engine = await open(undefined, FP8);
  const exact = await open();
  const prompt = promptOf(golden(3));
  const [got, want] = await Promise.all([engine, exact].map((one) => one.generate(prompt, { ...GREEDY, maxTokens: 24 })));
  console.log(`fp8 latents: ${JSON.stringify(got!.text)}; float32: ${JSON.stringify(want!.text)}`);
  expect(got!.tokens.slice(0, 4)).toEqual(want!.tokens.slice(0, 4));
});
