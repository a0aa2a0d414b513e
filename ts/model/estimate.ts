/**
 * How much memory a checkpoint will take, from its headers alone.
 * @module
 */

import { integer } from "../checks.js";
import { openCheckpoint } from "./checkpoint.js";
import { numCaches } from "./open.js";
import { availableMemoryBytes, BLOCK_SIZE, sizeModel } from "./sizing.js";
import { cacheBytesPerToken } from "./state.js";

/** What to estimate for. */
export interface EstimateSizes {
  /** Tokens of each sequence, not checked yet; absent: the model's context, which is also the most. */
  context?: number;
  /** Sequences at once. */
  batch: number;
  /** Tokens of one step. */
  maxBatchTokens: number;
  allowUnknownTensors: boolean;
}

/** Bytes, all of them. Mapped weights need memory only as far as they are used, but run fast only if they all fit. */
export interface MemoryEstimate {
  context: number;
  batch: number;
  /** Weights in the files, n-gram tables not counted. */
  weightBytes: number;
  /** LongCat-Flash-Lite's n-gram tables: mapped, some rows a token are read. */
  ngramBytes: number;
  cacheBytesPerToken: number;
  /** Latent caches for batch × context tokens. */
  cacheBytes: number;
  /** Block tables, histories, sampling state. */
  stateBytes: number;
  /** The largest program's intermediate tensors. */
  scratchBytes: number;
  /** weights + caches + state + scratch. */
  totalBytes: number;
  availableBytes: number;
  fits: boolean;
  /** Tokens of cache that fit beside the rest, over all sequences. */
  maxCachedTokens: number;
}

/**
 * Estimates without loading: reads config.json and the files' headers.
 *
 * @throws LongcatError as opening the checkpoint would; `OPTION_INVALID` for a context beyond the model's.
 */
export async function estimateMemory(dir: string, sizes: EstimateSizes): Promise<MemoryEstimate> {
  const { batch, maxBatchTokens, allowUnknownTensors } = sizes;
  const checkpoint = await openCheckpoint(dir, { allowUnknownTensors });
  try {
    const { config } = checkpoint;
    const modelContext = config.maxPositionEmbeddings;
    const context = integer(sizes.context ?? modelContext, "context", 1, modelContext, ", the model's context");
    const caches = numCaches(checkpoint);
    const perToken = cacheBytesPerToken(config, caches);
    const cacheBytes = batch * Math.ceil(context / BLOCK_SIZE) * BLOCK_SIZE * perToken;
    const sizing = { maxSequences: batch, maxBatchTokens, cacheBytes };
    const { stateBytes, scratchBytes } = sizeModel({ ...config, maxPositionEmbeddings: context }, sizing, caches);
    const ngramBytes = sumBytes(checkpoint.tensors, (name) => name.startsWith("model.ngram_embeddings.embedders."));
    const weightBytes = sumBytes(checkpoint.tensors, () => true) - ngramBytes;
    const availableBytes = availableMemoryBytes();
    const fixedBytes = weightBytes + stateBytes + scratchBytes;
    return {
      ...{ context, batch, weightBytes, ngramBytes, cacheBytesPerToken: perToken, cacheBytes, stateBytes, scratchBytes },
      totalBytes: fixedBytes + cacheBytes,
      availableBytes,
      fits: fixedBytes + cacheBytes <= availableBytes,
      maxCachedTokens: Math.max(0, Math.floor((availableBytes - fixedBytes) / perToken)),
    };
  } finally {
    checkpoint.close();
  }
}

function sumBytes(tensors: ReadonlyMap<string, { entry: { begin: number; end: number } }>, include: (name: string) => boolean): number {
  let bytes = 0;
  for (const [name, { entry }] of tensors) if (include(name)) bytes += entry.end - entry.begin;
  return bytes;
}
