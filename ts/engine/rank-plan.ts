/**
 * A layer as one rank of many has it: some experts and as many rows for each of them as the others send, whatever this rank's own router
 * chooses. What `longcat bench layer --expert-rows` measures.
 * @module
 */

import { LongcatError } from "../errors.js";
import type { ExpertPlan, Program } from "../model/program.js";
import type { Queue } from "../runtime/device.js";

/** The experts of a rank, and rows of each. */
export interface RankShare {
  experts: number;
  rowsEach: number;
}

/** The rows that a step must have for its picks, `topK` a row, to be as many as the share's rows. */
export function leastRows({ experts, rowsEach }: RankShare, topK: number): number {
  return Math.ceil((experts * rowsEach) / topK);
}

/** @throws LongcatError OPTION_INVALID where `rows` rows of `topK` picks are too few */
export function checkShare(share: RankShare, rows: number, topK: number): void {
  const { experts, rowsEach } = share;
  const least = leastRows(share, topK);
  if (rows < least)
    throw new LongcatError(
      "OPTION_INVALID",
      `expert rows: ${rowsEach} for each of ${experts} experts are ${experts * rowsEach} picks, ${topK} a row; give steps of ${least} rows or more (batch, prompt), not of ${rows}`,
    );
}

/** A plan's numbers, as `moe_route` would write them (native/ops/moe_route/params.h). */
export interface PlanNumbers {
  /** [experts + 1] */
  expertStart: Int32Array;
  /** [capacity · topK] */
  planRow: Int32Array;
  /** [capacity, topK]: −1 where a pick went to another rank. */
  slotPlan: Int32Array;
}

/**
 * The experts' rows go round the step's rows, again and again: entry i is row i mod `rows`, and that row's next pick. Where an expert has more
 * rows than the step, it has some of them twice; a product does not mind.
 */
export function planShare({ experts, rowsEach }: RankShare, step: { rows: number; capacity: number; topK: number }): PlanNumbers {
  const { rows, capacity, topK } = step;
  const entries = experts * rowsEach;
  return {
    expertStart: Int32Array.from({ length: experts + 1 }, (_, e) => e * rowsEach),
    planRow: Int32Array.from({ length: capacity * topK }, (_, i) => (i < entries ? i % rows : 0)),
    slotPlan: Int32Array.from({ length: capacity * topK }, (_, i) => {
      const row = Math.floor(i / topK);
      const entry = (i % topK) * rows + row;
      return row < rows && entry < entries ? entry : -1;
    }),
  };
}

/** The share's plan on the program's device, written before anything that is enqueued later. */
export function placeShare(queue: Queue, { config, capacity }: Program, share: RankShare, rows: number): ExpertPlan {
  const { topK } = config;
  const numbers = planShare(share, { rows, capacity: capacity.tokens, topK });
  const place = (values: Int32Array, shape: number[]) => {
    const tensor = queue.device.tensor("int32", shape);
    queue.write(tensor, values);
    return tensor;
  };
  return {
    expertStart: place(numbers.expertStart, [share.experts + 1]),
    planRow: place(numbers.planRow, [capacity.tokens * topK]),
    slotPlan: place(numbers.slotPlan, [capacity.tokens, topK]),
  };
}
