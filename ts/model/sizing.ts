/**
 * How large things are, decided in one place and before anything is loaded: cache blocks, context, programs, and what fits.
 * @module
 */

import { freemem } from "node:os";
import { LongcatError } from "../errors.js";
import type { Capacity } from "./activations.js";
import type { ModelConfig } from "./config.js";
import { programBytes, SPLIT_KEYS } from "./program.js";
import { cacheBytesPerToken, type StateSizes, stateBytes } from "./state.js";

/** What the user may choose of it. */
export interface SizingOptions {
  /** Sequences that run at once. Default 64. */
  maxSequences: number;
  /** Tokens of one step. Default 4096. */
  maxBatchTokens: number;
  /** Bytes for the latent caches; "auto": see `sizeModel`. */
  cacheBytes: number | "auto";
  /** Memory that may be used; default: what is free now. */
  availableBytes?: number;
}

/** Rows of a cache block. */
export const BLOCK_SIZE = 16;

/** Share of the free memory that "auto" gives to the caches at most. */
const AUTO_CACHE_SHARE = 0.5;

/** Decode programs exist for these batch sizes, and for maxSequences. */
const BUCKETS = [1, 2, 4, 8, 16, 32, 64, 128, 256];

/** Rows of logits that one pass of the head makes for a prompt step. */
const PROMPT_LOGIT_ROWS = 64;

/** The sizes of a runner and of its programs. */
export interface ModelSizes extends StateSizes {
  maxBatchTokens: number;
  /** Capacity of the program for prompts, and of each decode bucket, ascending. */
  prompt: Capacity;
  decode: Capacity[];
  cacheBytes: number;
  stateBytes: number;
  /** The arena: the largest program's. */
  scratchBytes: number;
}

/** Bytes of memory that this process may still take: the container's limit counts. */
export function availableMemoryBytes(): number {
  const limited = (process as { availableMemory?: () => number }).availableMemory?.();
  return limited && limited > 0 ? limited : freemem();
}

/**
 * Decides every size. "auto" caches hold `maxSequences` whole contexts, or half of the memory that is there if that is less.
 *
 * @throws LongcatError OUT_OF_MEMORY if the caches would not hold one block.
 */
export function sizeModel(config: ModelConfig, options: SizingOptions, numCaches: number): ModelSizes {
  const perToken = cacheBytesPerToken(config, numCaches);
  const blockBytes = perToken * BLOCK_SIZE;
  const context = config.maxPositionEmbeddings;
  const wanted = options.maxSequences * Math.ceil(context / BLOCK_SIZE);
  const available = options.availableBytes ?? availableMemoryBytes();
  const budget = options.cacheBytes === "auto" ? available * AUTO_CACHE_SHARE : options.cacheBytes;
  const numBlocks = Math.min(wanted, Math.floor(budget / blockBytes));
  if (numBlocks < 1) {
    throw new LongcatError(
      "OUT_OF_MEMORY",
      `the latent caches need at least ${blockBytes} bytes (one block of ${BLOCK_SIZE} tokens), cacheBytes allows ${Math.floor(budget)}`,
    );
  }
  const contextLength = Math.min(context, numBlocks * BLOCK_SIZE);
  const sizes: StateSizes = { maxSequences: options.maxSequences, contextLength, blockSize: BLOCK_SIZE, numBlocks, numCaches };
  const prompt: Capacity = {
    tokens: options.maxBatchTokens,
    sequences: options.maxSequences,
    logitRows: Math.max(options.maxSequences, PROMPT_LOGIT_ROWS),
    splits: 1,
  };
  const decode = buckets(Math.min(options.maxSequences, options.maxBatchTokens)).map((batch) => decodeCapacity(batch, sizes));
  return {
    ...sizes,
    maxBatchTokens: options.maxBatchTokens,
    prompt,
    decode,
    cacheBytes: numBlocks * blockBytes,
    stateBytes: stateBytes(config, sizes),
    scratchBytes: Math.max(...[prompt, ...decode].map((capacity) => programBytes(config, capacity))),
  };
}

/** Batch sizes that get a program: the powers of two below `largest`, and `largest`. */
function buckets(largest: number): number[] {
  return [...BUCKETS.filter((batch) => batch < largest), largest];
}

/**
 * Splits of a decode step: every row may be long, but all rows together hold little more than the cache does. Twice the cache leaves
 * room for rows that share blocks; the runner cuts a step in two where even that is not enough.
 */
function decodeCapacity(batch: number, sizes: StateSizes): Capacity {
  const longest = batch * Math.ceil(sizes.contextLength / SPLIT_KEYS);
  const held = batch + Math.ceil((2 * sizes.numBlocks * sizes.blockSize) / SPLIT_KEYS);
  return { tokens: batch, sequences: batch, logitRows: batch, splits: Math.min(longest, held) };
}
