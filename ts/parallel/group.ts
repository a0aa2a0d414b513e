/**
 * Ranks that work together on one model, as the process sees them that leads them: what is known of each, and calls to it.
 * @module
 */

import type { LongcatError } from "../errors.js";
import type { ScoreOptions } from "../engine/engine.js";
import type { ResolvedOptions } from "../engine/options.js";
import type { EncodedPrompt } from "../engine/prompt.js";
import type { Chunk, EngineInfo, EngineStats, GenerateResult, ScoreResult, TokenPrompt } from "../engine/types.js";
import type { RunnerLimits } from "../model/runner-types.js";
import type { PlainParameters, SamplingDefaults } from "../sampling/parameters.js";
import type { LauncherPlace } from "./launcher.js";

export { type LauncherPlace, launcherPlace } from "./launcher.js";
export { startGroup } from "./leader.js";
export { joinGroup } from "./member.js";

/** `EngineOptions.parallel` after its checks. */
export interface ParallelOptions {
  /** Ranks. */
  expert: number;
  exchange: "auto" | "peer" | "nccl";
  dispatchDType: "auto" | "fp8";
  /** How long ranks may take to connect: "auto" by whether they share a host (rank-places.ts). */
  joinTimeoutMs: "auto" | number;
  /** Longest wait of a rank for another one within a step: "auto" by its device (watchdog.ts). */
  timeoutMs: "auto" | number;
}

/** What a group is made of. */
export interface GroupOptions {
  /** The checkpoint's folder. Ranks on other hosts open the same path. */
  directory: string;
  /** The engine's options, `parallel` with several ranks. Of device, threads and memory each rank gets its share. */
  options: ResolvedOptions;
  /** The process's place among those that a launcher started; see `launcherPlace`. Absent: it was started alone. */
  place?: LauncherPlace | undefined;
}

/** What is known of a rank once it has loaded. */
export interface RankFacts {
  rank: number;
  host: string;
  pid: number;
  info: EngineInfo;
  limits: RunnerLimits;
  /** See EngineParts. */
  modelContext: number;
  defaults: SamplingDefaults;
}

/** A call that another process answers. */
export interface RemoteCall<T> {
  /** Rejects with a LongcatError: the rank's own, or COMM_ERROR naming the rank that was lost. */
  readonly done: Promise<T>;
  /** Ends the call: `done` rejects with ABORTED and the partial result, as Engine's calls do. Nothing happens if it has ended. */
  abort(message: string, cause?: unknown): void;
}

/** Ranks that work together, as their leader sees them. */
export interface RankGroup {
  /** By rank. */
  readonly ranks: readonly RankFacts[];
  /** One prompt to one rank. `onChunk` is called with each piece of the answer; what it throws ends the call, which rejects with it. */
  generate(rank: number, prompt: EncodedPrompt, parameters: PlainParameters, onChunk: (chunk: Chunk) => void): RemoteCall<GenerateResult>;
  score(rank: number, prompt: readonly number[] | string | TokenPrompt, options: Omit<ScoreOptions, "signal">): RemoteCall<ScoreResult>;
  /** The newest that is known: each rank tells a few times a second while it works, and when it comes to rest. */
  stats(rank: number): EngineStats;
  /** Resolves once, when a rank is lost: COMM_ERROR naming it. All calls have been rejected then. Never settles in a group that is closed. */
  readonly lost: Promise<LongcatError>;
  /** Ends all ranks; nothing is left behind. Calling it again gives the same promise. */
  close(): Promise<void>;
}

/** A process whose ranks belong to a group that another process leads. */
export interface GroupMember {
  /** Its first rank, and how many there are in all. */
  readonly rank: number;
  readonly ranks: number;
  /** Of its first rank. */
  readonly info: EngineInfo;
  /** Resolves when the group has ended: with COMM_ERROR where a rank or the leader was lost, with undefined where the leader closed it. */
  readonly ended: Promise<LongcatError | undefined>;
  /** Ends this process's ranks, and with them the group. */
  close(): Promise<void>;
}
