/**
 * A checkpoint described and measured without loading it.
 * @module
 */

import { absent, integer, record, rejectUnknown } from "../checks.js";
import { openCheckpoint } from "../model/checkpoint.js";
import { type CheckpointDescription, describeCheckpoint } from "../model/describe.js";
import { estimateMemory, estimateOf, type EstimateSizes, type MemoryEstimate } from "../model/estimate.js";
import { type RandomDType, randomHeaders } from "../model/random-weights.js";
import { type Shape, shapeConfig } from "../model/shapes.js";
import { checkDirectory } from "./load.js";
import { draftDemand, type EngineOptions, resolveOptions } from "./options.js";

/** Options of an inspection. */
export interface InspectOptions {
  /** Accept tensors that are not known. Default false. */
  allowUnknownTensors?: boolean | null;
}

/** What to estimate for; a GPU that is named need not be there. Names that engine options have too mean the same and have the same defaults and bounds; with `parallel` all figures are of one rank. */
export interface EstimateOptions
  extends Pick<
    EngineOptions,
    "device" | "dtype" | "cacheDType" | "ngram" | "maxBatchTokens" | "speculative" | "parallel" | "allowUnknownTensors"
  > {
  /** Tokens of each sequence: 1 to the model's context, which is the default. */
  context?: number | null;
  /** Sequences at once, as `maxSequences`: 1 … 4096, default 1. */
  batch?: number | null;
}

/**
 * Describes a checkpoint from its config and its files' headers.
 *
 * @param directory Absent: the bundled mini checkpoint.
 * @throws LongcatError `CONFIG_INVALID`, `CHECKPOINT_INVALID`, `CHECKPOINT_UNSUPPORTED`, `OPTION_INVALID`.
 */
export async function describeModel(directory?: string | null, options?: InspectOptions | null): Promise<CheckpointDescription> {
  const folder = checkDirectory(directory);
  const input = record(options, "options");
  rejectUnknown(input, ["allowUnknownTensors"], "option");
  const { allowUnknownTensors } = resolveOptions(input);
  const checkpoint = await openCheckpoint(folder, { allowUnknownTensors });
  try {
    return describeCheckpoint(checkpoint);
  } finally {
    checkpoint.close();
  }
}

/**
 * Says how much memory a checkpoint will take and whether that is free now, from its config and its files' headers. For a GPU that is not
 * here it says the former alone. With `parallel` it says it of one rank, and how long a decode step should take where the parts are measured.
 *
 * @param directory Absent: the bundled mini checkpoint.
 * @throws LongcatError `CONFIG_INVALID`, `CHECKPOINT_INVALID`, `CHECKPOINT_UNSUPPORTED`, `OPTION_INVALID`.
 */
export async function estimateModel(directory?: string | null, options?: EstimateOptions | null): Promise<MemoryEstimate> {
  const folder = checkDirectory(directory);
  const { allowUnknownTensors, ...sizes } = resolveEstimate(options);
  return estimateMemory(folder, { allowUnknownTensors, ...sizes });
}

/** The same for a built-in shape, its layers' matrices of one type, as if a checkpoint of it were there. */
export function estimateShape(shape: Shape, dtype: RandomDType, options: Omit<EstimateOptions, "dtype">): MemoryEstimate {
  const { allowUnknownTensors, ...sizes } = resolveEstimate(options);
  const { full } = randomHeaders({ config: shapeConfig(shape), dtype, draftHead: true }, Number.POSITIVE_INFINITY);
  return estimateOf(full, sizes);
}

function resolveEstimate(options: EstimateOptions | null | undefined): EstimateSizes & { allowUnknownTensors: boolean } {
  const { context, batch, ...shared } = record(options, "options");
  const names = ["context", "batch", "device", "dtype", "cacheDType", "ngram", "maxBatchTokens", "speculative", "parallel"];
  rejectUnknown(shared, [...names, "allowUnknownTensors"], "option");
  const resolved = resolveOptions(shared);
  const { device, dtype, cacheDType, ngram, maxBatchTokens, allowUnknownTensors, parallel } = resolved;
  return {
    ...{ device, dtype, cacheDType, ngram, maxBatchTokens, allowUnknownTensors, ...draftDemand(resolved) },
    ...{ ranks: parallel.expert, dispatchDType: parallel.dispatchDType, exchange: parallel.exchange },
    // Bounded by the model's context, so checked where that is known.
    context: absent(context) ? undefined : (context as number),
    batch: absent(batch) ? 1 : integer(batch, "batch", 1, 4096),
  };
}
