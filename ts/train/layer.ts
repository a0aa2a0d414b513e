/**
 * One layer as it is trained: the forward of ts/model/layer.ts over whole sequences, which keeps what the backward reads, and the
 * backward beside it, in the reverse order.
 *
 * Whatever is added to the residual stream has the stream's gradient. So there is one gradient dX, from the model's end to its beginning: each
 * branch goes back from it, and the norm at the branch's root adds what comes out to it.
 * Shapes: ts/train/memory.ts; mathematics: native/ops/<op>/backward/params.h.
 * @module
 */

import type { ModelConfig, RopeParameters } from "../model/config.js";
import { LATENT_NORM_EPS } from "../model/layer.js";
import type { AttentionWeights, DenseWeights, LayerWeights, MoeWeights } from "../model/weights.js";
import type { Queue, Tensor } from "../runtime/device.js";
import { ops } from "../runtime/ops.js";
import type { AttentionMemory, LayerMemory, MoeMemory, NormMemory, TrainMemory } from "./memory.js";

/** Weight of the device-level balance loss, and groups of FFN experts; the report's Eq. 3. */
export interface BalanceOptions {
  alpha: number;
  groups: number;
  /** K_e: FFN experts that a token should use on average. */
  meanExperts: number;
}

/** What a pass is over. */
export interface Pass {
  config: ModelConfig;
  rope: RopeParameters;
  memory: TrainMemory;
  balance: BalanceOptions | null;
}

/** The residual stream: its value is (x + add) + add2. */
export interface Stream {
  x: Tensor;
  add?: Tensor;
  add2?: Tensor;
}

/** Commands that a layer's forward, or its backward, enqueues at most. */
export const COMMANDS_PER_LAYER = 16;

/** Enqueues a layer; returns the stream with the adds that are due behind it. */
export function layerForward(queue: Queue, pass: Pass, weights: LayerWeights, memory: LayerMemory, stream: Stream): Stream {
  const { attended, dense, experts: expertsOut } = pass.memory.forward;
  const [first, shared, third, fourth] = memory.norms;

  norm(queue, pass, weights.inputNorm[0], stream, first);
  attention(queue, pass, weights.attention[0], memory.attention[0], first.out, attended);
  norm(queue, pass, weights.postAttentionNorm[0], { x: first.sum, add: attended }, shared);
  experts(queue, pass, weights.moe, memory.moe, shared.out, expertsOut);
  mlp(queue, pass, weights.dense[0], shared.out, dense);
  norm(queue, pass, weights.inputNorm[1], { x: shared.sum, add: dense }, third);
  attention(queue, pass, weights.attention[1], memory.attention[1], third.out, attended);
  norm(queue, pass, weights.postAttentionNorm[1], { x: third.sum, add: attended }, fourth);
  mlp(queue, pass, weights.dense[1], fourth.out, dense);
  return { x: fourth.sum, add: dense, add2: expertsOut };
}

/**
 * Enqueues a layer's backward: dX, the gradient of the stream behind the layer, becomes that of the stream before it. The experts come first,
 * since what they added was added at the layer's end.
 */
export function layerBackward(queue: Queue, pass: Pass, weights: LayerWeights, gradients: LayerWeights, index: number): void {
  const { norms, attention: attentions, moe } = pass.memory.layers[index]!;
  const { dX, dNormed, dShared } = pass.memory.backward;
  const [first, shared, third, fourth] = norms;

  expertsBackward(queue, pass, weights.moe, gradients.moe, moe, index, shared.out, dX, dShared);
  mlpBackward(queue, pass, weights.dense[1], gradients.dense[1], fourth.out, dX, dNormed);
  normBackward(queue, pass, weights.postAttentionNorm[1], gradients.postAttentionNorm[1], fourth, { dOut: dNormed });
  attentionBackward(queue, pass, weights.attention[1], gradients.attention[1], attentions[1], third.out, dX, dNormed);
  normBackward(queue, pass, weights.inputNorm[1], gradients.inputNorm[1], third, { dOut: dNormed });
  mlpBackward(queue, pass, weights.dense[0], gradients.dense[0], shared.out, dX, dNormed);
  normBackward(queue, pass, weights.postAttentionNorm[0], gradients.postAttentionNorm[0], shared, { dOut: dNormed, dOut2: dShared });
  attentionBackward(queue, pass, weights.attention[0], gradients.attention[0], attentions[0], first.out, dX, dNormed);
  normBackward(queue, pass, weights.inputNorm[0], gradients.inputNorm[0], first, { dOut: dNormed });
}

