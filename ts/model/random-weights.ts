/**
 * A model of given sizes with random weights, made on the device: for measuring models that nobody has at hand. The weights are laid
 * out and placed as a checkpoint's are (ts/model/weights.ts); only where a file would be read, `random_fill` runs.
 *
 * *Experts held.* All experts exist for the router, but only `expertsHeld` of them are stored: expert e is expert e mod `expertsHeld`, so that
 * a step routes and plans as with all of them and reads as many matrices, some of them more than once. With few held and a small batch a
 * GPU may find one in its cache that was read shortly before. *One rank of many* has stacks of the held experts alone, and needs a plan that
 * knows no others (ts/engine/rank-plan.ts). With `parallel` a rank holds its own experts and exchanges rows with the others, as a rank with a checkpoint
 * does: a tensor has the same numbers on every rank that holds it, and on one rank alone.
 *
 * *Scales.* Matrices are uniform in ±√(3/K), K columns, and keep the variance of their input; embeddings have variance 1; norms lie around 1.
 * @module
 */

import { LongcatError } from "../errors.js";
import { availableMemoryBytes } from "../runtime/addon.js";
import type { NativeMappedFile } from "../runtime/binding.js";
import { Device, Queue, type Tensor } from "../runtime/device.js";
import { bytesOf, DTYPES, type DType } from "../runtime/dtype.js";
import { chooseDevice, withoutEffect } from "../runtime/gpus.js";
import { ops } from "../runtime/ops.js";
import { type Checkpoint, type ExpertRange, forExperts, type StoredTensor } from "./checkpoint.js";
import { type ModelConfig, numNgramTables } from "./config.js";
import { expertRange, type ModelParallel, type Sharding, shareOfMemory } from "./exchange.js";
import { openExchange, settleSharding } from "./open-exchange.js";
import { type ModelPlan, planModel } from "./plan.js";
import { checkRing, Runner } from "./runner.js";
import { type ModelSizes, reservedBytes } from "./sizing.js";
import { modelTensors, scaleName, scaleShape, type TensorSpec } from "./tensor-names.js";
import { isNgramTable, loadWeights } from "./weights.js";

/** What the layers' matrices may be made of. */
export const RANDOM_DTYPES = ["bfloat16", "fp8", "float32"] as const;
export type RandomDType = (typeof RANDOM_DTYPES)[number];

/** Which model. */
export interface RandomModelSpec {
  config: ModelConfig;
  /** Of the layers' matrices; the rest is bfloat16 (with float32: float32), router and its bias float32. */
  dtype: RandomDType;
  /** FFN experts that are stored in a layer; default: all. */
  expertsHeld?: number;
  /** Whether it has a draft head. Default: no. */
  draftHead?: boolean;
  /** The layers' stacks have the held experts alone. */
  oneRank?: boolean;
  /** Layers with experts of their own; layer l has those of layer l mod `expertLayers`. Default: all. */
  expertLayers?: number;
}

/** Where and how large. */
export interface RandomModelOptions {
  /** "cpu", "cuda", "cuda:N" or "auto". */
  device: string;
  threads: number | "auto";
  maxSequences: number;
  maxBatchTokens: number;
  /** Positions of each sequence: the caches hold `maxSequences` times as many. */
  contextLength: number;
  /** Most drafts that a step verifies of a sequence, given a draft head. Default 0. */
  maxDrafts?: number;
  /** GPU and fp8: quantise the inputs of products too. */
  fp8Activations?: boolean;
  /** GPU: a row's bits do not depend on the others of its batch. Default true. */
  batchInvariant?: boolean;
  /** What the latent caches hold. Default "auto": what activations are. */
  cacheDType?: "auto" | "fp8";
  /** One rank of several; all of them are to have the same options. Default: all experts are here. */
  parallel?: ModelParallel;
  signal?: AbortSignal;
}

