/**
 * What one decode step must touch: bytes of weights and cache, and floating-point operations. The floor of its time is
 * max(bytes ÷ read bandwidth, flops ÷ peak); benchmarks print a step's time beside it.
 * @module
 */

import { bytesOf, DTYPES } from "../runtime/dtype.js";
import type { Checkpoint } from "./checkpoint.js";
import { cacheBytesPerToken, type CacheDType, latentWidth, numCaches } from "./state.js";
import { expertOf, scaleName } from "./tensor-names.js";
import { isConverted, type WeightDType } from "./weights.js";

/** Weights that a decode step reads, from the files' headers; bytes as they are in memory (block-FP8 scales count with their matrix). */
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
  /** What the latent caches hold. Default "float32", as on the CPU. */
  cacheDType?: CacheDType;
}

/** What it costs at least. */
export interface StepCost {
  bytes: number;
  flops: number;
}

/** Gathered by rows, or not part of a plain decode step. */
const NOT_READ = /^model\.(mtp\.|ngram_embeddings\.embedders\.)/;
const EMBEDDING = "model.embed_tokens.weight";

/** The matrices that a load converts, and their scales, which nothing reads afterwards: bytes of each after it. */
function convertedBytes({ specs, tensors }: Pick<Checkpoint, "specs" | "tensors">, dtype: WeightDType): Map<string, number> {
  const bytes = new Map<string, number>();
  for (const { name, shape, quantisable } of specs) {
    const stored = tensors.get(name)?.entry;
    if (stored === undefined || !quantisable || !isConverted(DTYPES[stored.dtype]!, dtype)) continue;
    bytes.set(
      name,
      shape.reduce((product, n) => product * n, bytesOf(dtype)),
    );
    bytes.set(scaleName(name), 0);
  }
  return bytes;
}

/**
 * Sums the weights of a checkpoint by how a decode step reads them. The embedding is read as a matrix only if it is the head too.
 *
 * @param dtype what the layers' matrices are converted to at load; "auto": nothing is
 */
export function weightCost(checkpoint: Pick<Checkpoint, "config" | "specs" | "tensors">, dtype: WeightDType = "auto"): WeightCost {
  const { config, tensors } = checkpoint;
  const converted = convertedBytes(checkpoint, dtype);
  const tied = !tensors.has("lm_head.weight");
  const shared = { bytes: 0, elements: 0 };
  const experts = { bytes: 0, elements: 0 };
  for (const [name, { entry }] of tensors) {
    if (NOT_READ.test(name) || (name === EMBEDDING && !tied)) continue;
    const sum = expertOf(name) !== undefined ? experts : shared;
    sum.bytes += converted.get(name) ?? entry.end - entry.begin;
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
  const { batch, context, cacheDType = "float32" } = shape;
  const caches = numCaches(config, false);
  const cacheBytes = batch * context * cacheBytesPerToken(config, caches, cacheDType);
  // Absorbed attention: each head's score over the whole latent row, its sum over the latent alone.
  const attentionFlops = caches * batch * context * config.numHeads * 2 * (latentWidth(config) + config.kvLoraRank);
  const expertBytes = config.numLayers * shape.distinctExperts * weights.expertBytes;
  const expertFlops = config.numLayers * batch * shape.ffnExpertsPerToken * 2 * weights.expertElements;
  return {
    bytes: weights.sharedBytes + expertBytes + cacheBytes,
    flops: 2 * batch * weights.sharedElements + expertFlops + attentionFlops,
  };
}
