/**
 * The engine's options: their names, defaults and checks, in one place.
 * @module
 */

import { abortSignal, absent, boolean, callback, integer, invalid, oneOf, record, rejectUnknown } from "../checks.js";
import { LongcatError } from "../errors.js";
import type { DraftDemand } from "../model/checkpoint.js";
import type { ParallelOptions } from "../parallel/group.js";
import { MAX_THREADS } from "../runtime/device.js";

/** How far a load has come. */
export interface LoadProgress {
  /** Bytes of weights made ready so far, and in all. */
  doneBytes: number;
  totalBytes: number;
}

/**
 * Expert parallelism. Every rank is a process with a device of its own: it holds an equal share of the experts of every layer and all the rest of
 * the model, and runs sequences of its own. `maxSequences`, `maxBatchTokens` and `cacheBytes` are each rank's.
 */
export interface ParallelEngineOptions {
  /** Ranks. Default 1; a divisor of the model's FFN experts. */
  expert?: number | null;
  /**
   * How rows travel between ranks: `"peer"` writes into the other ranks' memory, which they share on one host; `"nccl"` sends them with NCCL,
   * between GPUs and over the network; `"auto"` (default): peer where all ranks reach each other's memory, which a load tries.
   */
  exchange?: "auto" | "peer" | "nccl" | null;
  /** What rows are sent to experts as: what activations are (`"auto"`, the default), or `"fp8"`: e4m3 with a scale for each 128 numbers, other numbers. */
  dispatchDType?: "auto" | "fp8" | null;
  /**
   * Milliseconds that ranks may take to connect to the leader before a load is given up with `COMM_ERROR`: `"auto"` (default) is 60,000 where all are on
   * one host, and 600,000 on several. At least 1000.
   */
  joinTimeoutMs?: "auto" | number | null;
  /**
   * Milliseconds that a rank waits for another one within a step before the group is given up with `COMM_ERROR`: `"auto"` (default) is 30,000 on GPUs,
   * and 300,000 on CPUs, where a step may take so long. At least 2000.
   */
  timeoutMs?: "auto" | number | null;
}

/**
 * Options of {@link Engine.load}. `undefined` and `null` mean absent; an unknown name or impossible value is `OPTION_INVALID`.
 *
 * @example
 * await Engine.load("path/to/checkpoint", { device: "cpu", threads: 4, maxSequences: 16 });
 */
