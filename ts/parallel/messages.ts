/**
 * What the processes of a group say to each other. A rank has three connections to its leader: *control*, to the coordinator in a thread of the
 * leader's, *heart*, to the coordinator too, from a thread of the rank's; and *requests*, to the leader's main thread.
 * @module
 */

import type { ResolvedOptions } from "../engine/options.js";
import type { EncodedPrompt } from "../engine/prompt.js";
import type { Chunk, EngineStats, TokenPrompt } from "../engine/types.js";
import type { ScoreOptions } from "../engine/engine.js";
import type { Forward, Round } from "../model/lockstep.js";
import type { PlainParameters } from "../sampling/parameters.js";
import type { RankFacts } from "./group.js";
import type { WireError } from "./wire-error.js";

/** Kinds of frame. Those of each forward pass have bodies of bytes, the others values, or nothing. */
export const Frame = {
  /** First on a connection: who it is, and whether it may come; see introduction.ts. */
  hello: 0,
  challenge: 6,
  proof: 7,
  /** Leader → rank: it may not, or no more. Body: why, in words. */
  refused: 8,
  /** A value: ToRank, ToCoordinator, ToRequests or ToLeader, by connection and direction. */
  value: 1,
  /** I am there. No body. */
  beat: 2,
  /** Rank → coordinator: a forward pass is wanted. Body: `forwardBody`. */
  want: 3,
  /** Rank → coordinator: work begins, or is over. Body: one byte. */
  works: 4,
  /** Coordinator → rank: a round is decided. Body: `roundBody`. */
  round: 5,
} as const;

/** Which of a rank's connections one is. */
export const Channel = { control: 0, requests: 1, heart: 2 } as const;

/** Ranks say so often that they are there, and so does the coordinator. */
export const BEAT_MS = 1000;

/** The engine's options as they travel: without functions. */
export type PlainOptions = Omit<ResolvedOptions, "signal" | "onProgress" | "onWarning">;

/** What a rank is told when it has connected. */
export interface RankSetup {
  /** The leader's package. Another one is refused: the processes would not understand each other. */
  version: string;
  directory: string;
  options: PlainOptions;
  /** Where the leader's main thread listens, on the same host as the coordinator. */
  requestsPort: number;
}

/** Coordinator → rank. */
export type ToRank =
  | { type: "setup"; setup: RankSetup }
  /** Everybody's bytes under a name, by rank. */
  | { type: "gathered"; name: string; all: Uint8Array[] }
  /** All ranks have loaded. */
  | { type: "started" }
  /** The group is over: a rank is lost, or a load failed. */
  | { type: "lost"; error: WireError }
  /** Calls are to end; then `quiet` is to be said. */
  | { type: "close" }
  /** All are quiet: no round begins any more. */
  | { type: "allQuiet" };

/** Rank → coordinator. */
export type ToCoordinator =
  | { type: "gather"; name: string; bytes: Uint8Array }
  | { type: "progress"; doneBytes: number; totalBytes: number }
  | { type: "warning"; message: string }
  /** It has loaded and takes requests. */
  | { type: "ready"; facts: RankFacts }
  /** It could not load, or cannot go on. */
  | { type: "failed"; error: WireError }
  /** It has waited too long for another rank; it may not know for which. */
  | { type: "stuck"; waitsFor: number | undefined; ms: number }
  | { type: "quiet" };

/** Leader → rank, on the requests' connection. */
export type ToRequests =
  | { type: "generate"; id: number; prompt: EncodedPrompt; parameters: PlainParameters }
  | { type: "score"; id: number; prompt: readonly number[] | string | TokenPrompt; options: Omit<ScoreOptions, "signal"> }
  | { type: "abort"; id: number };

/** Rank → leader, on the requests' connection. */
export type ToLeader =
  /** Pieces of answers, of one turn of the event loop. */
  | { type: "chunks"; chunks: [id: number, chunk: Chunk][] }
  | { type: "result"; id: number; result: unknown }
  | { type: "error"; id: number; error: WireError }
  | { type: "stats"; stats: EngineStats };

const KINDS: readonly Forward["kind"][] = ["prompt", "decode"];

/** A forward pass: kind (u8), drafts (u8), sequences (u32). */
export function forwardBody({ kind, sequences, drafts }: Forward): Uint8Array {
  const body = Buffer.allocUnsafe(6);
  body.writeUInt8(KINDS.indexOf(kind), 0);
  body.writeUInt8(drafts, 1);
  body.writeUInt32LE(sequences, 2);
  return body;
}

export function readForward(body: Buffer): Forward {
  return { kind: KINDS[body.readUInt8(0)] as Forward["kind"], drafts: body.readUInt8(1), sequences: body.readUInt32LE(2) };
}

/** A round: its forward pass, its number (f64), whether the receiver has rows in it (u8). */
export function roundBody(round: Round, withRows: boolean): Uint8Array {
  const body = Buffer.allocUnsafe(9);
  body.writeDoubleLE(round.round, 0);
  body.writeUInt8(Number(withRows), 8);
  return Buffer.concat([forwardBody(round), body]);
}

export function readRound(body: Buffer): { round: Round; withRows: boolean } {
  return { round: { ...readForward(body), round: body.readDoubleLE(6) }, withRows: body.readUInt8(14) === 1 };
}
