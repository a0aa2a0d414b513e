/**
 * How large things are, decided in one place and before anything is loaded: cache blocks, context, programs, and what fits.
 *
 * Pages are only taken when they are touched, so every allocation alone would succeed, and the system would end the process later, in
 * the middle of its work. The sum of all is therefore held against the memory that is there before the first is made. Mapped weights are
 * not in it: the system takes their pages back when it needs them. A GPU has no such pages: there, weights count too.
 * @module
 */

import { LongcatError } from "../errors.js";
import { availableMemoryBytes } from "../runtime/addon.js";
import { type ActivationDType, type Capacity, KEY_TILE } from "./activations.js";
import type { ModelConfig } from "./config.js";
import { ONE_RANK, type Sharding, slotsOfRank, windowBytes } from "./exchange.js";
import type { DeviceKind } from "./placement.js";
import { programBytes, SPLIT_KEYS } from "./program.js";
import { cacheBytesPerToken, type CacheDType, type StateSizes, stateBytes } from "./state.js";

/** What the user may choose of it. */
export interface SizingOptions {
  /** Sequences that run at once. Default 64. */
  maxSequences: number;
  /** Tokens of one step. Default 4096. */
  maxBatchTokens: number;
  /** Bytes for the latent caches; "auto": see `sizeModel`; "least": one block. */
  cacheBytes: number | "auto" | "least";
  /** Memory that may be used; default: what this process could allocate now. */
  availableBytes?: number;
  /** Bytes of weights that are converted at load, and on a GPU of those on their way; default 0. */
  convertedBytes?: number;
  /** Bytes of weights that the device holds as they are stored; default 0, as on the CPU, where they stay mapped. */
  weightBytes?: number;
  /** What runs the model; default "cpu". */
  kind?: DeviceKind;
  /** What activations are; default "float32". */
  activationDType?: ActivationDType;
  /** What the latent caches hold; "auto", the default: what activations are. */
  cacheDType?: "auto" | "fp8";
  /** Most drafts that a step verifies of a sequence; default 0. */
  maxDrafts?: number | undefined;
  /** How many ranks share out the experts; default: one has all. */
  sharding?: Sharding | undefined;
}

/** Rows of a cache block. */
export const BLOCK_SIZE = 16;

/** Share of the memory that is left beside the rest, which "auto" gives to the caches at most. A GPU has nothing else to do. */
const AUTO_CACHE_SHARE = { cpu: 0.5, cuda: 0.9 } as const;

/** Bytes of a GPU's memory that are left to recorded graphs and to the driver. */
export const GPU_MARGIN_BYTES = 512 * 1024 * 1024;

/** Bytes that a GPU's allocations take beyond their sizes, being aligned; counted with the state. */
const GPU_SLACK_BYTES = 1024 * 1024;

/** Most keys whose expanded form a GPU holds at a time. */
const MOST_EXPANDED_ROWS = 8192;

/** Decode programs exist for these batch sizes, and for maxSequences. */
const BUCKETS = [1, 2, 4, 8, 16, 32, 64, 128, 256];

/** Rows of logits that one pass of the head makes for a prompt step. */
const PROMPT_LOGIT_ROWS = 64;

/** The sizes of a runner and of its programs. */
export interface ModelSizes extends StateSizes {
  activationDType: ActivationDType;
  maxBatchTokens: number;
  /** Capacity of the program for prompts, of that for prompts and decodes in one step, and of each decode bucket, ascending. */
  prompt: Capacity;
  mixed: Capacity;
  decode: Capacity[];
  cacheBytes: number;
  stateBytes: number;
  /** The arena: the largest program's. */
  scratchBytes: number;
  convertedBytes: number;
  /** Weights as stored, where they are copied to the device. */
  weightBytes: number;
  sharding: Sharding;
  /** What other ranks write into; through NCCL also what they get. 0 without any. */
  windowBytes: number;
  /** All that is allocated: caches, state, scratch, window, converted weights, and on a GPU all weights. */
  allocatedBytes: number;
}

/** Rows, and entries of a plan, are int32 in the operations. */
const MOST_ROWS = 2 ** 31 - 1;

/**
 * Decides every size. "auto" caches hold `maxSequences` whole contexts, or half (GPU: 90 %) of the memory that is left beside the rest if
 * that is less.
 *
 * @throws LongcatError OUT_OF_MEMORY if the caches would not hold one block, or if all together is more than what is there;
 * OPTION_INVALID if a step has more picks of experts than can be numbered.
 */