export interface EngineOptions {
  /**
   * Where to run: `"auto"` (default: the first GPU, or the CPU where there is none), `"cpu"`, `"cuda"`, `"cuda:1"`. A device that is not
   * there is `DEVICE_UNAVAILABLE`, which names what was missing.
   */
  device?: "auto" | "cpu" | "cuda" | `cuda:${number}` | null;
  /**
   * The layers' matrices as stored (`"auto"`, the default) or converted at load, which takes memory for the copies. Head, embedding,
   * norms, router and n-gram tables keep their stored dtype. On a GPU it decides what is computed in: float32 matrices make float32
   * activations, all others bfloat16 (`engine.info.activations`).
   */
  dtype?: "auto" | "bfloat16" | "float32" | null;
  /**
   * CPU threads: 1 … 1024, or `"auto"` (default): what affinity and container quota allow. Waiting threads sleep. A model on a GPU uses none:
   * a number is then a warning.
   */
  threads?: "auto" | number | null;
  /** Expert parallelism: several ranks, each with a share of every layer's experts. Default one rank, in this process. */
  parallel?: ParallelEngineOptions | null;
  /** Most tokens in one step, 1 … 65,536, default 4096. Longer prompts run in chunks, with the same result. */
  maxBatchTokens?: number | null;
  /** Most sequences that run at once, 1 … 4096, default 64. Others wait their turn. */
  maxSequences?: number | null;
  /**
   * Memory of the latent cache in bytes, or `"auto"` (default): whole contexts for `maxSequences`, or half of what is free beside the
   * rest if that is less (on a GPU 90 %, after 512 MiB for recorded graphs). It may shorten the context. More than is there, together with
   * all else that a load allocates, is `OUT_OF_MEMORY`. On the CPU mapped weights are not counted; on a GPU they are.
   */
  cacheBytes?: "auto" | number | null;
  /**
   * What the latent cache holds: what activations are (`"auto"`, the default), or `"fp8"`: latents as e4m3 with a scale for each 128 numbers, rope keys
   * as bfloat16. That takes 57 % of bfloat16's memory with LongCat-Flash's sizes, 28 % of float32's on the CPU, so that more or longer sequences fit,
   * and changes the numbers.
   */
  cacheDType?: "auto" | "fp8" | null;
  /**
   * Reuse of what the latent cache still has of earlier prompts: a prompt that begins as one before it runs from where they part, in full
   * blocks (`usage.cachedTokens`), with the same bits. `true` (default) reuses what prompts made; `"all"` what decoding made too (an answer
   * that comes back as a chat's history), whose bits may differ from those of the same tokens as a prompt; `false` nothing.
   */
  prefixCache?: boolean | "all" | null;
  /**
   * Same bits alone and in any batch; default `true`. `false` lets a GPU cut its work as suits the batch of the moment, which is faster for some
   * shapes; the CPU keeps the bits the same all the same, and says so in a warning.
   */
  batchInvariant?: boolean | null;
  /**
   * Speculative decoding with the checkpoint's draft head: a step verifies tokens that the head has foreseen, and draws one more than it
   * accepts. The answer is the same, token by token and bit by bit; with `batchInvariant: false` on a Hopper GPU drafts may change it as
   * other rows of a batch may. `"auto"` (default) takes as many drafts as pay at the moment, none where they do not or where there is no
   * draft head; `"off"` none; `{ drafts: 1 … 4 }` always so many, and needs a draft head.
   */
  speculative?: "auto" | "off" | { drafts: number } | null;
  /** Load a checkpoint with tensors that are not known; default `false`. */
  allowUnknownTensors?: boolean | null;
  /** `"sync"` checks after each operation; `"poison"` fills outputs and scratch with 0xFF bytes before each operation. Default `"off"`. */
  debug?: "off" | "sync" | "poison" | null;
  /**
   * Where LongCat-Flash-Lite's n-gram tables live: `"host"`, of which a GPU reads rows over the bus; `"device"`, which needs a GPU; `"auto"`
   * (default): on a GPU if they take at most a third of what is free there beside the rest. The results are the same bits. A place for the
   * tables of a model that has none is a warning.
   */
  ngram?: "auto" | "host" | "device" | null;
  /**
   * Quantise the inputs of products with FP8 weights as well, per 128 channels; default `false`, since it changes the numbers. Needs a GPU
   * and block-FP8 weights that stay as stored.
   */
  fp8Activations?: boolean | null;
  /** Stops a load. */
  signal?: AbortSignal | null;
  /** Called while weights are made ready. */
  onProgress?: ((progress: LoadProgress) => void) | null;
  /** Called with each warning of a load; default: `process.emitWarning`. */
  onWarning?: ((message: string) => void) | null;
}

/** Options after checking, every default filled in. */
export interface ResolvedOptions {
  device: string;
  dtype: "auto" | "bfloat16" | "float32";
  threads: "auto" | number;
  parallel: ParallelOptions;
  maxBatchTokens: number;
  maxSequences: number;
  cacheBytes: "auto" | number;
  cacheDType: "auto" | "fp8";
  prefixCache: boolean | "all";
  batchInvariant: boolean;
  speculative: "auto" | "off" | { drafts: number };
  allowUnknownTensors: boolean;
  debug: "off" | "sync" | "poison";
  ngram: "auto" | "host" | "device";
  fp8Activations: boolean;
  signal?: AbortSignal;
  onProgress?: (progress: LoadProgress) => void;
  onWarning: (message: string) => void;
}

/** What each absent option means. */
export const DEFAULT_OPTIONS: Readonly<ResolvedOptions> = {
  device: "auto",
  dtype: "auto",
  threads: "auto",
  parallel: { expert: 1, exchange: "auto", dispatchDType: "auto", joinTimeoutMs: "auto", timeoutMs: "auto" },
  maxBatchTokens: 4096,
  maxSequences: 64,
  cacheBytes: "auto",
  cacheDType: "auto",
  prefixCache: true,
  batchInvariant: true,
  speculative: "auto",
  allowUnknownTensors: false,
  debug: "off",
  ngram: "auto",
  fp8Activations: false,
  onWarning: (message) => process.emitWarning(message, "LongcatWarning"),
};

