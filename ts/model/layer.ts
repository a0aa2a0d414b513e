/**
 * One LongCat-Flash layer, as the technical report draws it: two attentions and two dense FFNs in a row, and a mixture of experts
 * that leaves after the first attention and comes back at the layer's end (the shortcut, ScMoE).
 *
 * ```
 *   x ──┬─ norm ─ MLA 0 ─ + ─┬─ norm ─┬─ dense FFN 0 ─ + ─ norm ─ MLA 1 ─ + ─ norm ─ dense FFN 1 ─ + ─── + ── x'
 *       └────────────────────┘        └─ router ─ dispatch ──── experts, zero experts ──── combine ───┘
 *   stage            1                                2                  3                    4
 * ```
 *
 * The second line from `router` on is a branch of its own, which runs beside dense FFN 0, MLA 1 and dense FFN 1. Where the experts are shared out
 * among ranks, rows go to those that hold their experts (dispatch) and come back as sums (combine): the time that takes is the dense branch's.
 * One rank has all experts, and neither.
 *
 * Every add of the residual stream happens in the norm that follows it, so a layer takes and returns a stream with the adds that are
 * still due. Shapes: ts/model/activations.ts; mathematics: the headers in native/ops.
 * @module
 */

import type { Queue, Tensor } from "../runtime/device.js";
import { ops } from "../runtime/ops.js";
import type { Program, ProgramExchange } from "./program.js";
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
/** Those of a layer whose experts are shared out, beside them: dispatch and combine. */
export const COMMANDS_PER_EXCHANGE = 2;

/**
 * Enqueues layer `index` of the trunk.
 *
 * @param queue the branch of the dense FFNs and attentions; the experts go to `program.branch`.
 * @param stream the adds due before the layer.
 * @returns the adds due after it: dense FFN 1, then the experts.
 */
export function layer(queue: Queue, program: Program, weights: LayerWeights, index: number, stream: Stream): Stream {
  const { x, normed, shared, attended, dense, moe } = program.activations;
  const { branch } = program;

  // Stage 1: what follows on both branches starts from attention 0.
  norm(queue, program, weights.inputNorm[0], stream, normed);
  program.tap?.hiddenBefore(queue, index, x);
  attention(queue, program, weights.attention[0], 2 * index, normed, attended);
  norm(queue, program, weights.postAttentionNorm[0], { add: attended }, shared);

  branch.wait(queue.signal());
  // Stage 2 of the branch: rows are on their way to their experts.
  route(branch, program, weights.moe, index, shared);
  dispatch(branch, program, shared);
  // Stage 3: the rows that came, and what this rank's experts make of them.
  experts(branch, program, weights.moe, shared);

  // Beside stages 2 to 4: the rest of the dense branch.
  mlp(queue, program, weights.dense[0], shared, dense);
  norm(queue, program, weights.inputNorm[1], { add: dense }, normed);
  attention(queue, program, weights.attention[1], 2 * index + 1, normed, attended);
  norm(queue, program, weights.postAttentionNorm[1], { add: attended }, normed);
  mlp(queue, program, weights.dense[1], normed, dense);

  // Stage 4 of the branch: sums come back. Enqueued last, since on the CPU both branches run in the order in which they are enqueued: a rank
  // waits for slower ones once it has nothing else to do.
  combine(branch, program, shared);
  queue.wait(branch.signal());
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

/** The experts of each row and their weights; where all are here, also which rows each expert has. */
function route(queue: Queue, program: Program, weights: MoeWeights, index: number, h: Tensor): void {
  const { config, rows } = program;
  const { ids, scores, weights: gates, identityWeight, plan } = program.activations.moe;
  ops.moeRoute(queue, {
    ...{ h, classifier: weights.classifier, bias: weights.bias, scores, ids, weights: gates, identityWeight },
    ...{ ffnCount: program.ffnCount[index]!, rows, ...(!program.exchange && plan) },
    ...{ experts: config.numExperts, factor: config.routedScalingFactor },
  });
  program.tap?.routing(queue, index, ids, gates, scores);
}

/** Several ranks: sends each row of `h` to those that hold its experts, and plans the rows that come. */
function dispatch(queue: Queue, program: Program, h: Tensor): void {
  const { exchange, rows, config, activations } = program;
  if (!exchange) return;
  const { ids, weights, plan } = activations.moe;
  const { sendSlot } = activations.moe.exchange!;
  ops.epDispatch(queue, {
    ...{ h, ids, weights, rows, ...exchangeArguments(exchange) },
    ...{ received: exchange.received, sendSlot, ...plan, experts: config.numExperts },
  });
}

/** The chosen experts' FFNs; where all experts are here also their sum with the zero experts' identity term, into `moe.out` [T, D]. */
function experts(queue: Queue, program: Program, { gate, up, down }: MoeWeights, h: Tensor): void {
  const { config, capacity, exchange, rows, activations } = program;
  const { weights, identityWeight, hidden, partial, out, plan } = activations.moe;
  if (exchange) {
    const { expertStart, planRow } = plan;
    // There is room for the picks of all ranks, but a rank gets about as many as it makes itself.
    const expected = capacity.tokens * config.topK;
    ops.moeExperts(queue, { h: exchange.received, gate, up, down, expertStart, planRow, hidden, partial, expected });
    return;
  }
  const summed = { weights, identityWeight, out, rows, ...(program.expertPlan ?? plan) };
  ops.moeExperts(queue, { h, gate, up, down, hidden, partial, ...summed, expected: 0 });
}

/** Several ranks: gives back what this rank's experts made, and adds up what the others give, with the identity term, into `moe.out` [T, D]. */
function combine(queue: Queue, program: Program, h: Tensor): void {
  const { exchange, rows, activations } = program;
  if (!exchange) return;
  const { partial, identityWeight, out, plan } = activations.moe;
  const { slotPlan } = plan;
  const { sendSlot } = activations.moe.exchange!;
  ops.epCombine(queue, { partial, h, identityWeight, rows, out, sendSlot, slotPlan, ...exchangeArguments(exchange) });
}

/** What both halves of an exchange take. */
function exchangeArguments({ rank, tokens, fp8Dispatch, windows, window, nccl, counts, epoch, control }: ProgramExchange) {
  const places = { windows, window, outbox: nccl?.outbox, counts, epoch, control: control.tensor };
  return { rank, windowTokens: tokens, fp8: Number(fp8Dispatch), ...places };
}

/** q_a_layernorm and kv_a_layernorm keep their class's default, whatever rms_norm_eps says. */
export const LATENT_NORM_EPS = 1e-6;
