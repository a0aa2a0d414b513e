/**
 * Batches: sequences one after another, each with what follows every token.
 * @module
 */

import { LongcatError } from "../errors.js";
import { StepCount } from "../model/program.js";
import type { Queue, Tensor } from "../runtime/device.js";
import type { BatchCapacity, TrainMemory } from "./memory.js";

/** A sequence. */
export interface TrainSequence {
  tokens: readonly number[];
  /** What each token is to predict; −1: not counted. As long as `tokens`. */
  targets: readonly number[];
}

/** Sequences of one pass. No attention goes from one to another. */
export type Batch = readonly TrainSequence[];

/** Targets that count. */
export function countTargets(batch: Batch): number {
  return batch.reduce((sum, { targets }) => sum + targets.filter((target) => target >= 0).length, 0);
}

/** Tokens of a batch. */
export function countTokens(batch: Batch): number {
  return batch.reduce((sum, { tokens }) => sum + tokens.length, 0);
}

/** What a row counts for in the losses that are differentiated. */
export interface LossScales {
  loss: number;
  zLoss: number;
}

/**
 * Enqueues the batch's way to the device.
 *
 * @throws LongcatError INTERNAL for a batch that has no room, or a sequence without tokens or with targets of another number
 */
export function writeBatch(queue: Queue, memory: TrainMemory, capacity: BatchCapacity, batch: Batch, scales: LossScales): void {
  check(batch, capacity);
  const rows = countTokens(batch);
  const counts = new Int32Array(8);
  counts[StepCount.numRows] = counts[StepCount.numPrefillRows] = rows;
  counts[StepCount.numSequences] = counts[StepCount.numPrefillSequences] = batch.length;
  const starts = [0];
  for (const { tokens } of batch) starts.push(starts.at(-1)! + tokens.length);
  // Blocks of one position: that of a sequence's position p is row start + p.
  const blockTables = new Int32Array(capacity.sequences * capacity.length);
  batch.forEach(({ tokens }, s) => {
    for (let p = 0; p < tokens.length; p++) blockTables[s * capacity.length + p] = starts[s]! + p;
  });
  const bySequence = (of: (s: number) => number) => Int32Array.from(batch, (_, s) => of(s));
  const byToken = (of: (sequence: TrainSequence) => readonly number[]) => Int32Array.from(batch.flatMap(of));

  const { batch: to } = memory;
  const values: [Tensor, Int32Array | Float32Array][] = [
    [to.counts, counts],
    [to.tokenIds, byToken(({ tokens }) => tokens)],
    [to.promptPositions, byToken(({ tokens }) => tokens.map((_, p) => p))],
    [to.targets, byToken(({ targets }) => targets)],
    [to.seqStart, Int32Array.from(starts)],
    [to.seqSlot, bySequence((s) => s)],
    [to.seqLimit, bySequence(() => capacity.length)],
    [to.seqNext, bySequence(() => -1)],
    [to.blockTables, blockTables],
    [to.lossScale, Float32Array.of(scales.loss)],
    [to.zLossScale, Float32Array.of(scales.zLoss)],
  ];
  for (const [tensor, numbers] of values) queue.write(tensor, numbers);
}

function check(batch: Batch, capacity: BatchCapacity): void {
  const most = Math.max(...batch.map(({ tokens }) => tokens.length));
  const fits = batch.length > 0 && batch.length <= capacity.sequences && countTokens(batch) <= capacity.tokens && most <= capacity.length;
  if (!fits)
    throw new LongcatError(
      "INTERNAL",
      `a batch of ${batch.length} sequences, ${countTokens(batch)} tokens and at most ${most} in one has no room in ` +
        `${capacity.sequences}, ${capacity.tokens} and ${capacity.length}`,
    );
  if (batch.some(({ tokens, targets }) => tokens.length === 0 || tokens.length !== targets.length))
    throw new LongcatError("INTERNAL", "a sequence to train on has no tokens, or not as many targets as tokens");
}