/** A model with random weights. */
export interface RandomModel {
  runner: Runner;
  config: ModelConfig;
  sizes: ModelSizes;
  /** Its tensors as a checkpoint's headers would list them, every expert counted. */
  headers: Pick<Checkpoint, "config" | "specs" | "tensors">;
  /** Bytes of weights that are stored. */
  weightBytes: number;
  /** What is not as in the real model or as it was asked for, one sentence each. */
  notes: string[];
  close(): Promise<void>;
}

/** On the CPU, n-gram tables take no more than this together: far more than any cache, so that rows come from memory, as in the real ones. */
export const MOST_NGRAM_BYTES = 2 * 1024 ** 3;

/** With a GPU they lie in pinned host memory, as they would there, and take at most this share of what is free. */
const NGRAM_HOST_SHARE = 0.5;

/**
 * Makes a model with random weights; the same bits on every device.
 *
 * @throws LongcatError OPTION_INVALID for experts that do not exist or cannot be shared out, or fp8Activations without a GPU and FP8; OUT_OF_MEMORY,
 * DEVICE_UNAVAILABLE, COMM_ERROR
 */
export async function openRandomModel(spec: RandomModelSpec, options: RandomModelOptions): Promise<RandomModel> {
  checkSpec(spec);
  const config = { ...spec.config, maxPositionEmbeddings: options.contextLength };
  const choice = chooseDevice(options.device);
  const mostNgramBytes = choice.kind === "cuda" ? NGRAM_HOST_SHARE * availableMemoryBytes() : MOST_NGRAM_BYTES;
  const { parallel } = options;
  const range = parallel && expertRange(config, parallel);
  const { full, held, notes } = randomHeaders({ ...spec, config }, mostNgramBytes, range);
  if (options.fp8Activations && (choice.kind === "cpu" || spec.dtype !== "fp8"))
    throw new LongcatError("OPTION_INVALID", "fp8Activations needs a GPU and dtype fp8");
  const { threads, fp8Activations, batchInvariant } = options;
  notes.push(...withoutEffect(choice, { threads, batchInvariant }));
  const device = Device.open({
    device: choice.kind === "cpu" ? "cpu" : `cuda:${choice.gpu.ordinal}`,
    threads,
    fp8Activations,
    batchInvariant,
  });
  try {
    const { sizes } = planFor(device, held, options, await settleSharding(parallel, device));
    checkRing(device, config, sizes);
    device.reserve(reservedBytes(sizes));
    const exchange = parallel && (await openExchange(device, parallel, config, sizes));
    const maker = new Maker(device, { ...spec, config }, full);
    const experts = spec.oneRank ? { first: 0, count: spec.expertsHeld ?? config.numExperts } : range;
    const weights = await loadWeights(device, full, { dtype: "auto", ngram: "host", make: (name) => maker.make(name), experts });
    await maker.fill(options.signal);
    const runner = new Runner(device, config, weights, sizes, exchange && { exchange, lockstep: parallel.lockstep });
    return { runner, config, sizes, headers: full, weightBytes: held.bytes, notes, close: () => runner.close() };
  } catch (error) {
    await device.close();
    throw error;
  }
}

function checkSpec({ config, expertsHeld = config.numExperts }: RandomModelSpec): void {
  if (!(Number.isInteger(expertsHeld) && expertsHeld >= 1 && expertsHeld <= config.numExperts))
    throw new LongcatError("OPTION_INVALID", `experts held: ${expertsHeld} is not accepted: the model has 1 to ${config.numExperts}`);
}

