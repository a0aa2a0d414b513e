/**
 * From a checkpoint folder to a runner.
 * @module
 */

import { LongcatError } from "../errors.js";
import { availableMemoryBytes } from "../runtime/addon.js";
import { Device } from "../runtime/device.js";
import { chooseDevice, withoutEffect } from "../runtime/gpus.js";
import { type Checkpoint, type DraftDemand, openCheckpoint, forDrafts, forExperts } from "./checkpoint.js";
import { expertRange, type ModelParallel, shareOfMemory } from "./exchange.js";
import { openExchange, settleSharding } from "./open-exchange.js";
import { type DeviceKind, hasFp8Weights, ngramTableBytes } from "./placement.js";
import { type ModelPlan, planModel } from "./plan.js";
import { reservedBytes } from "./sizing.js";
import { agreeOnCache } from "./rank-sizes.js";
import { checkRing, Runner } from "./runner.js";
import type { ModelSizes, SizingOptions } from "./sizing.js";
import { loadWeights, type NgramPlace, type WeightDType } from "./weights.js";

/** How to open a model; the engine's options after their checks. */
export interface OpenModelOptions
  extends Pick<SizingOptions, "maxSequences" | "maxBatchTokens" | "cacheBytes" | "cacheDType" | "availableBytes">,
    DraftDemand {
  /** "cpu", "cuda", "cuda:N" or "auto". */
  device: string;
  dtype: WeightDType;
  /** Of the CPU; a GPU takes none, and a number is warned of. */
  threads: number | "auto";
  debug: "off" | "sync" | "poison";
  /** Where n-gram tables live. Default "auto". */
  ngram?: "auto" | NgramPlace;
  /** GPU with FP8 weights: quantise the inputs of their products too. Default false. */
  fp8Activations?: boolean;
  /** GPU: a row's bits do not depend on the others of its batch. Default true. */
  batchInvariant?: boolean;
  /** One rank of several, each of which holds a share of the experts. Default: all are here. */
  parallel?: ModelParallel;
  /** This operation fails when it is run, for tests of error paths. */
  faultOn?: string;
  /** GPU: a kernel that traps runs in place of this operation, for tests of lost devices. */
  trapOn?: string;
  allowUnknownTensors: boolean;
  /** Bytes of weights placed so far, of how many. */
  onProgress?: (doneBytes: number, totalBytes: number) => void;
  onWarning?: (message: string) => void;
  /** Stops the loading between two layers. */
  signal?: AbortSignal;
}

/** An opened model. Closing it frees device and files. */
export interface OpenedModel {
  runner: Runner;
  checkpoint: Checkpoint;
  sizes: ModelSizes;
  /** Where its n-gram tables are; null: it has none. */
  ngram: NgramPlace | null;
  close(): Promise<void>;
}

/**
 * Opens a checkpoint on a device.
 *
 * @throws LongcatError CONFIG_INVALID, CHECKPOINT_INVALID, CHECKPOINT_UNSUPPORTED, OPTION_INVALID, OUT_OF_MEMORY, DEVICE_UNAVAILABLE,
 * NATIVE_MISSING.
 */
export async function openModel(dir: string, options: OpenModelOptions): Promise<OpenedModel> {
  const { allowUnknownTensors, onWarning } = options;
  const checkpoint = await openCheckpoint(dir, { allowUnknownTensors, onWarning });
  let device: Device | undefined;
  try {
    const choice = chooseDevice(options.device);
    const used = usedOf(checkpoint, options);
    checkFor(choice.kind, checkpoint, options);
    for (const warning of withoutEffect(choice, options)) onWarning?.(warning);
    // A GPU is asked what it has; on the CPU a model that does not fit is refused before anything is opened.
    if (choice.kind === "cuda") device = openDevice(`cuda:${choice.gpu.ordinal}`, options);
    const { ngram = "auto", parallel } = options;
    const sharding = await settleSharding(parallel, device);
    const availableBytes = options.availableBytes ?? device?.freeBytes ?? shareOfMemory(parallel);
    const wanted = { ...options, kind: choice.kind, ngram, availableBytes, freeBytes: availableBytes, sharding };
    let plan = planModel(used, wanted);
    if (parallel) plan = planModel(used, { ...wanted, cacheBytes: await agreeOnCache(parallel, checkpoint.config, plan.sizes) });
    device ??= openDevice("cpu", options);
    checkRing(device, checkpoint.config, plan.sizes);
    const runner = await load(device, used, plan, options);
    const close = async () => {
      await runner.close();
      checkpoint.close();
    };
    return { runner, checkpoint, sizes: plan.sizes, ngram: checkpoint.config.ngram ? plan.ngram : null, close };
  } catch (error) {
    await device?.close();
    checkpoint.close();
    throw error;
  }
}