export function sizeModel(config: ModelConfig, options: SizingOptions, numCaches: number): ModelSizes {
  checkPicks(config, options);
  const { cacheBytes, maxSequences, kind = "cpu" } = options;
  const blockBytes = cacheBytesPerToken(config, numCaches, cacheDTypeOf(options)) * BLOCK_SIZE;
  const available = (options.availableBytes ?? availableMemoryBytes()) - (kind === "cuda" ? GPU_MARGIN_BYTES : 0);
  const wanted = Math.min(maxSequences * Math.ceil(config.maxPositionEmbeddings / BLOCK_SIZE), Math.floor(MOST_ROWS / BLOCK_SIZE));
  const sizesOf = (numBlocks: number): ModelSizes => sizesWith(config, options, numCaches, numBlocks);
  if (cacheBytes === "auto") {
    const numBlocks = mostBlocks(wanted, (blocks) => {
      const sizes = sizesOf(blocks);
      return sizes.allocatedBytes - sizes.cacheBytes + sizes.cacheBytes / AUTO_CACHE_SHARE[kind] <= available;
    });
    const sizes = sizesOf(Math.max(numBlocks, 1));
    if (sizes.allocatedBytes > available) throw outOfMemory(sizes, available, 0);
    return sizes;
  }
  const numBlocks = cacheBytes === "least" ? 1 : Math.min(wanted, Math.floor(cacheBytes / blockBytes));
  if (numBlocks < 1) {
    throw new LongcatError(
      "OUT_OF_MEMORY",
      `the latent caches need at least ${blockBytes} bytes (one block of ${BLOCK_SIZE} tokens), cacheBytes allows ${cacheBytes}`,
    );
  }
  const sizes = sizesOf(numBlocks);
  if (sizes.allocatedBytes > available) {
    const fitting = mostBlocks(numBlocks, (blocks) => sizesOf(blocks).allocatedBytes <= available);
    throw outOfMemory(sizes, available, fitting * blockBytes);
  }
  return sizes;
}

/** What of it comes from the memory that a GPU is asked for in one piece: not a window that others map. */
export function reservedBytes({ allocatedBytes, windowBytes, sharding }: ModelSizes): number {
  return sharding.throughNccl ? allocatedBytes : allocatedBytes - windowBytes;
}

function cacheDTypeOf({ cacheDType = "auto", activationDType = "float32" }: SizingOptions): CacheDType {
  return cacheDType === "auto" ? activationDType : cacheDType;
}

/** Every size that follows from the number of cache blocks. None falls when that grows. */
function sizesWith(config: ModelConfig, options: SizingOptions, numCaches: number, numBlocks: number): ModelSizes {
  const { maxSequences, maxBatchTokens, convertedBytes = 0, weightBytes = 0, kind = "cpu" } = options;
  const { activationDType = "float32", maxDrafts = 0, sharding = ONE_RANK } = options;
  const contextLength = Math.min(config.maxPositionEmbeddings, numBlocks * BLOCK_SIZE);
  const cacheDType = cacheDTypeOf(options);
  const state: StateSizes = { maxSequences, contextLength, blockSize: BLOCK_SIZE, numBlocks, numCaches, cacheDType, maxDrafts };
  const mostAtOnce = Math.min(maxSequences, maxBatchTokens);
  const decode = buckets(mostAtOnce).map((batch) => decodeCapacity(batch, state, sharding));
  const largest = withDrafts(decode.at(-1)!, maxDrafts, maxBatchTokens);
  const expandedRows = kind === "cuda" ? roundUp(Math.min(MOST_EXPANDED_ROWS, 2 * maxBatchTokens), KEY_TILE) : 0;
  const prompt: Capacity = {
    tokens: maxBatchTokens,
    sequences: mostAtOnce,
    logitRows: Math.max(mostAtOnce, PROMPT_LOGIT_ROWS),
    // Drafts behind the first are made of a row that decodes.
    splits: maxDrafts > 1 ? decode.at(-1)!.splits : 1,
    drafts: maxDrafts,
    ...{ ...sharding, expandedRows },
    latentRows: cacheDType === "fp8" || activationDType === "bfloat16" ? expandedRows : 0,
  };
  const mixed: Capacity = { ...prompt, logitRows: Math.max(largest.logitRows, PROMPT_LOGIT_ROWS), splits: largest.splits };
  const bytes = {
    cacheBytes: numBlocks * BLOCK_SIZE * cacheBytesPerToken(config, numCaches, cacheDType),
    stateBytes: stateBytes(config, state) + (kind === "cuda" ? GPU_SLACK_BYTES : 0),
    scratchBytes: Math.max(...[prompt, mixed, largest, ...decode].map((capacity) => programBytes(config, capacity, activationDType))),
    windowBytes: windowBytes(config, { ...sharding, tokens: maxBatchTokens, activationDType }),
    convertedBytes,
    weightBytes,
  };
  const allocatedBytes = Object.values(bytes).reduce((sum, part) => sum + part, 0);
  return { ...state, activationDType, maxBatchTokens, sharding, prompt, mixed, decode, ...bytes, allocatedBytes };
}