/** memory.sum ← the stream's value; memory.out = its norm. */
export function norm(queue: Queue, { config, memory }: Pass, weight: Tensor, stream: Stream, to: NormMemory): void {
  ops.rmsNorm(queue, { ...stream, weight, sum: to.sum, out: to.out, rows: memory.rows, eps: config.rmsNormEps });
}

/** dX += what comes back through the norm. */
export function normBackward(
  queue: Queue,
  { config, memory }: Pass,
  weight: Tensor,
  dWeight: Tensor,
  { sum }: NormMemory,
  gradients: { dOut: Tensor; dOut2?: Tensor },
): void {
  const { dX, scales } = memory.backward;
  ops.rmsNormBackward(queue, {
    ...{ sum, weight, dWeight, ...gradients, dResidual: dX, dSum: dX, scales, rows: memory.rows, eps: config.rmsNormEps },
  });
}

/** Latent attention of whole sequences, in the expanded form, into `out` [T, D]. */
function attention(queue: Queue, pass: Pass, weights: AttentionWeights, to: AttentionMemory, x: Tensor, out: Tensor): void {
  const { config, rope, memory } = pass;
  const { batch, rows, forward } = memory;
  ops.mlaProject(queue, {
    ...{ x, qA: weights.qA, qABias: weights.qABias, qANorm: weights.qANorm, qB: weights.qB },
    ...{ kvA: weights.kvA, kvABias: weights.kvABias, kvANorm: weights.kvANorm },
    ...{ cosSin: batch.cosSin, positions: batch.positions, rowSlot: batch.rowSlot, blockTables: batch.blockTables },
    ...{ qLatent: forward.qLatent, kvLatent: forward.kvLatent, q: to.q, cache: to.cache, rows, ...projection(config) },
  });
  ops.mlaPrefill(queue, {
    ...{ q: to.q, cache: to.cache, kvB: weights.kvB, positions: batch.positions, blockTables: batch.blockTables, counts: batch.counts },
    ...{ seqStart: batch.seqStart, seqSlot: batch.seqSlot, state: to.state, out: to.heads, maxKeys: 0 },
    ...{ ...heads(config), softmaxScale: rope.softmaxScale },
  });
  ops.linear(queue, { x: to.heads, weight: weights.o, bias: weights.oBias, out, rows });
}

function attentionBackward(
  queue: Queue,
  { config, rope, memory }: Pass,
  weights: AttentionWeights,
  gradients: AttentionWeights,
  { q, latents, heads: attended, state }: AttentionMemory,
  x: Tensor,
  dOut: Tensor,
  dX: Tensor,
): void {
  const { batch, rows } = memory;
  const { dHeads, dQ, dLatents, dExpanded, dRopeKeys, qLatent, qNormed, dQLatent, kvLatent, latentScales } = memory.backward;
  ops.linearBackward(queue, {
    ...{ x: attended, weight: weights.o, dWeight: gradients.o, bias: weights.oBias, dBias: gradients.oBias, dOut, dX: dHeads, rows },
  });
  ops.mlaPrefillBackward(queue, {
    ...{ q, latents, kvB: weights.kvB, dKvB: gradients.kvB, seqStart: batch.seqStart, counts: batch.counts, out: attended, state },
    ...{ dOut: dHeads, dQ, dLatents, dExpanded, dRopeKeys, ...heads(config), softmaxScale: rope.softmaxScale },
  });
  ops.mlaProjectBackward(queue, {
    ...{ x, qA: weights.qA, dQA: gradients.qA, qABias: weights.qABias, dQABias: gradients.qABias },
    ...{ qANorm: weights.qANorm, dQANorm: gradients.qANorm, qB: weights.qB, dQB: gradients.qB },
    ...{ kvA: weights.kvA, dKvA: gradients.kvA, kvABias: weights.kvABias, dKvABias: gradients.kvABias },
    ...{ kvANorm: weights.kvANorm, dKvANorm: gradients.kvANorm, cosSin: batch.cosSin },
    ...{ dQ, dLatents, dX, qLatent, qNormed, dQLatent, kvLatent, scales: latentScales, rows, ...projection(config) },
  });
}