/** Least of `parallel.joinTimeoutMs` and `timeoutMs`: ranks are told after a second that their device waits. Most of both. */
const LEAST_JOIN_MS = 1000;
const LEAST_TIMEOUT_MS = 2000;
const LONGEST_TIMEOUT_MS = 24 * 3600 * 1000;

/** Drafts that a step may verify for a sequence. */
export const MOST_DRAFTS = 4;

/** Drafts that `"auto"` considers. */
export const MOST_AUTO_DRAFTS = 3;

/** Drafts that a step may come to verify for a sequence under these options, with a checkpoint that has a draft head. */
function mostDrafts({ speculative, maxBatchTokens }: ResolvedOptions): number {
  if (typeof speculative === "object") return speculative.drafts;
  return speculative === "auto" ? Math.min(MOST_AUTO_DRAFTS, maxBatchTokens - 1) : 0;
}

/** What resolved options ask of a checkpoint's draft head. */
export function draftDemand(resolved: ResolvedOptions): DraftDemand {
  return { maxDrafts: mostDrafts(resolved), needsDrafts: typeof resolved.speculative === "object" };
}

/** Every option by name; a missing check does not compile. */
const CHECKS: { [K in keyof Required<EngineOptions>]: (value: unknown, resolved: ResolvedOptions) => void } = {
  device: (value, to) => {
    to.device = checkDevice(value);
  },
  dtype: (value, to) => {
    to.dtype = oneOf(value, "dtype", ["auto", "bfloat16", "float32"]);
  },
  threads: (value, to) => {
    to.threads = value === "auto" ? value : integer(value, "threads", 1, MAX_THREADS, ', or "auto"');
  },
  parallel: (value, to) => {
    to.parallel = checkParallel(value);
  },
  maxBatchTokens: (value, to) => {
    to.maxBatchTokens = integer(value, "maxBatchTokens", 1, 65536);
  },
  maxSequences: (value, to) => {
    to.maxSequences = integer(value, "maxSequences", 1, 4096);
  },
  cacheBytes: (value, to) => {
    to.cacheBytes = value === "auto" ? value : integer(value, "cacheBytes", 1, Number.MAX_SAFE_INTEGER, ' (bytes), or "auto"');
  },
  cacheDType: (value, to) => {
    to.cacheDType = oneOf(value, "cacheDType", ["auto", "fp8"]);
  },
  prefixCache: (value, to) => {
    if (typeof value !== "boolean" && value !== "all") throw invalid("prefixCache", value, 'true, false or "all"');
    to.prefixCache = value;
  },
  batchInvariant: (value, to) => {
    to.batchInvariant = boolean(value, "batchInvariant");
  },
  speculative: (value, to) => {
    to.speculative = checkSpeculative(value);
  },
  allowUnknownTensors: (value, to) => {
    to.allowUnknownTensors = boolean(value, "allowUnknownTensors");
  },
  debug: (value, to) => {
    to.debug = oneOf(value, "debug", ["off", "sync", "poison"]);
  },
  ngram: (value, to) => {
    to.ngram = oneOf(value, "ngram", ["auto", "host", "device"]);
  },
  fp8Activations: (value, to) => {
    to.fp8Activations = boolean(value, "fp8Activations");
  },
  signal: (value, to) => {
    to.signal = abortSignal(value, "signal");
  },
  onProgress: (value, to) => {
    to.onProgress = callback(value, "onProgress") as (progress: LoadProgress) => void;
  },
  onWarning: (value, to) => {
    to.onWarning = callback(value, "onWarning") as (message: string) => void;
  },
};

/** The names of all engine options. */
const ENGINE_OPTION_NAMES = Object.keys(CHECKS) as (keyof EngineOptions)[];

/**
 * Checks options and fills in defaults.
 *
 * @throws LongcatError `OPTION_INVALID`: an unknown name (with the nearest known one), a wrong value, or two options that exclude each other.
 */
