/**
 * What one decode step must touch: bytes of weights and cache, and floating-point operations. The floor of its time is
 * max(bytes ÷ read bandwidth, flops ÷ peak); benchmarks print a step's time beside it.
 * @module
 */

import type { Checkpoint } from "./checkpoint.js";
import { cacheBytesPerToken, latentWidth, numCaches } from "./state.js";

/** Weights that a decode step reads, from the files' headers; bytes as stored (block-FP8 scales count with their matrix). */
export interface WeightCost {
  /** Read once a step, whatever the batch. */
  sharedBytes: number;
  /** Elements of shared matrices: each row of the batch costs two flops for each. */
  sharedElements: number;
  /** Of one FFN expert in one layer, on average over all. */
  expertBytes: number;
  expertElements: number;
}

/** A decode step: `batch` rows, each with `context` cached tokens. Routing as measured. */
export interface DecodeShape {
  batch: number;
  /** Cached tokens that a row attends to, on average. */
  context: number;
  /** FFN experts that a token uses in a layer, on average. */
  ffnExpertsPerToken: number;
  /** Different FFN experts that a whole step uses in a layer, on average. */
  distinctExperts: number;
}

/** What it costs at least. */
export interface StepCost {
  bytes: number;
  flops: number;
}

const EXPERT = /^model\.layers\.\d+\.mlp\.experts\.\d+\./;
/** Gathered by rows, or not part of a plain decode step. */
const NOT_READ = /^model\.(mtp\.|ngram_embeddings\.embedders\.)/;
const EMBEDDING = "model.embed_tokens.weight";

/** Sums the weights of a checkpoint by how a decode step reads them. The embedding is read as a matrix only if it is the head too. */
export function weightCost(checkpoint: Pick<Checkpoint, "config" | "tensors">): WeightCost {
  const { config, tensors } = checkpoint;
  const tied = !tensors.has("lm_head.weight");
  const shared = { bytes: 0, elements: 0 };
  const experts = { bytes: 0, elements: 0 };
  for (const [name, { entry }] of tensors) {
    if (NOT_READ.test(name) || (name === EMBEDDING && !tied)) continue;
    const sum = EXPERT.test(name) ? experts : shared;
    sum.bytes += entry.end - entry.begin;
    if (entry.shape.length === 2 && !name.endsWith(".weight_scale_inv")) sum.elements += entry.shape[0]! * entry.shape[1]!;
  }
  const count = Math.max(1, config.numExperts * config.numLayers);
  return {
    sharedBytes: shared.bytes,
    sharedElements: shared.elements,
    expertBytes: experts.bytes / count,
    expertElements: experts.elements / count,
  };
}

/** Bytes and flops of one decode step, without drafts. */
export function decodeStepCost(config: Checkpoint["config"], weights: WeightCost, shape: DecodeShape): StepCost {
  const { batch, context } = shape;
  const caches = numCaches(config, false);
  const cacheBytes = batch * context * cacheBytesPerToken(config, caches);
  // Absorbed attention: each head's score over the whole latent row, its sum over the latent alone.
  const attentionFlops = caches * batch * context * config.numHeads * 2 * (latentWidth(config) + config.kvLoraRank);
  const expertBytes = config.numLayers * shape.distinctExperts * weights.expertBytes;
  const expertFlops = config.numLayers * batch * shape.ffnExpertsPerToken * 2 * weights.expertElements;
  return {
    bytes: weights.sharedBytes + expertBytes + cacheBytes,
    flops: 2 * batch * weights.sharedElements + expertFlops + attentionFlops,
  };
}
