/**
 * How messages name ranks.
 * @module
 */

import { LongcatError } from "../errors.js";

/** "rank 3 of 16". */
export function rankName(rank: number, ranks: number): string {
  return `rank ${rank} of ${ranks}`;
}

/** The error of a rank whose leader is gone. */
export function leaderLost(rank: number, ranks: number, why: string): LongcatError {
  return new LongcatError("COMM_ERROR", `${rankName(rank, ranks)} has lost its leader: ${why}`);
}

/** "rank 1 of 2", "ranks 3, 5–7 of 16": ascending. */
export function rankNames(some: readonly number[], ranks: number): string {
  if (some.length === 1) return rankName(some[0] as number, ranks);
  const runs: [first: number, last: number][] = [];
  for (const rank of some) {
    const run = runs.at(-1);
    if (run !== undefined && rank === run[1] + 1) run[1] = rank;
    else runs.push([rank, rank]);
  }
  const shown = runs.map(([first, last]) => (first === last ? `${first}` : `${first}–${last}`));
  return `ranks ${shown.join(", ")} of ${ranks}`;
}