/** What of the checkpoint is used: of one rank of several, its own experts. */
function usedOf(checkpoint: Checkpoint, options: OpenModelOptions): Checkpoint {
  const used = forDrafts(checkpoint, options);
  return options.parallel ? forExperts(used, expertRange(checkpoint.config, options.parallel)) : used;
}

function openDevice(device: string, { threads, debug, faultOn, trapOn, fp8Activations, batchInvariant }: OpenModelOptions): Device {
  return Device.open({ device, threads, debug, faultOn, trapOn, fp8Activations, batchInvariant });
}

/** Demands that this device or these weights cannot meet. */
function checkFor(kind: DeviceKind, checkpoint: Checkpoint, options: OpenModelOptions): void {
  const { dtype, fp8Activations = false } = options;
  if (!fp8Activations) return;
  const accepted = "it needs a GPU and block-FP8 weights that stay as stored";
  if (kind === "cpu") throw new LongcatError("OPTION_INVALID", `fp8Activations: true on the CPU is not accepted: ${accepted}`);
  if (!hasFp8Weights(checkpoint, dtype)) {
    const why = dtype === "auto" ? "with a checkpoint without FP8 weights" : `with dtype "${dtype}"`;
    throw new LongcatError("OPTION_INVALID", `fp8Activations: true ${why} is not accepted: ${accepted}`);
  }
}

/** Takes the memory, loads the weights, makes the runner. */
async function load(device: Device, checkpoint: Checkpoint, plan: ModelPlan, options: OpenModelOptions): Promise<Runner> {
  const { dtype, signal, onProgress, parallel } = options;
  const { sizes } = plan;
  if (device.kind === "cuda") {
    if (plan.ngram === "host") checkHostMemory(ngramTableBytes(checkpoint), parallel);
    device.reserve(reservedBytes(sizes));
  }
  const exchange = parallel && (await openExchange(device, parallel, checkpoint.config, sizes));
  try {
    const weights = await loadWeights(device, checkpoint, {
      ...{ dtype, ngram: plan.ngram, experts: parallel && expertRange(checkpoint.config, parallel) },
      onProgress: (doneBytes, totalBytes) => {
        signal?.throwIfAborted();
        onProgress?.(doneBytes, totalBytes);
      },
    });
    return new Runner(device, checkpoint.config, weights, sizes, exchange && { exchange, lockstep: parallel.lockstep });
  } catch (error) {
    await exchange?.nccl?.communicator.close();
    throw error;
  }
}

/**
 * n-gram tables that a GPU reads over the bus lie in memory that the system cannot take back, and each rank of a host has its own. All look before the
 * first takes any: behind this they meet to open the exchange, and load only then.
 */
function checkHostMemory(bytes: number, parallel: ModelParallel | undefined): void {
  const available = shareOfMemory(parallel) ?? availableMemoryBytes();
  if (bytes <= available) return;
  const share = parallel ? " for each rank of this host" : "";
  throw new LongcatError(
    "OUT_OF_MEMORY",
    `asked for ${bytes} bytes of host memory for n-gram tables, ${Math.floor(available)} are there${share}; ngram: "device" needs as many on the GPU`,
  );
}
