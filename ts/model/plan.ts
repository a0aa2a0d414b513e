/**
 * What a model will be on a device, decided from its headers before anything is loaded: what its activations are, where its weights
 * live, how large everything is.
 * @module
 */

import type { ActivationDType } from "./activations.js";
import type { Checkpoint } from "./checkpoint.js";
import type { ModelConfig } from "./config.js";
import { activationDTypeOf, type DeviceKind, gpuWeightBytes, placeNgramTables } from "./placement.js";
import { GPU_MARGIN_BYTES, type ModelSizes, type SizingOptions, sizeModel } from "./sizing.js";
import { numCaches } from "./state.js";
import { conversionBytes, type NgramPlace, type WeightDType } from "./weights.js";

/** What to plan for. */
export interface PlanOptions
  extends Pick<
    SizingOptions,
    "maxSequences" | "maxBatchTokens" | "cacheBytes" | "cacheDType" | "availableBytes" | "maxDrafts" | "sharding"
  > {
  kind: DeviceKind;
  dtype: WeightDType;
  ngram: "auto" | NgramPlace;
  /** GPU: bytes that are free on it, by which "auto" places n-gram tables; null: not known. */
  freeBytes?: number | null;
}

/** The decisions. */
export interface ModelPlan {
  sizes: ModelSizes;
  activationDType: ActivationDType;
  /** Where n-gram tables go, if there are any. */
  ngram: NgramPlace;
}

/**
 * Decides everything, of a checkpoint as it is used: of one rank of several, with its experts alone.
 *
 * @param config the checkpoint's, or that with a shorter context.
 * @throws LongcatError OUT_OF_MEMORY, OPTION_INVALID; see `sizeModel` and `placeNgramTables`
 */
export function planModel(checkpoint: Checkpoint, options: PlanOptions, config: ModelConfig = checkpoint.config): ModelPlan {
  const { kind, dtype, maxSequences, maxBatchTokens, cacheBytes, cacheDType, availableBytes, sharding } = options;
  const maxDrafts = checkpoint.hasMtp ? (options.maxDrafts ?? 0) : 0;
  const caches = numCaches(config, maxDrafts > 0);
  const activationDType = activationDTypeOf(kind, checkpoint, dtype);
  const base = { kind, activationDType, maxSequences, maxBatchTokens, cacheBytes, cacheDType, availableBytes, maxDrafts, sharding };
  if (kind === "cpu") {
    const ngram = placeNgramTables(kind, options.ngram, 0, null);
    const convertedBytes = conversionBytes(checkpoint, dtype).converted;
    return { sizes: sizeModel(config, { ...base, convertedBytes }, caches), activationDType, ngram };
  }
  const weights = gpuWeightBytes(checkpoint, dtype);
  const sizing = { ...base, convertedBytes: weights.converted + weights.staged, weightBytes: weights.kept };
  const ngram = placeNgramTables(kind, options.ngram, weights.ngram, freeBeside(config, sizing, caches, options.freeBytes ?? null));
  if (ngram === "device") sizing.weightBytes += weights.ngram;
  return { sizes: sizeModel(config, sizing, caches), activationDType, ngram };
}

/** What a GPU has left beside weights, state and scratch, with the least of caches. */
function freeBeside(config: ModelConfig, sizing: SizingOptions, caches: number, freeBytes: number | null): number | null {
  if (freeBytes === null) return null;
  const { allocatedBytes, cacheBytes } = sizeModel(config, { ...sizing, cacheBytes: "least", availableBytes: Infinity }, caches);
  return freeBytes - GPU_MARGIN_BYTES - (allocatedBytes - cacheBytes);
}
