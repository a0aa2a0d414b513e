/**
 * The draft head (multi-token prediction): from the trunk's hidden state at position t and the token at t+1, the token at t+2.
 * One attention with a latent cache of its own, one dense FFN; embedding and head are the trunk's.
 * @module
 */

import type { Queue } from "../runtime/device.js";
import { ops } from "../runtime/ops.js";
import { attention, mlp, norm } from "./layer.js";
import type { Program } from "./program.js";
import type { ModelWeights, MtpWeights } from "./weights.js";

/**
 * Enqueues the draft head over the step's rows. Reads `activations.normed` (the trunk's, after its final norm) and
 * `activations.tokens`, which must hold the *following* token of each row; leaves the draft's hidden state in `activations.normed`,
 * from which `head` makes logits and the next draft step goes on.
 */
export function draft(queue: Queue, program: Program, weights: ModelWeights & { mtp: MtpWeights }): void {
  const { mtp } = weights;
  const { config, rows } = program;
  const { tokens, x, normed, shared, attended, dense, draftInput } = program.activations;
  const D = config.hiddenSize;
  const eps = config.rmsNormEps;

  ops.embed(queue, { tokens, table: weights.embedding, out: x, rows });
  ops.rmsNorm(queue, { x, weight: mtp.embeddingNorm, out: draftInput.columns(0, D), rows, eps });
  ops.rmsNorm(queue, { x: normed, weight: mtp.hiddenNorm, out: draftInput.columns(D, 2 * D), rows, eps });
  ops.linear(queue, { x: draftInput, weight: mtp.projection, out: x, rows });

  norm(queue, program, mtp.inputNorm, {}, normed);
  attention(queue, program, mtp.attention, 2 * config.numLayers, normed, attended);
  norm(queue, program, mtp.postAttentionNorm, { add: attended }, shared);
  mlp(queue, program, mtp.dense, shared, dense);
  norm(queue, program, mtp.norm, { add: dense }, normed);
}