/** The largest number of blocks from 1 to `wanted` that fits; 0 if none does. */
function mostBlocks(wanted: number, fits: (numBlocks: number) => boolean): number {
  let [low, high] = [0, wanted];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (fits(middle)) low = middle;
    else high = middle - 1;
  }
  return low;
}

function outOfMemory(sizes: ModelSizes, available: number, fittingCacheBytes: number): LongcatError {
  const { allocatedBytes, cacheBytes, stateBytes, scratchBytes, windowBytes, convertedBytes, weightBytes, sharding } = sizes;
  const weights = weightBytes > 0 ? `weights ${weightBytes}, ` : "";
  const window = windowBytes > 0 ? `, window of the exchange ${windowBytes}` : "";
  const parts = `${weights}latent caches ${cacheBytes}, state ${stateBytes}, scratch ${scratchBytes}${window}, converted weights ${convertedBytes}`;
  const growing = "since scratch and window have room for the rows of all ranks";
  const ofRanks = sharding.ranks > 1;
  const remedy =
    fittingCacheBytes > 0
      ? `cacheBytes: ${fittingCacheBytes} would fit${ofRanks ? `, more with a lower maxBatchTokens, ${growing}` : ""}`
      : weightBytes + convertedBytes > available
        ? `the weights alone do not fit${convertedBytes > 0 ? '; leave dtype at "auto"' : ""}`
        : `no cacheBytes would fit; lower ${ofRanks ? `maxBatchTokens, ${growing}` : "maxSequences or maxBatchTokens"}${convertedBytes > 0 ? ', or leave dtype at "auto"' : ""}`;
  return new LongcatError(
    "OUT_OF_MEMORY",
    `asked for ${allocatedBytes} bytes (${parts}), ${Math.max(0, Math.floor(available))} are there; ${remedy}`,
  );
}

/** moe_route numbers the picks of a step, ep_dispatch those of all ranks' steps. */
function checkPicks(config: ModelConfig, { maxBatchTokens, sharding: { ranks } = ONE_RANK }: SizingOptions): void {
  const { topK } = config;
  const most = Math.floor(MOST_ROWS / Math.max(topK, ranks * slotsOfRank(config, ranks)));
  if (maxBatchTokens <= most) return;
  const together = ranks > 1 ? ` on ${ranks} ranks` : "";
  throw new LongcatError(
    "OPTION_INVALID",
    `maxBatchTokens: ${maxBatchTokens} is not accepted: with topK ${topK} (moe_topk)${together} a step may have at most ${most} tokens`,
  );
}

/** Batch sizes that get a program: the powers of two below `largest`, and `largest`. */
function buckets(largest: number): number[] {
  return [...BUCKETS.filter((batch) => batch < largest), largest];
}

/**
 * Splits of a decode step: every row may be long, but all rows together hold little more than the cache does. Twice the cache leaves
 * room for rows that share blocks; the runner cuts a step in two where even that is not enough.
 */
function decodeCapacity(batch: number, sizes: StateSizes, sharding: Sharding): Capacity {
  const longest = batch * Math.ceil(sizes.contextLength / SPLIT_KEYS);
  const held = batch + Math.ceil((2 * sizes.numBlocks * sizes.blockSize) / SPLIT_KEYS);
  const rows = { tokens: batch, sequences: batch, logitRows: batch };
  return { ...rows, ...sharding, splits: Math.min(longest, held), drafts: 0, expandedRows: 0, latentRows: 0 };
}

/** A decode program for as many sequences, each with so many drafts behind its newest token. */
export function withDrafts(capacity: Capacity, drafts: number, maxBatchTokens: number): Capacity {
  const tokens = Math.max(capacity.sequences, Math.min(capacity.sequences * (drafts + 1), maxBatchTokens));
  return { ...capacity, tokens, logitRows: tokens, splits: capacity.splits * (drafts + 1), drafts };
}

function roundUp(count: number, multiple: number): number {
  return Math.ceil(count / multiple) * multiple;
}
