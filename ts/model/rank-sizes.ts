/**
 * What ranks that run a model together must have alike: they run the same programs, and a sequence may come to any of them.
 * @module
 */

import { LongcatError } from "../errors.js";
import type { ModelConfig } from "./config.js";
import type { ModelParallel } from "./exchange.js";
import type { ModelSizes } from "./sizing.js";

/**
 * Sees that all ranks have the same model and the same sizes; the cache may be smaller where there is less memory.
 *
 * @returns bytes of the smallest cache, which all are to have: then their contexts are equally long
 * @throws LongcatError COMM_ERROR naming what a rank has otherwise
 */
export async function agreeOnCache({ rank, gather }: ModelParallel, config: ModelConfig, sizes: ModelSizes): Promise<number> {
  const own = alike(config, sizes);
  const all = await gather("sizes", new TextEncoder().encode(JSON.stringify({ ...own, cacheBytes: sizes.cacheBytes })));
  const caches = all.map((bytes, other) => {
    const { cacheBytes, ...theirs } = JSON.parse(new TextDecoder().decode(bytes)) as typeof own & { cacheBytes: number };
    const name = (Object.keys(own) as (keyof typeof own)[]).find((key) => own[key] !== theirs[key]);
    if (name) throw new LongcatError("COMM_ERROR", `${name} is ${own[name]} on rank ${rank}, ${theirs[name]} on rank ${other}`);
    return cacheBytes;
  });
  return Math.min(...caches);
}

/** Numbers and types that programs follow from. */
function alike(config: ModelConfig, sizes: ModelSizes) {
  const { numLayers, hiddenSize, numExperts, numZeroExperts, topK, vocabSize } = config;
  const { maxSequences, maxBatchTokens, maxDrafts, activationDType, cacheDType, sharding } = sizes;
  const { ranks, fp8Dispatch, throughNccl } = sharding;
  return {
    ...{ numLayers, hiddenSize, numExperts, numZeroExperts, topK, vocabSize },
    ...{ maxSequences, maxBatchTokens, maxDrafts, activationDType, cacheDType, ranks, fp8Dispatch, throughNccl },
  };
}
