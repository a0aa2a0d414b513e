/**
 * How much memory a checkpoint will take, from its headers alone.
 * @module
 */

import { integer } from "../checks.js";
import { availableMemoryBytes } from "../runtime/addon.js";
import { chooseDevice, findGpus, gpuNamed } from "../runtime/gpus.js";
import { bytesOf } from "../runtime/dtype.js";
import type { ActivationDType } from "./activations.js";
import { type Checkpoint, type DraftDemand, forDrafts, forExperts, openCheckpoint } from "./checkpoint.js";
import { expertRange, expertsOfRank, type Sharding } from "./exchange.js";
import { isMeasured, type MeasuredDType } from "./measured-parts.js";
import { exchangeCost, type ExchangeCost, RANKS_PER_HOST, stepTime, type StepTime } from "./parallel-cost.js";
import { type DeviceKind, hasFp8Weights, ngramTableBytes } from "./placement.js";
import { planModel } from "./plan.js";
import { GPU_MARGIN_BYTES } from "./sizing.js";
import { cacheBytesPerToken, type CacheDType } from "./state.js";
import { conversionBytes, type NgramPlace, type WeightDType } from "./weights.js";

/** What to estimate for. */
export interface EstimateSizes extends DraftDemand {
  /** "auto", "cpu", "cuda" or "cuda:N", which need not be there. Default "cpu". */
  device?: string;
  /** Tokens of each sequence, not checked yet; absent: the model's context, which is also the most. */
  context?: number;
  /** Sequences at once. */
  batch: number;
  /** Tokens of one step. */
  maxBatchTokens: number;
  /** What the layers' matrices are converted to. Default "auto": nothing is. */
  dtype?: WeightDType;
  /** What the latent caches hold. Default "auto": what activations are. */
  cacheDType?: "auto" | "fp8";
  /** Where n-gram tables live. Default "auto"; where no GPU can be asked, that is the host. */
  ngram?: "auto" | NgramPlace;
  /** Expert parallelism: all figures are then of one rank. Default 1. */
  ranks?: number;
  /** How rows are dispatched to other ranks. Default "auto": as activations. */
  dispatchDType?: "auto" | "fp8";
  /** How they travel. Default "auto": through NCCL where GPUs are more than a host's. */
  exchange?: "auto" | "peer" | "nccl";
}

/** Bytes, all of them. Mapped weights need memory only as far as they are used, but run fast only if they all fit. */
export interface MemoryEstimate {
  device: DeviceKind;
  context: number;
  batch: number;
  /** Weights that are used of the files: without drafts no draft head, of one of many ranks its experts. N-gram tables are not counted. */
  weightBytes: number;
  /** LongCat-Flash-Lite's n-gram tables: some rows a token are read. */
  ngramBytes: number;
  /** Where they live: the device's memory or the host's, as always on the CPU. */
  ngram: NgramPlace | "none";
  activations: "float32" | "bfloat16";
  /** What the latent caches hold. */
  cacheDType: CacheDType;
  cacheBytesPerToken: number;
  /** Latent caches for batch × context tokens. */
  cacheBytes: number;
  /** Block tables, histories, sampling state. */
  stateBytes: number;
  /** The largest program's intermediate tensors. */
  scratchBytes: number;
  /** What other ranks write into, and what NCCL takes from; 0 without other ranks. */
  windowBytes: number;
  /** Copies of the layers' matrices in another dtype, and on a GPU room for those on their way there; 0 with "auto". */
  convertedBytes: number;
  /** What a load allocates on the device, and refuses if it is more than `availableBytes`: caches, state, scratch, converted; on a GPU all weights too. */
  allocatedBytes: number;
  /** What the device's memory should hold: allocatedBytes; on the CPU also the weights that stay mapped: those in the files without what was converted. */
  totalBytes: number;
  /** Free on the device now; of the CPU's memory an equal part for each rank. Null: that GPU is not here. */
  availableBytes: number | null;
  /** Whether `totalBytes` are there (on a GPU: and 512 MiB for recorded graphs). A load whose mapped weights alone do not fit works, but reads them again and again. Null: not known. */
  fits: boolean | null;
  /** Tokens of cache that fit beside the rest, over all sequences. Null: not known. */
  maxCachedTokens: number | null;
  /** With more than one rank; else null. */
  parallel: ParallelEstimate | null;
}

/** What one of many ranks has beside its memory. */
export interface ParallelEstimate {
  ranks: number;
  /** FFN experts of a layer that a rank holds. */
  expertsHeld: number;
  /** One layer's exchange for a decode step of `batch` tokens a rank: expected rows and bytes. */
  exchange: ExchangeCost;
  /** A decode step by docs/parallel.md's arithmetic, each sequence with `context` cached tokens; null: no parts were measured for this model or device. */
  step: StepTime | null;
}

/**
 * Estimates without loading: reads config.json and the files' headers. A GPU need not be there.
 *
 * @throws LongcatError as opening the checkpoint would; `OPTION_INVALID` for a context beyond the model's, or ranks that do not divide the experts.
 */