export function resolveOptions(options?: EngineOptions | null): ResolvedOptions {
  const input = record(options, "options");
  rejectUnknown(input, ENGINE_OPTION_NAMES, "option");
  const resolved: ResolvedOptions = { ...DEFAULT_OPTIONS };
  for (const name of ENGINE_OPTION_NAMES) if (!absent(input[name])) CHECKS[name](input[name], resolved);
  // With "auto" the load knows which device it got.
  if (resolved.device === "cpu" && resolved.ngram === "device")
    throw new LongcatError("OPTION_INVALID", 'ngram: "device" needs a GPU, and device is "cpu"; give "auto" or "host"');
  if (resolved.device === "cpu" && resolved.fp8Activations)
    throw new LongcatError("OPTION_INVALID", 'fp8Activations: true needs a GPU, and device is "cpu"; give false');
  checkRanks(resolved);
  const rows = mostDrafts(resolved) + 1;
  if (rows > resolved.maxBatchTokens)
    throw new LongcatError(
      "OPTION_INVALID",
      `speculative: ${rows - 1} drafts make ${rows} rows of a sequence, and maxBatchTokens is ${resolved.maxBatchTokens}; give it ${rows} or more`,
    );
  return resolved;
}

function checkDevice(value: unknown): string {
  if (typeof value !== "string" || !/^(auto|cpu|cuda(:(0|[1-9]\d{0,3}))?)$/.test(value))
    throw invalid("device", value, '"auto", "cpu", "cuda" or "cuda:N"');
  return value;
}

function checkParallel(value: unknown): ParallelOptions {
  const input = record(value, "parallel");
  rejectUnknown(input, Object.keys(DEFAULT_OPTIONS.parallel), "option of parallel");
  const given = Object.fromEntries(Object.entries(input).filter(([, one]) => !absent(one)));
  const { expert, exchange, dispatchDType, ...times }: Record<string, unknown> = { ...DEFAULT_OPTIONS.parallel, ...given };
  const time = (name: "joinTimeoutMs" | "timeoutMs", least: number): "auto" | number => {
    const ms = times[name];
    return ms === "auto" ? ms : integer(ms, `parallel.${name}`, least, LONGEST_TIMEOUT_MS, ' (milliseconds), or "auto"');
  };
  const parallel: ParallelOptions = {
    expert: integer(expert, "parallel.expert", 1, Number.MAX_SAFE_INTEGER),
    exchange: oneOf(exchange, "parallel.exchange", ["auto", "peer", "nccl"]),
    dispatchDType: oneOf(dispatchDType, "parallel.dispatchDType", ["auto", "fp8"]),
    joinTimeoutMs: time("joinTimeoutMs", LEAST_JOIN_MS),
    timeoutMs: time("timeoutMs", LEAST_TIMEOUT_MS),
  };
  // What ranks do to each other means nothing to one that is alone.
  const idle = Object.keys(given).find((name) => name !== "expert");
  if (parallel.expert === 1 && idle !== undefined)
    throw new LongcatError("OPTION_INVALID", `parallel.${idle}: needs several ranks, and parallel.expert is 1`);
  return parallel;
}

/** What several ranks cannot have. */
function checkRanks({ device, parallel }: ResolvedOptions): void {
  const { expert, exchange } = parallel;
  if (expert === 1) return;
  if (device.startsWith("cuda:"))
    throw new LongcatError(
      "OPTION_INVALID",
      `device: "${device}" is one GPU, and parallel.expert is ${expert}: each rank has its own; give "cuda", "auto" or "cpu"`,
    );
  if (device === "cpu" && exchange === "nccl")
    throw new LongcatError("OPTION_INVALID", 'parallel.exchange: "nccl" needs GPUs, and device is "cpu"; give "auto" or "peer"');
}

function checkSpeculative(value: unknown): ResolvedOptions["speculative"] {
  if (value === "auto" || value === "off") return value;
  if (typeof value !== "object") throw invalid("speculative", value, `"auto", "off" or { drafts: 1 … ${MOST_DRAFTS} }`);
  const speculative = record(value, "speculative");
  rejectUnknown(speculative, ["drafts"], "option of speculative");
  return { drafts: integer(speculative["drafts"], "speculative.drafts", 1, MOST_DRAFTS) };
}
