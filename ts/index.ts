/**
 * longcat-node: the LongCat-Flash model family in process. Everything public is exported here, by name.
 * @module
 */

import { describeModel, type EstimateOptions, estimateModel, type InspectOptions } from "./engine/inspect.js";
import { inspectRouting, type RoutingAnalysis, type RoutingData, type RoutingOptions } from "./engine/inspect-routing.js";
import type { CheckpointDescription } from "./model/describe.js";
import type { MemoryEstimate } from "./model/estimate.js";
import { packageVersion } from "./runtime/addon.js";
import { describeProcessor, listDevices } from "./runtime/devices.js";

export { type Diagnosis, diagnose, type Finding } from "./engine/diagnose.js";
export type { ScoreOptions } from "./engine/engine.js";
export { Engine } from "./engine/engine.js";
export type { EstimateOptions, InspectOptions } from "./engine/inspect.js";
export type { DataRouting, RoutedToken, RoutingAnalysis, RoutingData, RoutingOptions } from "./engine/inspect-routing.js";
export type { EngineOptions, LoadProgress, ParallelEngineOptions } from "./engine/options.js";
export { type QuantizeOptions, quantize } from "./engine/quantize.js";
export type { ExpertLoad, FfnUse, LayerRouting } from "./engine/routing-tally.js";
export type {
  Choice,
  Chunk,
  DraftUse,
  EngineInfo,
  EngineStats,
  FinishReason,
  GenerateResult,
  Prompt,
  Routing,
  ScoreResult,
  SpeculationStats,
  Timings,
  TokenAlternative,
  TokenLogprob,
  TokenPrompt,
  Usage,
} from "./engine/types.js";
export { LongcatError, type LongcatErrorCode } from "./errors.js";
export type { CheckpointDescription } from "./model/describe.js";
export type { MemoryEstimate, ParallelEstimate } from "./model/estimate.js";
export type { ExchangeCost, LayerStages, StepTime } from "./model/parallel-cost.js";
export type { Shape } from "./model/shapes.js";
export type { DeviceInfo } from "./runtime/devices.js";
export {
  type GenerateParams,
  MAX_CHOICES,
  MAX_LOGIT_BIAS,
  MAX_LOGPROBS,
  MAX_SEED,
  MAX_STOP_LENGTH,
  MAX_STOP_STRINGS,
  MAX_STOP_TOKENS,
  type ResponseFormat,
} from "./sampling/parameters.js";
export type { ChatPrompt, Message, MessageToolCall, TextPart, Tool, ToolCall, ToolCallDelta, ToolChoice } from "./text/index.js";
export type { ActivationDType } from "./model/activations.js";
export type { DeviceKind } from "./model/placement.js";
export type { CacheDType } from "./model/state.js";
export type { NgramPlace } from "./model/weights.js";
export type { LoggedStep as TrainStep } from "./train/log.js";
export { growTraining, resumeTraining, type TrainOptions, type TrainResult, train } from "./train/train.js";
export { listDevices };

/** The version of this package, as its package.json has it. */
export const version: string = packageVersion();

/** What {@link inspect} can look at. */
export interface Inspect {
  /** The same as `inspect.model`. */
  (directory?: string | null, options?: InspectOptions | null): Promise<CheckpointDescription>;
  /** A checkpoint, from its config and its files' headers; absent: the bundled one. Throws as `Engine.load` does. */
  model(directory?: string | null, options?: InspectOptions | null): Promise<CheckpointDescription>;
  /** The memory that a checkpoint takes and what fits; absent: the bundled one. Throws as `Engine.load` does. */
  estimate(directory?: string | null, options?: EstimateOptions | null): Promise<MemoryEstimate>;
  /**
   * Loads a checkpoint, runs texts, and says how many FFN experts their tokens chose, by data set and by layer, and how even the experts' load was. Absent
   * directory: the bundled one. Throws as `Engine.load` and `engine.generate` do.
   */
  routing(directory: string | null | undefined, data: RoutingData, options?: RoutingOptions | null): Promise<RoutingAnalysis>;
  /** The same as `listDevices`: the GPUs. */
  devices: typeof listDevices;
  /** The processor as a device; it is always there. */
  processor: typeof describeProcessor;
}

/**
 * Looks at checkpoints and machines; only `routing` reads weights.
 *
 * @example
 * const { parameters, context } = await inspect("path/to/checkpoint");
 * const { fits, totalBytes } = await inspect.estimate("path/to/checkpoint", { context: 8192, batch: 4 });
 */
export const inspect: Inspect = Object.assign(
  (directory?: string | null, options?: InspectOptions | null): Promise<CheckpointDescription> => describeModel(directory, options),
  { model: describeModel, estimate: estimateModel, routing: inspectRouting, devices: listDevices, processor: describeProcessor },
);
