/**
 * The model: tokens to hidden states to logits to tokens, as a sequence of operations.
 * @module
 */

import type { Queue } from "../runtime/device.js";
import { ops } from "../runtime/ops.js";
import { NGRAM_END_ID } from "./config.js";
import { layer, norm, type Stream } from "./layer.js";
import type { Program } from "./program.js";
import type { ModelWeights } from "./weights.js";

/**
 * Embedding, all layers, final norm. Afterwards `activations.normed` [T, D] holds what the head reads, and the latent caches hold
 * the step's rows.
 */
export function forward(queue: Queue, program: Program, weights: ModelWeights): void {
  plan(queue, program);
  embed(queue, program, weights);
  let stream: Stream = {};
  weights.layers.forEach((layerWeights, index) => {
    stream = layer(queue, program, layerWeights, index, stream);
  });
  const { x, normed } = program.activations;
  norm(queue, program, weights.norm, stream, normed);
  program.tap?.hiddenBefore(queue, weights.layers.length, x);
}

/** What the step's operations share: tokens, positions, slots, rotations, decode splits. */
function plan(queue: Queue, program: Program): void {
  const { step, tokens, positions, rowSlot, cosSin, splits, logitPosition, logitToken } = program.activations;
  const { history, lengths } = program.state;
  ops.stepPlan(queue, {
    ...{ ...step, invFreq: program.invFreq, history, lengths, tokens, positions, rowSlot, cosSin, splits, logitPosition, logitToken },
    ...{ rotaryScale: program.rope.rotaryScale, ahead: 0 },
  });
}

/** x ← word embedding, with Lite's n-grams where the model has them. */
function embed(queue: Queue, program: Program, weights: ModelWeights): void {
  const { config, rows, state } = program;
  const { tokens, positions, rowSlot, x } = program.activations;
  if (!config.ngram) {
    ops.embed(queue, { tokens, table: weights.embedding, out: x, rows });
    return;
  }
  ops.ngramEmbed(queue, {
    ...{ positions, rowSlot, history: state.history, wordTable: weights.embedding, tables: weights.ngram },
    ...{ out: x, rows, neighbors: config.ngram.neighbors, splits: config.ngram.splits, endId: NGRAM_END_ID },
  });
}

/** Logits of the rows that the step names, into `activations.logits`. */
export function head(queue: Queue, program: Program, weights: ModelWeights): void {
  const { normed, step, logits } = program.activations;
  ops.linear(queue, { x: normed, rowIndex: step.logitRows, weight: weights.head, out: logits, rows: program.logitCount });
}

/**
 * The next token of each sequence, by its slot's sampling state. In turn j, sequences with j drafts and more draw from the row of their j-th,
 * if it is what they drew in the turn before: what a draw depends on, penalties too, is then what it is without drafts.
 */
export function sample(queue: Queue, program: Program, turns: number): void {
  const { step, logits, logitPosition, logitToken, result } = program.activations;
  const { lengths } = program.state;
  for (const [turn, drawn] of result.turns.slice(0, turns).entries())
    ops.sample(queue, {
      ...{ ...samplingState(program), logits, logitSlot: step.logitSlot, logitPosition, logitToken, lengths },
      ...{ ...drawn, rows: program.turns[turn]!, draft: 0, mostRows: program.capacity.sequences },
    });
}

/** What slots' draws depend on beside logits. */
export function samplingState({ state }: Program) {
  const { sampleParams: params, allowed, adjustments, numAdjustments, mask, history } = state;
  return { params, allowed, adjustments, numAdjustments, mask, history };
}

/** The log-probability of `step.targets` in each row of logits, into `activations.scores`. */
export function score(queue: Queue, program: Program): void {
  const { step, logits, scores } = program.activations;
  ops.tokenLogprobs(queue, { logits, targets: step.targets, out: scores, rows: program.logitCount });
}
