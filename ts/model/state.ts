/**
 * What outlives a step on a device: latent caches, block tables, token histories, sampling state.
 * @module
 */

import type { Device, Tensor } from "../runtime/device.js";
import { bytesOf, type DType } from "../runtime/dtype.js";
import type { ActivationDType } from "./activations.js";
import { ADJUSTMENT_WORDS, maxAdjustments } from "./adjustments.js";
import type { ModelConfig } from "./config.js";

/** What the latent caches hold: what activations are, or packed latents (native/ops/latent_cache.h), about half of bfloat16's bytes. */
export type CacheDType = ActivationDType | "fp8";

/** Sizes of the state. */
export interface StateSizes {
  maxSequences: number;
  /** Positions of a sequence. */
  contextLength: number;
  /** Rows of a cache block. */
  blockSize: number;
  numBlocks: number;
  /** Latent caches: two a layer, and the draft head's. */
  numCaches: number;
  /**
   * Most drafts that a step verifies. Where there are any, the state has a slot and a block more than sequences use: rows that turn out to
   * have no place run there (native/ops/step_plan/params.h).
   */
  maxDrafts: number;
  cacheDType: CacheDType;
}

/** Columns of the sampling parameters (native/ops/sample/params.h). */
export const SampleField = {
  temperature: 0,
  topP: 1,
  topK: 2,
  minP: 3,
  repetition: 4,
  presence: 5,
  frequency: 6,
  seed: 7,
  forced: 8,
  useBias: 9,
  useMask: 10,
  numLogprobs: 11,
  hostDraw: 12,
} as const;
/** How many there are. */
export const NUM_SAMPLE_FIELDS = 13;

/** S slots, V vocabulary. */
export interface ModelState<T = Tensor> {
  /** Each [blocks, blockSize, kvRank+rope], in the activations' dtype; packed: uint8 [blocks, blockSize, latentRowBytes]. */
  caches: T[];
  /** [S or, with a spare slot, S+1, maxBlocks] i32 */
  blockTables: T;
  /** [S or S+1, contextLength] i32 token ids. */
  history: T;
  /** [S] i32: position of each slot's newest token, which is the next to be run. */
  lengths: T;
  /** [S, 13] f64 */
  sampleParams: T;
  /** [ceil(V/32)] bits: ids that may be sampled. */
  allowed: T;
  /** [S, maxAdjustments, 3] i32: id, count and bias (float32) of the ids that a slot's penalties and biases change, by ascending id. */
  adjustments: T;
  /** [S] i32 */
  numAdjustments: T;
  /** [S, ceil(V/32)] bits */
  mask: T;
}

/** Makes the state; `make` allocates, or counts. */
function createState<T>(config: ModelConfig, sizes: StateSizes, make: (dtype: DType, shape: number[]) => T): ModelState<T> {
  const { maxSequences: S, contextLength, blockSize, numCaches, cacheDType } = sizes;
  const slots = S + spare(sizes);
  const blocks = cacheBlocks(sizes);
  const V = config.vocabSize;
  const words = Math.ceil(V / 32);
  const cache = () =>
    cacheDType === "fp8"
      ? make("uint8", [blocks, blockSize, latentRowBytes(config, cacheDType)])
      : make(cacheDType, [blocks, blockSize, latentWidth(config)]);
  return {
    caches: Array.from({ length: numCaches }, cache),
    blockTables: make("int32", [slots, blocksPerSequence(sizes)]),
    history: make("int32", [slots, contextLength]),
    lengths: make("int32", [S]),
    sampleParams: make("float64", [S, NUM_SAMPLE_FIELDS]),
    allowed: make("int32", [words]),
    adjustments: make("int32", [S, maxAdjustments({ vocabulary: V, contextLength }), ADJUSTMENT_WORDS]),
    numAdjustments: make("int32", [S]),
    mask: make("int32", [S, words]),
  };
}

/** The state as zeroed tensors of a device. */
export function allocateState(device: Device, config: ModelConfig, sizes: StateSizes): ModelState {
  return createState(config, sizes, (dtype, shape) => device.tensor(dtype, shape));
}

/** Bytes of the state beside the blocks that sequences use. Pure. */
export function stateBytes(config: ModelConfig, sizes: StateSizes): number {
  let bytes = spare(sizes) * sizes.blockSize * cacheBytesPerToken(config, sizes.numCaches, sizes.cacheDType);
  createState(config, { ...sizes, numCaches: 0 }, (dtype, shape) => {
    bytes += shape.reduce((product, n) => product * n, bytesOf(dtype));
  });
  return bytes;
}

/** Slots and blocks beside those that sequences use. */
function spare({ maxDrafts }: Pick<StateSizes, "maxDrafts">): number {
  return maxDrafts > 0 ? 1 : 0;
}

/** Blocks of each cache: those of sequences and, behind them, the spare slot's. */
export function cacheBlocks(sizes: Pick<StateSizes, "numBlocks" | "maxDrafts">): number {
  return sizes.numBlocks + spare(sizes);
}

/** Numbers in a cache row: latent, then rope key. */
export function latentWidth(config: ModelConfig): number {
  return config.kvLoraRank + config.qkRopeHeadDim;
}

/** Numbers of a packed latent that have a scale together, and bytes that each part of a packed row is a multiple of (native/ops/latent_cache.h). */
const SCALED_LATENTS = 128;
const PACKED_ALIGNMENT = 16;

/** Bytes of a cache row. Packed: codes, rope key as bfloat16, float32 scales. */
export function latentRowBytes(config: Pick<ModelConfig, "kvLoraRank" | "qkRopeHeadDim">, cacheDType: CacheDType): number {
  const { kvLoraRank, qkRopeHeadDim } = config;
  if (cacheDType !== "fp8") return (kvLoraRank + qkRopeHeadDim) * bytesOf(cacheDType);
  const parts = [kvLoraRank, 2 * qkRopeHeadDim, 4 * Math.ceil(kvLoraRank / SCALED_LATENTS)];
  return parts.reduce((bytes, part) => bytes + Math.ceil(part / PACKED_ALIGNMENT) * PACKED_ALIGNMENT, 0);
}

/** Latent caches of a model: two a layer, and one for its draft head where that is used. */
export function numCaches(config: ModelConfig, draftHead: boolean): number {
  return 2 * config.numLayers + (draftHead ? 1 : 0);
}

/** Bytes of cache for one position, all caches together. */
export function cacheBytesPerToken(config: ModelConfig, numCaches: number, cacheDType: CacheDType): number {
  return numCaches * latentRowBytes(config, cacheDType);
}

/** Entries of a block table row. */
export function blocksPerSequence(sizes: { contextLength: number; blockSize: number }): number {
  return Math.ceil(sizes.contextLength / sizes.blockSize);
}