/** Sizes, with weights that take memory on the CPU too, and caches for whole contexts of all sequences or none. */
function planFor(device: Device, held: Checkpoint, options: RandomModelOptions, sharding: Sharding): ModelPlan {
  const { maxSequences, maxBatchTokens, contextLength, maxDrafts, cacheDType, parallel } = options;
  const { kind } = device;
  const availableBytes = kind === "cuda" ? device.freeBytes : (shareOfMemory(parallel) ?? availableMemoryBytes()) - held.bytes;
  if (availableBytes < 0)
    throw new LongcatError(
      "OUT_OF_MEMORY",
      `asked for ${held.bytes} bytes of weights, ${held.bytes + Math.floor(availableBytes)} are there`,
    );
  const shared = { kind, dtype: "auto", ngram: kind === "cuda" ? "host" : "auto", maxSequences, maxBatchTokens, maxDrafts } as const;
  const caches = { cacheBytes: "auto", cacheDType } as const;
  const plan = planModel(held, { ...shared, ...caches, availableBytes, freeBytes: availableBytes, sharding });
  const { numBlocks, blockSize, cacheBytes } = plan.sizes;
  const wanted = maxSequences * Math.ceil(contextLength / blockSize);
  if (numBlocks < wanted)
    throw new LongcatError(
      "OUT_OF_MEMORY",
      `asked for ${Math.ceil(wanted * (cacheBytes / numBlocks))} bytes of latent caches for ${maxSequences} sequences of ${contextLength} tokens, ` +
        `${cacheBytes} are there beside the rest; lower batch or context`,
    );
  return plan;
}

/** The name of the tensor that stands for `name`: another one where not every expert is held. */
function heldName(name: string, { config, expertsHeld = config.numExperts, expertLayers = config.numLayers }: RandomModelSpec): string {
  return name.replace(
    /^model\.layers\.(\d+)\.mlp\.experts\.(\d+)\./,
    (_, layer: string, expert: string) => `model.layers.${Number(layer) % expertLayers}.mlp.experts.${Number(expert) % expertsHeld}.`,
  );
}

/** A file that no tensor is read from. */
const NO_FILE: NativeMappedFile = { path: "random weights", bytes: 0, entries: [], close: () => undefined };

/**
 * Headers of a checkpoint that would hold these weights: all of them, and those that are stored, of the experts those that stand for `range` (default:
 * all). N-gram tables are cut to `mostNgramBytes` together.
 */
export function randomHeaders(
  spec: RandomModelSpec,
  mostNgramBytes = MOST_NGRAM_BYTES,
  range: ExpertRange = { first: 0, count: spec.config.numExperts },
): { full: Checkpoint; held: Checkpoint; notes: string[] } {
  const { config, dtype, draftHead = false } = spec;
  const notes: string[] = [];
  const most = mostNgramRows(config, dtype, mostNgramBytes);
  const specs: TensorSpec[] = [];
  for (const wanted of modelTensors(config)) {
    if (wanted.part === "mtp" && !draftHead) continue;
    const [rows = 0, ...rest] = wanted.shape;
    const cut = isNgramTable(wanted.name) && rows > most;
    specs.push(cut ? { ...wanted, shape: [most, ...rest] } : wanted);
    if (cut && notes.length === 0)
      notes.push(`n-gram tables have ${most} rows instead of ${rows}: ${(mostNgramBytes / 1024 ** 3).toFixed(1)} GiB together`);
  }
  const checkpointOf = (chosen: TensorSpec[]): Checkpoint => {
    const tensors = storedTensors(chosen, dtype);
    let bytes = 0;
    for (const { entry } of tensors.values()) bytes += entry.end;
    const nothing = { dir: "", generationConfig: { eosTokenIds: [] }, hasMtp: draftHead, files: [], warnings: [], close: () => undefined };
    return { ...nothing, config, specs: chosen, tensors, bytes };
  };
  const full = checkpointOf(specs);
  const { expertsHeld = config.numExperts } = spec;
  if (expertsHeld < config.numExperts)
    notes.push(
      `${expertsHeld} of ${config.numExperts} experts are held: ${spec.oneRank ? "one rank of many" : `expert e is expert e mod ${expertsHeld}`}`,
    );
  const stored = new Set(forExperts(full, range).specs.map(({ name }) => heldName(name, spec)));
  return { full, held: checkpointOf(specs.filter(({ name }) => stored.has(name))), notes };
}

