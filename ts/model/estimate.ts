/**
 * How much memory a checkpoint will take, from its headers alone.
 * @module
 */

import { openCheckpoint } from "./checkpoint.js";
import { numCaches } from "./open.js";
import { availableMemoryBytes, BLOCK_SIZE, sizeModel } from "./sizing.js";
import { cacheBytesPerToken } from "./state.js";

/** What to estimate for. */
export interface EstimateOptions {
  /** Tokens of each sequence. Default: the model's context. */
  context?: number;
  /** Sequences at once. Default 1. */
  batch?: number;
  /** Tokens of one step. Default 4096. */
  maxBatchTokens?: number;
  allowUnknownTensors?: boolean;
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
 * @throws LongcatError as opening the checkpoint would.
 */
export async function estimateMemory(dir: string, options: EstimateOptions = {}): Promise<MemoryEstimate> {
  const checkpoint = await openCheckpoint(dir, { allowUnknownTensors: options.allowUnknownTensors ?? false });
  try {
    const { config } = checkpoint;
    const context = options.context ?? config.maxPositionEmbeddings;
    const batch = options.batch ?? 1;
    const caches = numCaches(checkpoint);
    const perToken = cacheBytesPerToken(config, caches);
    const cacheBytes = batch * Math.ceil(context / BLOCK_SIZE) * BLOCK_SIZE * perToken;
    const sizing = { maxSequences: batch, maxBatchTokens: options.maxBatchTokens ?? 4096, cacheBytes };
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
