/**
 * A program: the model's operations over one set of tensors of fixed capacity, run eagerly or recorded. All programs of a runner lie
 * over each other in one arena, since only one runs at a time; what outlives a step is in the ModelState.
 * @module
 */

import type { Device, Queue, Tensor } from "../runtime/device.js";
import { WINDOW_HEADER_BYTES } from "../runtime/window.js";
import {
  type ActivationDType,
  type ActivationLayout,
  type Activations,
  type Capacity,
  type ExpertPlanTensors,
  layoutActivations,
} from "./activations.js";
import type { ModelConfig, RopeParameters } from "./config.js";
import type { Exchange } from "./exchange.js";
import type { ModelState } from "./state.js";

/** Looks at values on their way, for tests and analysis. Called while operations are enqueued; may enqueue copies. */
export interface Tap {
  /** Before layer `index` (= after layer index − 1; index L: after the last): the residual stream, [T, D]. */
  hiddenBefore(queue: Queue, index: number, x: Tensor): void;
  /** After layer `index`'s router: ids [T, K] ascending, weights [T, K], probabilities [T, N+Z]. */
  routing(queue: Queue, index: number, ids: Tensor, weights: Tensor, probabilities: Tensor): void;
}

/** Which rows each expert has: what the router makes, or what somebody puts in its place. */
export type ExpertPlan = ExpertPlanTensors<Tensor>;

/** What a program is for. */
export interface ProgramKind {
  /** Which kinds of row its steps may have. */
  readonly prefill: boolean;
  readonly decode: boolean;
  /** Whether its steps are replayed: all of them then do the same. */
  readonly recorded: boolean;
}

/** What the model's code needs to enqueue itself. */
export interface Program extends ProgramKind {
  readonly config: ModelConfig;
  readonly rope: RopeParameters;
  /** [rope/2] */
  readonly invFreq: Tensor;
  readonly state: ModelState;
  readonly capacity: Capacity;
  readonly activations: Activations<Tensor>;
  /** i32[1] views of the step's counts: live rows, live rows of logits. */
  readonly rows: Tensor;
  readonly logitCount: Tensor;
  /** i32[2] views of the step's turns: the rows of logits that each draws from. */
  readonly turns: readonly Tensor[];
  /** Draft head only: i32[1] view of the number of sequences, and [S] of their numbers. */
  readonly draftRows?: Tensor;
  readonly draftIndex?: Tensor;
  /** Row l of the result's FFN counts: [T] i32. */
  readonly ffnCount: readonly Tensor[];
  /** The queue of the experts' branch. */
  readonly branch: Queue;
  /** Where the experts are shared out: what rows are exchanged through. */
  readonly exchange?: ProgramExchange;
  /** The block that the host writes before a step, and the one that it reads after it. */
  readonly stepBlock: Tensor;
  readonly resultBlock: Tensor;
  /** Keys of the prompts of the step that is enqueued next, each sequence's rounded up to whole tiles: at least so many. */
  promptKeys: number;
  tap?: Tap;
  /** What the experts follow instead of the router's plan, which is made all the same: for measuring (ts/engine/rank-plan.ts). */
  expertPlan?: ExpertPlan;
}

/** An exchange between ranks as a program uses it. */
export interface ProgramExchange extends Exchange {
  /** [ranks·tokens, D] act: the rows that came. */
  readonly received: Tensor;
  /** Through NCCL, not recorded: where it finds how many rows there are. Else as many travel as there is room for. */
  readonly counts?: Tensor | undefined;
}

/** What programs of one runner share. */
export interface ProgramParts {
  config: ModelConfig;
  rope: RopeParameters;
  invFreq: Tensor;
  state: ModelState;
  branch: Queue;
  activationDType: ActivationDType;
  exchange?: Exchange | undefined;
}

/** Bytes of arena that a program of this capacity needs. Pure. */
export function programBytes(config: ModelConfig, capacity: Capacity, activationDType: ActivationDType): number {
  return layoutActivations(config, capacity, activationDType, () => null).bytes;
}

/** Makes a program's tensors in `arena` (u8, at least `programBytes`). */
export function createProgram(device: Device, arena: Tensor, parts: ProgramParts, capacity: Capacity, kind: ProgramKind): Program {
  const { config, activationDType, exchange, ...shared } = parts;
  const layout: ActivationLayout<Tensor> = layoutActivations(config, capacity, activationDType, (dtype, shape, byteOffset) =>
    device.view(arena, dtype, shape, byteOffset),
  );
  const { activations, stepBytes, resultBytes } = layout;
  const { counts, turnStart, draftCounts, draftStart } = activations.step;
  const T = capacity.tokens;
  return {
    ...shared,
    ...kind,
    ...(exchange && { exchange: exchangeOf(exchange, parts, kind, activations) }),
    config,
    promptKeys: 0,
    capacity,
    activations,
    rows: device.view(counts, "int32", [1], 4 * StepCount.numRows),
    logitCount: device.view(counts, "int32", [1], 4 * StepCount.numLogitRows),
    turns: activations.result.turns.map((_, turn) => device.view(turnStart, "int32", [2], 4 * turn)),
    ...(draftCounts && { draftRows: device.view(draftCounts, "int32", [1], 4 * StepCount.numRows) }),
    ...(draftStart && { draftIndex: device.view(draftStart, "int32", [capacity.sequences]) }),
    ffnCount: Array.from({ length: config.numLayers }, (_, l) => device.view(activations.result.ffnCount, "int32", [T], 4 * T * l)),
    stepBlock: device.view(arena, "uint8", [stepBytes.end - stepBytes.begin], stepBytes.begin),
    resultBlock: device.view(arena, "uint8", [resultBytes.end - resultBytes.begin], resultBytes.begin),
  };
}

/** Rows that come as activations are used where they lie in the window. */
function exchangeOf(
  exchange: Exchange,
  { config, activationDType }: ProgramParts,
  { recorded }: ProgramKind,
  { moe }: Activations<Tensor>,
): ProgramExchange {
  const { window, ranks, tokens, nccl } = exchange;
  const inWindow = () => window.view(activationDType, [ranks * tokens, config.hiddenSize], WINDOW_HEADER_BYTES);
  return { ...exchange, received: moe.exchange?.received ?? inWindow(), counts: recorded ? undefined : nccl?.counts.tensor };
}

/** Places in the step's counts (native/ops/step_plan/params.h). */
export const StepCount = { numRows: 0, numPrefillRows: 1, numSequences: 2, numPrefillSequences: 3, numLogitRows: 4, numSplits: 5 } as const;

/** Keys of one decode split (native/ops/mla_decode/params.h). */
export const SPLIT_KEYS = 256;
