/**
 * From a checkpoint folder to a runner.
 * @module
 */

import { Device } from "../runtime/device.js";
import { type Checkpoint, openCheckpoint } from "./checkpoint.js";
import { checkRing, Runner } from "./runner.js";
import { type ModelSizes, type SizingOptions, sizeModel } from "./sizing.js";
import { numCaches } from "./state.js";
import { conversionBytes, loadWeights, type WeightDType } from "./weights.js";

/** How to open a model; the engine's options after their checks. */
export interface OpenModelOptions extends Omit<SizingOptions, "convertedBytes"> {
  /** "cpu", "cuda", "cuda:N" or "auto". */
  device: string;
  dtype: WeightDType;
  threads: number | "auto";
  debug: "off" | "sync" | "poison";
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
  close(): Promise<void>;
}

/**
 * Opens a checkpoint on a device.
 *
 * @throws LongcatError CONFIG_INVALID, CHECKPOINT_INVALID, CHECKPOINT_UNSUPPORTED, OPTION_INVALID, OUT_OF_MEMORY, DEVICE_UNAVAILABLE,
 * NATIVE_MISSING.
 */
export async function openModel(dir: string, options: OpenModelOptions): Promise<OpenedModel> {
  const { allowUnknownTensors, onWarning, onProgress, signal } = options;
  const checkpoint = await openCheckpoint(dir, { allowUnknownTensors, onWarning });
  let device: Device | undefined;
  try {
    const { config, hasMtp } = checkpoint;
    const convertedBytes = conversionBytes(checkpoint, options.dtype).converted;
    const sizes = sizeModel(config, { ...options, convertedBytes }, numCaches(config, hasMtp));
    device = Device.open({ device: options.device, threads: options.threads, debug: options.debug });
    checkRing(device, config);
    const weights = await loadWeights(device, checkpoint, {
      dtype: options.dtype,
      onProgress: (doneBytes, totalBytes) => {
        signal?.throwIfAborted();
        onProgress?.(doneBytes, totalBytes);
      },
    });
    const runner = new Runner(device, config, weights, sizes);
    const close = async () => {
      await runner.close();
      checkpoint.close();
    };
    return { runner, checkpoint, sizes, close };
  } catch (error) {
    await device?.close();
    checkpoint.close();
    throw error;
  }
}
