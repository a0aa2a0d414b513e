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

/** What the step's operations share: tokens, slots, rotations, decode splits. */
function plan(queue: Queue, program: Program): void {
  const { step, tokens, rowSlot, cosSin, splits } = program.activations;
  ops.stepPlan(queue, {
    ...{ counts: step.counts, tokenIds: step.tokenIds, positions: step.positions, seqStart: step.seqStart, seqSlot: step.seqSlot },
    ...{ invFreq: program.invFreq, history: program.state.history, tokens, rowSlot, cosSin, splits },
    rotaryScale: program.rope.rotaryScale,
  });
}

/** x ← word embedding, with Lite's n-grams where the model has them. */
function embed(queue: Queue, program: Program, weights: ModelWeights): void {
  const { config, rows, state } = program;
  const { tokens, rowSlot, step, x } = program.activations;
  if (!config.ngram) {
    ops.embed(queue, { tokens, table: weights.embedding, out: x, rows });
    return;
  }
  ops.ngramEmbed(queue, {
    ...{ positions: step.positions, rowSlot, history: state.history, wordTable: weights.embedding, tables: weights.ngram },
    ...{ out: x, rows, neighbors: config.ngram.neighbors, splits: config.ngram.splits, endId: NGRAM_END_ID },
  });
}

/** Logits of the rows that the step names, into `activations.logits`. */
export function head(queue: Queue, program: Program, weights: ModelWeights): void {
  const { normed, step, logits } = program.activations;
  ops.linear(queue, { x: normed, rowIndex: step.logitRows, weight: weights.head, out: logits, rows: program.logitCount });
}

/** The next token of each row of logits, by its slot's sampling state. */
export function sample(queue: Queue, program: Program): void {
  const { step, logits, result } = program.activations;
  const { state } = program;
  ops.sample(queue, {
    ...{ logits, logitSlot: step.logitSlot, logitPosition: step.logitPosition, params: state.sampleParams, allowed: state.allowed },
    ...{ adjustments: state.adjustments, numAdjustments: state.numAdjustments, mask: state.mask, history: state.history },
    ...{ tokens: result.tokens, logprob: result.logprob, topIds: result.topIds, topLogprobs: result.topLogprobs, counts: step.counts },
  });
}

/** The log-probability of `step.targets` in each row of logits, into `activations.scores`. */
export function score(queue: Queue, program: Program): void {
  const { step, logits, scores } = program.activations;
  ops.tokenLogprobs(queue, { logits, targets: step.targets, out: scores, rows: program.logitCount });
}
