/**
 * One LongCat-Flash layer, as the technical report draws it: two attentions and two dense FFNs in a row, and a mixture of experts
 * that leaves after the first attention and comes back at the layer's end (the shortcut, ScMoE).
 *
 * ```
 *   x ──┬─ norm ─ MLA 0 ─ + ─┬─ norm ─┬─ dense FFN 0 ─ + ─ norm ─ MLA 1 ─ + ─ norm ─ dense FFN 1 ─ + ─── + ── x'
 *       └────────────────────┘        └────────────────── experts, zero experts ──────────────────────┘
 * ```
 *
 * Every add of the residual stream happens in the norm that follows it, so a layer takes and returns a stream with the adds that are
 * still due. Shapes: ts/model/activations.ts; mathematics: the headers in native/ops.
 * @module
 */

import type { Queue, Tensor } from "../runtime/device.js";
import { ops } from "../runtime/ops.js";
import type { Program } from "./program.js";
import type { AttentionWeights, DenseWeights, LayerWeights, MoeWeights } from "./weights.js";

/** The residual stream: its value is (x + add) + add2. */
export interface Stream {
  add?: Tensor;
  add2?: Tensor;
}

/**
 * Commands that `layer` enqueues at most: two attentions of four operations, two FFNs, four norms, routing and experts; on a GPU the marks
 * between its two queues too, and waiting for them.
 */
export const COMMANDS_PER_LAYER = { cpu: 16, cuda: 20 } as const;

/**
 * Enqueues layer `index` of the trunk.
 *
 * @param queue the branch of the dense FFNs and attentions; the experts go to `program.branch`.
 * @param stream the adds due before the layer.
 * @returns the adds due after it: dense FFN 1, then the experts.
 */
export function layer(queue: Queue, program: Program, weights: LayerWeights, index: number, stream: Stream): Stream {
  const { x, normed, shared, attended, dense, moe } = program.activations;

  norm(queue, program, weights.inputNorm[0], stream, normed);
  program.tap?.hiddenBefore(queue, index, x);
  attention(queue, program, weights.attention[0], 2 * index, normed, attended);
  norm(queue, program, weights.postAttentionNorm[0], { add: attended }, shared);

  program.branch.wait(queue.signal());
  experts(program.branch, program, weights.moe, index, shared, moe.out);
  const expertsDone = program.branch.signal();

  mlp(queue, program, weights.dense[0], shared, dense);
  norm(queue, program, weights.inputNorm[1], { add: dense }, normed);
  attention(queue, program, weights.attention[1], 2 * index + 1, normed, attended);
  norm(queue, program, weights.postAttentionNorm[1], { add: attended }, normed);
  mlp(queue, program, weights.dense[1], normed, dense);

  queue.wait(expertsDone);
  return { add: dense, add2: moe.out };
}

/** x ← the stream's value; out = its norm. */
export function norm(queue: Queue, program: Program, weight: Tensor, stream: Stream, out: Tensor): void {
  const { x } = program.activations;
  const sum = stream.add ? x : undefined;
  ops.rmsNorm(queue, { x, ...stream, weight, sum, out, rows: program.rows, eps: program.config.rmsNormEps });
}

/**
 * Multi-head latent attention into `out` [T, D]. Prompt tokens go through the expanded form, generated ones through the absorbed
 * form, over the same latent cache (docs/numerics.md, 3).
 *
 * @param slot which latent cache: 2·layer + attention; after the trunk's, the draft head's.
 */
export function attention(queue: Queue, program: Program, weights: AttentionWeights, slot: number, x: Tensor, out: Tensor): void {
  const { config, state, rope, rows } = program;
  const { step, attention: scratch, cosSin, positions, rowSlot, splits } = program.activations;
  const cache = state.caches[slot]!;
  const shape = { heads: config.numHeads, nope: config.qkNopeHeadDim, rope: config.qkRopeHeadDim };

  ops.mlaProject(queue, {
    ...{ x, qA: weights.qA, qABias: weights.qABias, qANorm: weights.qANorm, qB: weights.qB },
    ...{ kvA: weights.kvA, kvABias: weights.kvABias, kvANorm: weights.kvANorm },
    ...{ cosSin, positions, rowSlot, blockTables: state.blockTables },
    ...{ qLatent: scratch.qLatent, kvLatent: scratch.kvLatent, latentLanes: scratch.latentLanes, q: scratch.q, cache, rows },
    ...{ ...shape, eps: LATENT_NORM_EPS, qScale: config.qScale, kvScale: config.kvScale },
  });
  const shared = {
    ...{ q: scratch.q, cache, kvB: weights.kvB, positions, blockTables: state.blockTables, counts: step.counts },
    ...{ ...shape, vDim: config.vHeadDim, softmaxScale: rope.softmaxScale, out: scratch.heads },
  };
  if (program.prefill)
    ops.mlaPrefill(queue, {
      ...{ ...shared, seqStart: step.seqStart, seqSlot: step.seqSlot, state: scratch.state },
      ...{
        expanded: scratch.expanded,
        accumulator: scratch.accumulator,
        roundPlan: scratch.roundPlan,
        latents: scratch.latents,
        maxKeys: program.promptKeys,
      },
    });
  if (program.decode) ops.mlaDecode(queue, { ...shared, rowSlot, splits, qLatent: scratch.qAbsorbed, partial: scratch.partial });
  ops.linear(queue, { x: scratch.heads, weight: weights.o, bias: weights.oBias, out, rows, scratch: scratch.q });
}

/** A dense FFN into `out` [T, D]. */
export function mlp(queue: Queue, program: Program, weights: DenseWeights, x: Tensor, out: Tensor): void {
  ops.swigluMlp(queue, { x, ...weights, hidden: program.activations.ffnHidden, out, rows: program.rows });
}

/** Routing, the chosen experts' FFNs and the zero experts' identity term, into `out` [T, D]. */
function experts(queue: Queue, program: Program, weights: MoeWeights, index: number, h: Tensor, out: Tensor): void {
  const { config, rows } = program;
  const { ids, scores, weights: gates, identityWeight, expertStart, planRow, slotPlan, hidden, partial } = program.activations.moe;
  const plan = program.expertPlan ?? { expertStart, planRow, slotPlan };
  ops.moeRoute(queue, {
    ...{ h, classifier: weights.classifier, bias: weights.bias, scores, ids, weights: gates, identityWeight },
    ...{ ffnCount: program.ffnCount[index]!, expertStart, planRow, slotPlan, rows },
    ...{ experts: config.numExperts, factor: config.routedScalingFactor },
  });
  program.tap?.routing(queue, index, ids, gates, scores);
  ops.moeExperts(queue, {
    ...{ h, gate: weights.gate, up: weights.up, down: weights.down, weights: gates, identityWeight },
    ...{ ...plan, hidden, partial, out, rows },
  });
}

/** q_a_layernorm and kv_a_layernorm keep their class's default, whatever rms_norm_eps says. */
export const LATENT_NORM_EPS = 1e-6;
