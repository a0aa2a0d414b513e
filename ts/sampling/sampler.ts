/**
 * The host's twin of the `sample` operation (native/ops/sample/params.h, steps 4 and 5): filters and draw over the candidates that the
 * operation wrote out, with the same bits. Exponentials are never computed here; they come with the candidates.
 * @module
 */

import { uniform } from "./philox.js";

/** What `sample` writes for a row with hostDraw set: ids by rank, and the mass of all others. */
export interface Candidates {
  /** Candidate ids by adjusted logit descending, ties by lower id. */
  ids: ArrayLike<number>;
  /** exp((l − l_first) / temperature) of each. */
  exps: ArrayLike<number>;
  /** Sum of the exponentials of the ids that are not listed. */
  tailSum: number;
  /** How many those are. */
  tailCount: number;
}

/** The row's filters and its place in the random sequence. */
export interface DrawParams {
  /** 0: off. */
  topK: number;
  minP: number;
  topP: number;
  /** 0 … 2^53−1. */
  seed: number;
  /** The position that the token will have. */
  position: number;
}

/** Cuts one row of the operation's outputs to its candidates: `ids` ends at the first −1. */
export function candidatesOfRow(ids: Int32Array, exps: Float64Array, stats: Float64Array): Candidates {
  const end = ids.indexOf(-1);
  const count = end < 0 ? ids.length : end;
  return { ids: ids.subarray(0, count), exps: exps.subarray(0, count), tailSum: stats[0] ?? 0, tailCount: stats[1] ?? 0 };
}

/** What is known of a sum: at least `low`, at most `high`. The decision is only taken where both ends agree. */
interface Bounds {
  low: number;
  high: number;
}

/**
 * Draws the token that `sample` draws from the same row.
 *
 * @returns the token; `null` where the draw falls among the ids that are not listed, or might.
 *
 * @example
 * drawFromCandidates({ ids: [7, 3], exps: [1, 0.5], tailSum: 0, tailCount: 0 }, { topK: 0, minP: 0, topP: 1, seed: 1, position: 4 });
 */
export function drawFromCandidates(candidates: Candidates, params: DrawParams): number | null {
  const { ids, exps } = candidates;
  if (ids.length === 0) return null;
  const kept = keptCandidates(candidates, params);
  const tail = keptTail(candidates, params);
  const running = runningSums(kept.map((j) => exps[j]!));
  const sum = running[running.length - 1]!;
  let left: Bounds = { low: sum + tail.low, high: sum + tail.high };
  let end = kept.length;
  let tailLeft = tail.high > 0;

  if (params.topP < 1) {
    const goal: Bounds = { low: params.topP * left.low, high: params.topP * left.high };
    const first = running.findIndex((value) => value >= goal.low);
    const last = running.findIndex((value) => value >= goal.high);
    if (first !== last) return null;
    if (first >= 0) {
      end = first + 1;
      left = { low: running[first]!, high: running[first]! };
      tailLeft = false;
    } else if (tailLeft) {
      left = { low: Math.max(sum, goal.low), high: left.high };
    }
  }

  const u = uniform(params.seed, params.position);
  const choose = (mass: number): number => {
    for (let j = 0; j < end; j++) if (running[j]! > u * mass) return ids[kept[j]!]!;
    return tailLeft ? -1 : ids[kept[end - 1]!]!;
  };
  const token = choose(left.low);
  return token >= 0 && token === choose(left.high) ? token : null;
}

/** Places of the candidates that topK and minP leave. The first always stays. */
function keptCandidates({ ids, exps }: Candidates, { topK, minP }: DrawParams): number[] {
  const limit = topK > 0 ? Math.min(topK, ids.length) : ids.length;
  const least = minP * exps[0]!;
  const kept = [0];
  for (let j = 1; j < limit; j++) if (!(exps[j]! < least)) kept.push(j);
  return kept;
}

/** The mass that topK and minP leave of the ids not listed. */
function keptTail({ ids, exps, tailSum, tailCount }: Candidates, { topK, minP }: DrawParams): Bounds {
  const belowMinP = exps[ids.length - 1]! < minP * exps[0]!;
  if (tailCount === 0 || belowMinP || (topK > 0 && topK <= ids.length)) return { low: 0, high: 0 };
  // topK beyond the list takes some of the rest, and adds it in another order.
  if (topK > 0) return { low: 0, high: tailSum * (1 + 1e-9) };
  return { low: minP > 0 ? 0 : tailSum, high: tailSum };
}

/** Partial sums in order. */
function runningSums(values: readonly number[]): number[] {
  let sum = 0;
  return values.map((value) => (sum += value));
}