/** A dense FFN into `out` [T, D]. */
function mlp(queue: Queue, { memory }: Pass, weights: DenseWeights, x: Tensor, out: Tensor): void {
  ops.swigluMlp(queue, { x, ...weights, hidden: memory.forward.ffnHidden, out, rows: memory.rows });
}

function mlpBackward(
  queue: Queue,
  { memory }: Pass,
  weights: DenseWeights,
  gradients: DenseWeights,
  x: Tensor,
  dOut: Tensor,
  dX: Tensor,
): void {
  ops.swigluMlpBackward(queue, { x, ...weights, ...ffnGradients(gradients), dOut, dX, ...memory.backward.dense, rows: memory.rows });
}

/** Routing, the chosen experts' FFNs and the zero experts' identity term, into `out` [T, D]. */
function experts(queue: Queue, { config, memory }: Pass, weights: MoeWeights, to: MoeMemory, h: Tensor, out: Tensor): void {
  const { rows, forward } = memory;
  ops.moeRoute(queue, {
    ...{ h, classifier: weights.classifier, bias: weights.bias, ...to, rows },
    ...{ experts: config.numExperts, factor: config.routedScalingFactor },
  });
  ops.moeExperts(queue, {
    ...{ h, gate: weights.gate, up: weights.up, down: weights.down, ...to },
    ...{ hidden: forward.expertHidden, partial: forward.expertPartial, out, rows, expected: 0 },
  });
}

/** dH ← what the experts give back and the router adds, with the balance loss's part where there is one. */
function expertsBackward(
  queue: Queue,
  { config, memory, balance }: Pass,
  weights: MoeWeights,
  gradients: MoeWeights,
  routing: MoeMemory,
  index: number,
  h: Tensor,
  dOut: Tensor,
  dH: Tensor,
): void {
  const { rows } = memory;
  const { dLogits, dScore, probability, partial, gateRows, upRows, hiddenRows } = memory.backward.experts;
  const { balanceLoss, share, dWeights } = memory.routers[index]!;
  ops.moeExpertsBackward(queue, {
    ...{ h, gate: weights.gate, up: weights.up, down: weights.down, ...ffnGradients(gradients), ...routing },
    ...{ dOut, dH, dWeights, gateRows, upRows, hiddenRows, partial, rows },
  });
  if (balance)
    ops.balanceLoss(queue, {
      ...{ scores: routing.scores, ids: routing.ids, loss: balanceLoss, share, probability, dScore, rows },
      ...{ experts: config.numExperts, ...balance },
    });
  ops.moeRouteBackward(queue, {
    ...{ h, classifier: weights.classifier, dClassifier: gradients.classifier, scores: routing.scores, ids: routing.ids },
    ...{ dWeights, dScore: balance ? dScore : undefined, dH, dLogits, rows, factor: config.routedScalingFactor },
  });
}

function ffnGradients({ gate, up, down }: DenseWeights) {
  return { dGate: gate, dUp: up, dDown: down };
}

function heads({ numHeads, qkNopeHeadDim: nope, qkRopeHeadDim: rope, vHeadDim: vDim }: ModelConfig) {
  return { heads: numHeads, nope, rope, vDim };
}

function projection({ numHeads, qkNopeHeadDim: nope, qkRopeHeadDim: rope, qScale, kvScale }: ModelConfig) {
  return { heads: numHeads, nope, rope, eps: LATENT_NORM_EPS, qScale, kvScale };
}
