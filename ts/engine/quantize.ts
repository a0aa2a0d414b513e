/**
 * Quantising as callers ask for it: arguments checked, then done by ts/model/quantize.ts.
 * @module
 */

import { abortSignal, absent, boolean, callback, integer, invalid, record, rejectUnknown } from "../checks.js";
import { quantizeCheckpoint } from "../model/quantize.js";
import { checkDirectory } from "./load.js";

/** Options of {@link quantize}. `undefined` and `null` mean absent. */
export interface QuantizeOptions {
  /** Called with the number of tensors written so far, and of all. */
  onProgress?: ((done: number, total: number) => void) | null;
  /** Called with each warning; default: `process.emitWarning`. */
  onWarning?: ((message: string) => void) | null;
  /** Accept tensors that are not known; they are not copied. Default false. */
  allowUnknownTensors?: boolean | null;
  /** Stops between two tensors; nothing is left behind. */
  signal?: AbortSignal | null;
  /** Bytes of weights that a file may hold before the next begins. Default 5 GB. */
  maxFileBytes?: number | null;
}

const NAMES: readonly (keyof QuantizeOptions)[] = ["onProgress", "onWarning", "allowUnknownTensors", "signal", "maxFileBytes"];

/**
 * Writes a copy of a checkpoint in block FP8 (128 × 128, e4m3). The new folder appears when it is whole; on failure nothing is left of it.
 *
 * @param input The checkpoint's folder, float32 or bfloat16; `null`: the bundled one.
 * @param output A folder that is not there or is empty.
 * @throws LongcatError `OPTION_INVALID`, `CONFIG_INVALID`, `CHECKPOINT_INVALID`, `CHECKPOINT_UNSUPPORTED` (quantised already), `NATIVE_MISSING`;
 * `ABORTED` if `options.signal` fired.
 *
 * @example
 * await quantize("path/to/checkpoint", "path/to/fp8-copy");
 * const engine = await Engine.load("path/to/fp8-copy");
 */
export async function quantize(input: string | null, output: string, options?: QuantizeOptions | null): Promise<void> {
  const source = checkDirectory(input);
  if (typeof output !== "string" || output === "") throw invalid("output", output, "the path of a new folder");
  const given = record(options, "options");
  rejectUnknown(given, NAMES, "option");
  const { onProgress, onWarning, allowUnknownTensors, signal, maxFileBytes } = given;
  await quantizeCheckpoint(source, output, {
    ...(absent(onProgress) ? {} : { onProgress: callback(onProgress, "onProgress") as (done: number, total: number) => void }),
    onWarning: absent(onWarning)
      ? (message) => process.emitWarning(message, "LongcatWarning")
      : (callback(onWarning, "onWarning") as (message: string) => void),
    allowUnknownTensors: absent(allowUnknownTensors) ? false : boolean(allowUnknownTensors, "allowUnknownTensors"),
    ...(absent(signal) ? {} : { signal: abortSignal(signal, "signal") }),
    ...(absent(maxFileBytes) ? {} : { maxFileBytes: integer(maxFileBytes, "maxFileBytes", 1, Number.MAX_SAFE_INTEGER) }),
  });
}
