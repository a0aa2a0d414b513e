/**
 * The model as it is trained: tokens to logits to loss, and the way back.
 * @module
 */

import { NGRAM_END_ID } from "../model/config.js";
import type { ModelWeights } from "../model/weights.js";
import type { Queue, Tensor } from "../runtime/device.js";
import { ops } from "../runtime/ops.js";
import { COMMANDS_PER_LAYER, layerBackward, layerForward, norm, normBackward, type Pass, type Stream } from "./layer.js";

/** Embedding, all layers, final norm, head: afterwards `memory.logits` holds the batch's logits, and the layers' memories what a backward reads. */
export async function forward(queue: Queue, pass: Pass, weights: ModelWeights): Promise<void> {
  const { memory } = pass;
  await queue.room();
  plan(queue, pass);
  embed(queue, pass, weights);
  let stream: Stream = { x: memory.embedded };
  for (const [index, layerWeights] of weights.layers.entries()) {
    if (!queue.hasRoom(COMMANDS_PER_LAYER)) await queue.room();
    stream = layerForward(queue, pass, layerWeights, memory.layers[index]!, stream);
  }
  await queue.room();
  norm(queue, pass, weights.norm, stream, memory.final);
  ops.linear(queue, { x: memory.final.out, weight: weights.head, out: memory.logits, rows: memory.rows });
}

/** `memory.loss` ← each row's cross-entropy, of the logits that a forward left. */
export function loss(queue: Queue, { memory }: Pass): void {
  const { targets, lossScale } = memory.batch;
  ops.crossEntropy(queue, { logits: memory.logits, targets, scale: lossScale, loss: memory.loss, rows: memory.rows });
}

/** What a forward's loss says of every weight, added to `gradients`. The losses are where `loss` puts them; the logits are gone. */
export async function backward(queue: Queue, pass: Pass, weights: ModelWeights, gradients: ModelWeights): Promise<void> {
  const { memory } = pass;
  const { targets, lossScale, zLossScale } = memory.batch;
  const { dX, dNormed } = memory.backward;
  const { logits, rows, final } = memory;
  await queue.room();
  ops.crossEntropy(queue, { logits, targets, scale: lossScale, loss: memory.loss, dLogits: logits, rows });
  ops.linearBackward(queue, { x: final.out, weight: weights.head, dWeight: gradients.head, dOut: logits, dX: dNormed, rows });
  queue.fill(dX, 0);
  ops.hiddenZLoss(queue, { x: final.sum, scale: zLossScale, loss: memory.zLoss, dX, rows });
  normBackward(queue, pass, weights.norm, gradients.norm, final, { dOut: dNormed });
  for (let index = weights.layers.length - 1; index >= 0; index--) {
    if (!queue.hasRoom(COMMANDS_PER_LAYER)) await queue.room();
    layerBackward(queue, pass, weights.layers[index]!, gradients.layers[index]!, index);
  }
  await queue.room();
  embedBackward(queue, pass, weights, gradients, dX);
}

/** Tokens, positions, slots and rotations of the batch, as a step of prompts has them. */
function plan(queue: Queue, { memory, rope }: Pass): void {
  ops.stepPlan(queue, { ...memory.batch, invFreq: memory.invFreq, rotaryScale: rope.rotaryScale, ahead: 0 });
}

function embed(queue: Queue, { config, memory }: Pass, weights: ModelWeights): void {
  const { batch, embedded: out, rows } = memory;
  if (!config.ngram) {
    ops.embed(queue, { tokens: batch.tokens, table: weights.embedding, out, rows });
    return;
  }
  const { positions, rowSlot, history } = batch;
  ops.ngramEmbed(queue, {
    ...{ positions, rowSlot, history, wordTable: weights.embedding, tables: weights.ngram, out, rows },
    ...{ neighbors: config.ngram.neighbors, splits: config.ngram.splits, endId: NGRAM_END_ID },
  });
}

function embedBackward(queue: Queue, { config, memory }: Pass, weights: ModelWeights, gradients: ModelWeights, dOut: Tensor): void {
  const { batch, rows } = memory;
  if (!config.ngram) {
    ops.embedBackward(queue, { tokens: batch.tokens, dTable: gradients.embedding, dOut, rows });
    return;
  }
  const { positions, rowSlot, history } = batch;
  const tables = weights.ngram.map(({ table, projection }, i) => {
    const { table: dTable, projection: dProjection } = gradients.ngram[i]!;
    return { table, dTable, projection, dProjection };
  });
  ops.ngramEmbedBackward(queue, {
    ...{ positions, rowSlot, history, dWordTable: gradients.embedding, dOut, rows, tables },
    ...{ neighbors: config.ngram.neighbors, splits: config.ngram.splits, endId: NGRAM_END_ID },
  });
}
