/**
 * How much memory a checkpoint will take, from its headers alone.
 * @module
 */

import { integer } from "../checks.js";
import { availableMemoryBytes } from "../runtime/addon.js";
import { openCheckpoint } from "./checkpoint.js";
import { BLOCK_SIZE, sizeModel } from "./sizing.js";
import { cacheBytesPerToken, numCaches } from "./state.js";
import { conversionBytes, type WeightDType } from "./weights.js";

/** What to estimate for. */
export interface EstimateSizes {
  /** Tokens of each sequence, not checked yet; absent: the model's context, which is also the most. */
  context?: number;
  /** Sequences at once. */
  batch: number;
  /** Tokens of one step. */
  maxBatchTokens: number;
  /** What the layers' matrices are converted to. Default "auto": nothing is. */
  dtype?: WeightDType;
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
  /** Copies of the layers' matrices in another dtype; 0 with "auto". */
  convertedBytes: number;
  /** caches + state + scratch + converted: what a load allocates, and refuses if it is more than `availableBytes`. */
  allocatedBytes: number;
  /** allocatedBytes, and the weights that stay mapped beside it: those in the files without what was converted. */
  totalBytes: number;
  availableBytes: number;
  /** Whether `totalBytes` are there. A load whose mapped weights alone do not fit works, but reads them again and again. */
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
  const { batch, maxBatchTokens, allowUnknownTensors, dtype = "auto" } = sizes;
  const checkpoint = await openCheckpoint(dir, { allowUnknownTensors });
  try {
    const { config } = checkpoint;
    const modelContext = config.maxPositionEmbeddings;
    const context = integer(sizes.context ?? modelContext, "context", 1, modelContext, ", the model's context");
    const caches = numCaches(config, checkpoint.hasMtp);
    const perToken = cacheBytesPerToken(config, caches);
    const { converted: convertedBytes, replaced } = conversionBytes(checkpoint, dtype);
    const wanted = batch * Math.ceil(context / BLOCK_SIZE) * BLOCK_SIZE * perToken;
    // Whatever is there: what does not fit is the answer here, not an error.
    const sizing = { maxSequences: batch, maxBatchTokens, cacheBytes: wanted, convertedBytes, availableBytes: Number.POSITIVE_INFINITY };
    const { cacheBytes, stateBytes, scratchBytes, allocatedBytes } = sizeModel(
      { ...config, maxPositionEmbeddings: context },
      sizing,
      caches,
    );
    const ngramBytes = sumBytes(checkpoint.tensors, (name) => name.startsWith("model.ngram_embeddings.embedders."));
    const weightBytes = checkpoint.bytes - ngramBytes;
    const totalBytes = allocatedBytes + weightBytes - replaced;
    const availableBytes = availableMemoryBytes();
    return {
      ...{ context, batch, weightBytes, ngramBytes, cacheBytesPerToken: perToken, cacheBytes, stateBytes, scratchBytes, convertedBytes },
      ...{ allocatedBytes, totalBytes, availableBytes },
      fits: totalBytes <= availableBytes,
      maxCachedTokens: Math.max(0, Math.floor((availableBytes - totalBytes + cacheBytes) / perToken)),
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