export async function estimateMemory(
  dir: string,
  { allowUnknownTensors, ...sizes }: EstimateSizes & { allowUnknownTensors: boolean },
): Promise<MemoryEstimate> {
  const checkpoint = await openCheckpoint(dir, { allowUnknownTensors });
  try {
    return estimateOf(checkpoint, sizes);
  } finally {
    checkpoint.close();
  }
}

/** The same for an open checkpoint, or for headers that were made up (ts/model/random-weights.ts). */
export function estimateOf(checkpoint: Checkpoint, sizes: EstimateSizes): MemoryEstimate {
  const { batch, maxBatchTokens, dtype = "auto", cacheDType = "auto", maxDrafts, ranks = 1, dispatchDType, exchange = "auto" } = sizes;
  const { device = "cpu", ngram: wantedNgram = "auto" } = sizes;
  const { config } = checkpoint;
  const held = expertRange(config, { rank: 0, ranks });
  const { kind, freeBytes } = freeOn(device);
  const availableBytes = kind === "cpu" && freeBytes !== null ? Math.floor(freeBytes / ranks) : freeBytes;
  const modelContext = config.maxPositionEmbeddings;
  const context = integer(sizes.context ?? modelContext, "context", 1, modelContext, ", the model's context");
  const model = { ...config, maxPositionEmbeddings: context };
  // Whatever is there: what does not fit is the answer here, not an error.
  const unbounded = { maxSequences: batch, maxBatchTokens, cacheBytes: "auto", availableBytes: Number.POSITIVE_INFINITY } as const;
  const throughNccl = exchange === "nccl" || (exchange === "auto" && kind === "cuda" && ranks > RANKS_PER_HOST);
  const sharding: Sharding = { ranks, fp8Dispatch: dispatchDType === "fp8", throughNccl };
  const wanted = { dtype, cacheDType, ngram: wantedNgram, maxDrafts, sharding };
  const used = forExperts(forDrafts(checkpoint, sizes), held);
  const plan = planModel(used, { ...unbounded, kind, ...wanted, freeBytes: availableBytes }, model);
  const { cacheBytes, stateBytes, scratchBytes, windowBytes, convertedBytes, allocatedBytes } = plan.sizes;
  const perToken = cacheBytesPerToken(config, plan.sizes.numCaches, plan.sizes.cacheDType);
  const ngramBytes = ngramTableBytes(checkpoint);
  const weightBytes = used.bytes - ngramBytes;
  const mapped = kind === "cpu" ? weightBytes - conversionBytes(used, dtype).replaced : 0;
  const totalBytes = allocatedBytes + mapped;
  const room = availableBytes === null ? null : availableBytes - totalBytes - (kind === "cuda" ? GPU_MARGIN_BYTES : 0);
  return {
    ...{
      device: kind,
      context,
      batch,
      weightBytes,
      ngramBytes,
      ngram: ngramBytes > 0 ? plan.ngram : "none",
      activations: plan.activationDType,
      cacheDType: plan.sizes.cacheDType,
    },
    ...{
      cacheBytesPerToken: perToken,
      cacheBytes,
      stateBytes,
      scratchBytes,
      windowBytes,
      convertedBytes,
      allocatedBytes,
      totalBytes,
      availableBytes,
    },
    fits: room === null ? null : room >= 0,
    maxCachedTokens: room === null ? null : Math.max(0, Math.floor((room + cacheBytes) / perToken)),
    parallel: ranks > 1 ? parallelEstimate(checkpoint, { ...sizes, context }, sharding, kind, plan.activationDType) : null,
  };
}

function parallelEstimate(
  checkpoint: Checkpoint,
  { batch: rows, context, dtype = "auto" }: EstimateSizes & { context: number },
  { ranks, fp8Dispatch: fp8, throughNccl }: Sharding,
  kind: DeviceKind,
  activation: ActivationDType,
): ParallelEstimate {
  const { config } = checkpoint;
  const measured = kind === "cuda" && isMeasured(config) ? measuredDType(checkpoint, dtype, activation) : undefined;
  return {
    ...{ ranks, expertsHeld: expertsOfRank(config, ranks) },
    exchange: exchangeCost(config, { ranks, rows, activationBytes: bytesOf(activation), fp8 }),
    step: measured ? stepTime(config, { ranks, rows, context, dtype: measured, fp8, throughNccl }) : null,
  };
}

/** What the layers' matrices are computed with, if parts were measured with it. */
function measuredDType(checkpoint: Checkpoint, dtype: WeightDType, activation: ActivationDType): MeasuredDType | undefined {
  if (activation === "float32") return undefined;
  return hasFp8Weights(checkpoint, dtype) ? "fp8" : "bfloat16";
}

/** What a device's name means here, and what is free there; null for a GPU that is not here. */
function freeOn(device: string): { kind: DeviceKind; freeBytes: number | null } {
  if (!device.startsWith("cuda")) {
    const choice = chooseDevice(device);
    return { kind: choice.kind, freeBytes: choice.kind === "cpu" ? availableMemoryBytes() : choice.gpu.freeBytes };
  }
  return { kind: "cuda", freeBytes: gpuNamed(device, findGpus().devices)?.freeBytes ?? null };
}