/** Entries by name, FP8 matrices with their scales. */
function storedTensors(specs: readonly TensorSpec[], dtype: RandomDType): Map<string, StoredTensor> {
  const tensors = new Map<string, StoredTensor>();
  const add = (name: string, stored: DType, shape: number[]) => {
    const end = shape.reduce((product, n) => product * n, bytesOf(stored));
    tensors.set(name, { file: NO_FILE, entry: { name, dtype: DTYPES.indexOf(stored), storedDtype: stored, shape, begin: 0, end } });
  };
  for (const { name, shape, quantisable } of specs) {
    const quantised = quantisable && dtype === "fp8";
    add(name, dtypeOf(name, quantised, dtype), [...shape]);
    if (quantised) add(scaleName(name), "float32", scaleShape(shape));
  }
  return tensors;
}

function dtypeOf(name: string, quantised: boolean, dtype: RandomDType): DType {
  if (quantised) return "float8_e4m3";
  return dtype === "float32" || name.includes(".mlp.router.") ? "float32" : "bfloat16";
}

function mostNgramRows(config: ModelConfig, dtype: RandomDType, mostBytes: number): number {
  const tables = numNgramTables(config.ngram);
  return tables === 0 ? 0 : Math.floor(mostBytes / (config.hiddenSize * bytesOf(dtype === "float32" ? "float32" : "bfloat16")));
}

/** Where a tensor's numbers lie. */
interface Range {
  low: number;
  high: number;
}

/** e4m3's largest number. */
const FP8_LARGEST = 448;

function around(centre: number, half: number): Range {
  return { low: centre - half, high: centre + half };
}

/** By name and shape (of a matrix's scales: of the matrix). */
function rangeOf(name: string, shape: readonly number[], fp8: boolean, config: ModelConfig): Range {
  const unit = Math.sqrt(3 / (shape[1] ?? 1));
  if (name.endsWith("_scale_inv")) return around(unit / FP8_LARGEST, (0.25 * unit) / FP8_LARGEST);
  if (name.endsWith("norm.weight") || /_layernorm\.\d\.weight$/.test(name)) return around(1, 0.25);
  // So much that it can change a choice: a probability is about 1 / (N + Z).
  if (name.endsWith("e_score_correction_bias")) return around(0, 0.1 / (config.numExperts + config.numZeroExperts));
  if (name.endsWith(".bias")) return around(0, 0.1);
  if (name === "model.embed_tokens.weight" || isNgramTable(name)) return around(0, Math.sqrt(3));
  return around(0, fp8 ? FP8_LARGEST : unit);
}

/** Fills wait for room in the ring, so many commands at a time. */
const FILLS_AT_A_TIME = 16;

/** Makes tensors by name, each held one once, and fills them afterwards. */
class Maker {
  readonly #device: Device;
  readonly #spec: RandomModelSpec;
  readonly #headers: Checkpoint;
  readonly #made = new Map<string, Tensor>();
  /** A tensor's place in the whole model, which is its seed. */
  readonly #seeds: ReadonlyMap<string, number>;

  constructor(device: Device, spec: RandomModelSpec, headers: Checkpoint) {
    this.#device = device;
    this.#spec = spec;
    this.#headers = headers;
    this.#seeds = new Map([...headers.tensors.keys()].map((name, i) => [name, i]));
  }

  make(name: string): Tensor {
    const held = heldName(name, this.#spec);
    let tensor = this.#made.get(held);
    if (!tensor) {
      const { entry } = this.#headers.tensors.get(held)!;
      tensor = this.#device.tensor(DTYPES[entry.dtype]!, entry.shape, isNgramTable(held) ? "host" : "device");
      this.#made.set(held, tensor);
    }
    return tensor;
  }

  /** On queue 0, which the runner's steps will run on. */
  async fill(signal: AbortSignal | undefined): Promise<void> {
    const queue = new Queue(this.#device, 0);
    for (const [name, out] of this.#made) {
      signal?.throwIfAborted();
      if (!queue.hasRoom(FILLS_AT_A_TIME)) await queue.room();
      const matrix = this.#headers.tensors.get(name.replace(/_scale_inv$/, ""))!.entry;
      const range = rangeOf(name, matrix.shape, out.dtype === "float8_e4m3", this.#spec.config);
      ops.randomFill(queue, { out, seed: this.#seeds.get(name)!, ...range });
    }
    await queue.done();
  }
}
