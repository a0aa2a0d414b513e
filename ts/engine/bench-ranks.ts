/**
 * Benches on several ranks of this host: a process each, which meet in the one that started them. A rank that fails or ends takes the others with it.
 * @module
 */

import { type ChildProcess, fork, type StdioOptions } from "node:child_process";
import { integer } from "../checks.js";
import { LongcatError } from "../errors.js";
import { type Exchange, MAX_RANKS, type ModelParallel } from "../model/exchange.js";
import { rankName } from "../parallel/names.js";
import { fromWire, type WireError } from "../parallel/wire-error.js";
import { compiledFile } from "../runtime/compiled.js";
import type { AllToAllPlan, AllToAllReported } from "./bench-all-to-all.js";
import { onAbort } from "./abort.js";
import { aborted, abortIfAsked } from "./bench-device.js";
import type { LayerPlan, LayerReported } from "./bench-layer.js";

export { launched } from "../parallel/launcher.js";

/** What ranks can be told to measure, and what rank 0 reports of it. */
export interface RankBenches {
  "all-to-all": { plan: AllToAllPlan; reported: AllToAllReported };
  layer: { plan: LayerPlan; reported: LayerReported };
}

/** A rank among the others. */
export interface BenchRank {
  readonly rank: number;
  readonly ranks: number;
  /** Every rank's value, by rank: the n-th call of each belongs to the n-th of the others, and waits for them. */
  share<T>(value: T): Promise<T[]>;
}

/**
 * A number of ranks that a bench can have.
 *
 * @throws LongcatError OPTION_INVALID
 */
export function checkRanks(ranks: number, least: number): number {
  return integer(ranks, "parallel.expert", least, MAX_RANKS);
}

/** A rank as models and exchanges want it. It runs no steps of a runner's, so there is nothing to agree on. */
export function benchParallel(
  { rank, ranks, share }: BenchRank,
  { exchange, fp8Dispatch }: { exchange?: "auto" | "peer" | "nccl" | undefined; fp8Dispatch?: boolean | undefined },
): ModelParallel {
  return {
    ...{ rank, ranks, dispatchDType: fp8Dispatch ? "fp8" : "auto", ...(exchange && { exchange }) },
    gather: (_, bytes) => share(bytes),
    lockstep: { agree: () => Promise.reject(new LongcatError("INTERNAL", "a bench has no rounds")) },
  };
}

/** How rows travel; null: there is one rank. */
export function wayOf(exchange: Exchange | undefined): "peer" | "nccl" | null {
  return exchange ? (exchange.nccl ? "nccl" : "peer") : null;
}

/** The first message to a rank's process. */
export interface RankTask<K extends keyof RankBenches = keyof RankBenches> {
  bench: K;
  plan: RankBenches[K]["plan"];
  rank: number;
  ranks: number;
}

/** What a rank tells this process. It is answered to `share` alone: with an array of all ranks' values. */
export type FromRank = { type: "share"; value: unknown } | { type: "reported"; value: unknown } | { type: "failed"; error: WireError };

/**
 * Measures on so many ranks.
 *
 * @param onReported gets what rank 0 reports
 * @throws LongcatError what a rank threw; COMM_ERROR: its process ended; ABORTED
 */
export async function runRanks<K extends keyof RankBenches>(
  bench: K,
  ranks: number,
  { signal, ...plan }: RankBenches[K]["plan"] & { signal?: AbortSignal | undefined },
  onReported: (value: RankBenches[K]["reported"]) => void,
): Promise<void> {
  const program = compiledFile(import.meta.url, "bench-rank-main");
  if (program === null) throw new LongcatError("INTERNAL", "engine/bench-rank-main.js is not built: npm run build");
  const children: ChildProcess[] = [];
  let values: { rank: number; value: unknown }[] = [];
  const share = (rank: number, value: unknown): void => {
    values.push({ rank, value });
    if (values.length < ranks) return;
    const all = values.sort((a, b) => a.rank - b.rank).map((one) => one.value);
    values = [];
    for (const child of children) child.send(all);
  };
  const start = (rank: number): Promise<void> =>
    new Promise((resolve, reject) => {
      const stdio: StdioOptions = ["ignore", "inherit", "inherit", "ipc"];
      const child = fork(program, { serialization: "advanced", stdio });
      children.push(child);
      child.on("message", (message: FromRank) => {
        if (message.type === "share") share(rank, message.value);
        else if (message.type === "reported") onReported(message.value as RankBenches[K]["reported"]);
        else reject(fromWire(message.error, rankName(rank, ranks)));
      });
      child.on("error", (cause) => reject(new LongcatError("COMM_ERROR", `${rankName(rank, ranks)}: ${cause.message}`, { cause })));
      child.on("exit", (code, killed) => {
        if (code === 0) return resolve();
        const how = killed === null ? `ended with exit code ${code}` : `was ended by ${killed}`;
        reject(new LongcatError("COMM_ERROR", `${rankName(rank, ranks)}: its process ${how}`));
      });
      const task: RankTask = { bench, plan: plan as RankBenches[K]["plan"], rank, ranks };
      child.send(task);
    });
  abortIfAsked(signal);
  let stopListening!: () => void;
  const stopped = new Promise<never>((_, reject) => {
    stopListening = onAbort(signal, () => reject(aborted(signal as AbortSignal)));
  });
  try {
    await Promise.race([stopped, Promise.all(Array.from({ length: ranks }, (_, rank) => start(rank)))]);
  } finally {
    stopListening();
    // A rank may stand in an exchange whose other ranks are gone.
    for (const child of children) if (child.exitCode === null) child.kill("SIGKILL");
  }
}
