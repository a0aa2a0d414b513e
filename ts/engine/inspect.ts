/**
 * A checkpoint described and measured without loading it.
 * @module
 */

import { absent, integer, invalid, oneOf, record, rejectUnknown } from "../checks.js";
import { openCheckpoint } from "../model/checkpoint.js";
import { type CheckpointDescription, describeCheckpoint } from "../model/describe.js";
import { estimateMemory, estimateOf, type EstimateSizes, type MemoryEstimate } from "../model/estimate.js";
import { RANDOM_DTYPES, randomHeaders } from "../model/random-weights.js";
import { type Shape, SHAPES, shapeConfig } from "../model/shapes.js";
import { checkDirectory } from "./load.js";
import { draftDemand, type EngineOptions, resolveOptions } from "./options.js";

/** Options of an inspection. */
export interface InspectOptions {
  /** Accept tensors that are not known. Default false. */
  allowUnknownTensors?: boolean | null;
}

/**
 * What to estimate for; a GPU that is named need not be there. Names that engine options have too mean the same and have the same defaults and bounds;
 * with `parallel` all figures are of one rank.
 */
export interface EstimateOptions
  extends Pick<EngineOptions, "device" | "cacheDType" | "ngram" | "maxBatchTokens" | "speculative" | "parallel" | "allowUnknownTensors"> {
  /** As the engine's. With `shape` what its layers' matrices are: `"bfloat16"` (default), `"fp8"` or `"float32"`. */
  dtype?: EngineOptions["dtype"] | "fp8";
  /** Instead of a folder: a model of LongCat-Flash's, Lite's or the bundled checkpoint's sizes, with a draft head. */
  shape?: Shape | null;
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
  const { shape, ...rest } = record(options, "options");
  if (!absent(shape)) return estimateShape(oneOf(shape, "shape", SHAPES), directory, rest);
  const folder = checkDirectory(directory);
  const { allowUnknownTensors, ...sizes } = resolveEstimate(rest);
  return estimateMemory(folder, { allowUnknownTensors, ...sizes });
}

/** As if a checkpoint of such a shape were there. */
function estimateShape(shape: Shape, directory: unknown, { dtype, ...options }: Record<string, unknown>): MemoryEstimate {
  if (!absent(directory)) throw invalid("shape", shape, "it or a directory, not both");
  const matrices = absent(dtype) ? "bfloat16" : oneOf(dtype, "dtype", RANDOM_DTYPES);
  const { full } = randomHeaders({ config: shapeConfig(shape), dtype: matrices, draftHead: true }, Number.POSITIVE_INFINITY);
  return estimateOf(full, resolveEstimate(options));
}

function resolveEstimate(options: Record<string, unknown>): EstimateSizes & { allowUnknownTensors: boolean } {
  const { context, batch, ...shared } = options;
  const names = ["context", "batch", "shape", "device", "dtype", "cacheDType", "ngram", "maxBatchTokens", "speculative", "parallel"];
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
