/**
 * The draft head (multi-token prediction): from the trunk's hidden state at position t and the token at t+1, the token at t+2.
 * One attention with a latent cache of its own, one dense FFN; embedding and head are the trunk's.
 * @module
 */

import type { Queue, Tensor } from "../runtime/device.js";
import { ops } from "../runtime/ops.js";
import type { DraftTensors } from "./activations.js";
import { attention, mlp, norm } from "./layer.js";
import { samplingState } from "./model.js";
import type { Program } from "./program.js";
import type { ModelWeights, MtpWeights } from "./weights.js";

/** A model with a draft head. */
export type DraftingWeights = ModelWeights & { mtp: MtpWeights };

/** A program with room for the draft head. */
type DraftingProgram = Program & Required<Pick<Program, "draftRows" | "draftIndex">> & { activations: { draft: DraftTensors<Tensor> } };

/**
 * Enqueues what follows a step's draws: the draft head over the step's rows, which fills its cache, and `drafts` drafts of every sequence
 * that has drawn, each written behind the last in its slot's history.
 *
 * The first draft comes from the row before the newest token. Each later one runs the head once more, a row a sequence, on what the head
 * itself left and drafted; the next step's rows write over the latents of these. Rows behind a rejected draft run along: what they leave in
 * the cache is written over before anything that counts reads it.
 */
export function makeDrafts(queue: Queue, program: Program, weights: DraftingWeights, drafts: number): void {
  if (!drafting(program)) return;
  const { normed, attended, x, draft } = program.activations;
  planDrafts(queue, program);
  draftHead(queue, program, weights, normed);
  if (drafts > 0) drawDraft(queue, program, weights, 1, draft.row);
  if (drafts > 1) ops.embed(queue, { tokens: draft.gather, table: attended, out: x, rows: program.draftRows });
  const single = rowEach(program);
  for (let i = 2; i <= drafts; i++) {
    planRowEach(queue, program, i - 2);
    draftHead(queue, single, weights, i === 2 ? x : attended);
    drawDraft(queue, program, weights, i, program.draftIndex);
  }
}

function drafting(program: Program): program is DraftingProgram {
  return program.capacity.drafts > 0;
}

/** Each row's following token, and where each sequence's first draft comes from. */
function planDrafts(queue: Queue, program: DraftingProgram): void {
  const { step, positions, rowSlot, draft } = program.activations;
  const { history, lengths } = program.state;
  ops.draftPlan(queue, {
    ...{ counts: step.counts, seqStart: step.seqStart, seqSlot: step.seqSlot, positions, rowSlot, history, lengths },
    ...{ following: draft.tokens, draftRow: draft.row, draftSlot: draft.slot, draftPosition: draft.position },
  });
}

/**
 * The draft head over a program's rows. `draft.tokens` holds the token that follows each; `hidden` [T, D], what the trunk's final norm, or
 * the draft head, left for it. Leaves its own in `activations.attended`, so that the trunk's is still there.
 */
function draftHead(queue: Queue, program: DraftingProgram, weights: DraftingWeights, hidden: Tensor): void {
  const { mtp } = weights;
  const { config, rows } = program;
  const { x, shared, attended, dense, draft } = program.activations;
  const D = config.hiddenSize;
  const eps = config.rmsNormEps;

  ops.rmsNorm(queue, { x: hidden, weight: mtp.hiddenNorm, out: draft.input.columns(D, 2 * D), rows, eps });
  ops.embed(queue, { tokens: draft.tokens, table: weights.embedding, out: x, rows });
  ops.rmsNorm(queue, { x, weight: mtp.embeddingNorm, out: draft.input.columns(0, D), rows, eps });
  ops.linear(queue, { x: draft.input, weight: mtp.projection, out: x, rows });

  norm(queue, program, mtp.inputNorm, {}, shared);
  attention(queue, program, mtp.attention, 2 * config.numLayers, shared, attended);
  norm(queue, program, mtp.postAttentionNorm, { add: attended }, shared);
  mlp(queue, program, mtp.dense, shared, dense);
  norm(queue, program, mtp.norm, { add: dense }, attended);
}

/** Draft `number` of each sequence, from row `rowIndex` [S] of what the draft head left: drawn as the token itself will be. */
function drawDraft(queue: Queue, program: DraftingProgram, weights: DraftingWeights, number: number, rowIndex: Tensor): void {
  const { attended, step, draft } = program.activations;
  ops.linear(queue, { x: attended, rowIndex, weight: weights.head, out: draft.logits, rows: program.draftRows });
  ops.sample(queue, {
    ...{ ...samplingState(program), logits: draft.logits, logitSlot: draft.slot, logitPosition: draft.position, tokens: draft.tokens },
    ...{ rows: step.draftRange!, draft: number, mostRows: program.capacity.sequences },
  });
}

/** The program as one of a row a sequence, all of them decoding. */
function rowEach(program: DraftingProgram): DraftingProgram {
  const { activations, draftRows: rows } = program;
  const step = { ...activations.step, counts: activations.step.draftCounts! };
  return { ...program, rows, prefill: false, decode: true, activations: { ...activations, step } };
}

/** The plan of such rows, `ahead` positions behind the newest tokens. Sequences that have drawn nothing get no place. */
function planRowEach(queue: Queue, program: DraftingProgram, ahead: number): void {
  const { step, tokens, positions, rowSlot, cosSin, splits, draft } = program.activations;
  const { history, lengths } = program.state;
  ops.stepPlan(queue, {
    ...{ ...step, counts: step.draftCounts!, seqStart: step.draftStart!, seqSlot: draft.slot, logitRows: undefined },
    ...{ invFreq: program.invFreq, history, lengths, tokens, positions, rowSlot, cosSin, splits },
    ...{ rotaryScale: program.rope.rotaryScale, ahead },
  });
}
