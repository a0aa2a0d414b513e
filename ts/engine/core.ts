/**
 * What answers an engine's calls once they are checked: the loop of steps over a model in this process (ts/engine/step-loop.ts), or a group
 * of ranks (ts/parallel/group-core.ts).
 * @module
 */

import type { LongcatError } from "../errors.js";
import type { RunnerLimits } from "../model/runner-types.js";
import type { RunParameters } from "../sampling/parameters.js";
import type { EncodedPrompt } from "./prompt.js";
import type { Chunk, EngineStats, GenerateResult, ScoreResult } from "./types.js";

/** A generation from one prompt. */
export interface Generation {
  prompt: EncodedPrompt;
  parameters: RunParameters;
  /** When the caller called, as `performance.now` has it. */
  startedMs: number;
  /** What it throws ends the call, which rejects with it. */
  onChunk: (chunk: Chunk) => void;
}

/** The scoring of one text. */
export interface Scoring {
  ids: readonly number[];
  signal: AbortSignal | undefined;
}

/** A call in flight. */
export interface CoreCall<Result> {
  /** Settles once, after the last chunk; rejects with a LongcatError, or with what the caller's own listener threw. Need not be listened to. */
  readonly done: Promise<Result>;
  /** Ends the call: `done` rejects with `ABORTED` and the partial result. Nothing happens if it has ended. */
  abort(message: string, cause?: unknown): void;
}

export interface EngineCore {
  /** What prompts are checked against. */
  readonly limits: Pick<RunnerLimits, "vocabulary" | "contextLength">;
  readonly stats: EngineStats;
  /** Why no call is answered any more; absent while they are. */
  readonly failure?: LongcatError | undefined;
  /** Where it can end by itself: resolves when it has, with what ended it if that was a failure. */
  readonly ended?: Promise<LongcatError | undefined>;
  /** Makes ready whatever takes its time, so that several generations can start together. What it gives starts this one. */
  prepare(generation: Generation): Promise<() => CoreCall<GenerateResult>>;
  score(scoring: Scoring): CoreCall<ScoreResult>;
  /** Aborts what runs, and waits until none of it is left; calls that come later are aborted at once. */
  close(): Promise<void>;
}
