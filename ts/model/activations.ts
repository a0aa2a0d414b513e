/**
 * Where a program's intermediate tensors live: one layout function, run once to count bytes (the memory estimate) and once to make
 * tensors in the arena. What may share memory says so by its place in the layout.
 *
 * Names: T tokens of a step (its capacity), S sequences, R rows of logits, D hidden, H heads.
 * @module
 */

import { bytesOf, type DType } from "../runtime/dtype.js";
import type { ModelConfig } from "./config.js";
import { expertsOfRank, type Sharding, slotsOfRank } from "./exchange.js";
import { MAX_LOGPROBS } from "./runner-types.js";

/**
 * What operations hand to each other, and what the latent caches hold unless they are packed: float32 on the CPU; on a GPU float32 for float32 matrices, else
 * bfloat16 (docs/numerics.md, 1).
 */
export type ActivationDType = "float32" | "bfloat16";

/** Capacities of a program, and the ranks that run it together. */
export interface Capacity extends Sharding {
  /** T: rows (tokens) of a step. */
  tokens: number;
  /** S: sequences of a step. */
  sequences: number;
  /** R: rows whose logits are made in one pass of the head. */
  logitRows: number;
  /** Decode splits of all rows together (native/ops/mla_decode/params.h). */
  splits: number;
  /** Most drafts that are made after a step, and verified of a sequence; 0: there is no draft head. */
  drafts: number;
  /** Prompt programs on a GPU: keys whose expanded form there is room for, a multiple of KEY_TILE; else 0. */
  expandedRows: number;
  /** Those whose latents are unpacked, or put in another order, before: as many with a packed cache or bfloat16 activations; else 0. */
  latentRows: number;
}

/** Keys of a tile of prompt attention (native/ops/mla_prefill/params.h). */
export const KEY_TILE = 128;

/** The plan of a round of prompt attention: kRoundPlanHead, kQueryTile and kQueryTileNumbers of native/ops/mla_prefill/params.h. */
const ROUND_PLAN_HEAD = 4;
const QUERY_TILE = 128;
const QUERY_TILE_NUMBERS = 8;

/** Numbers in the plan of a round (native/ops/mla_prefill/params.h: roundPlanNumbers). */
const roundPlanLength = ({ tokens, sequences, expandedRows }: Capacity) =>
  ROUND_PLAN_HEAD + expandedRows + QUERY_TILE_NUMBERS * (Math.floor(tokens / QUERY_TILE) + 2 * Math.min(tokens, sequences));

/** How a layout gets its tensors: T is a tensor, or nothing while only counting. */
type Allocate<T> = (dtype: DType, shape: number[]) => T;

/** What the host writes each step (one block, one copy) and what the step's plan makes of it. */
export interface StepTensors<T> {
  /** i32[8]: native/ops/step_plan/params.h, StepCount. */
  counts: T;
  /** [T] a prompt's ids; of decode rows nothing, for the device knows them. */
  tokenIds: T;
  /** [T] the same of positions. */
  promptPositions: T;
  /** [S+1] first row of each sequence. */
  seqStart: T;
  /** [S] */
  seqSlot: T;
  /** [S] positions that the slot's blocks hold. */
  seqLimit: T;
  /** [S] the prompt's token behind its chunk, −1: none. */
  seqNext: T;
  /** [R] rows of the step whose logits are wanted; those that are drawn from in turn 0 first, then those of turn 1 … */
  logitRows: T;
  /** [R] slot whose sampling state the row takes, −1: none. */
  logitSlot: T;
  /** [drafts + 2]: turn j draws from rows [turnStart[j], turnStart[j + 1]) of the logits. */
  turnStart: T;
  /** Draft head only: the counts of a step of one row a sequence; [S+1] 0, 1, 2 …, its sequences' first rows; [2] 0 and the number of sequences. */
  draftCounts?: T;
  draftStart?: T;
  draftRange?: T;
  /** [R] tokens to score, −1: none. */
  targets: T;
}

/** What the host reads after a step (one block, one copy). */
export interface ResultTensors<T> {
  /** What was drawn in each turn, as many as there may be drafts and one: by the order of those who draw in it. */
  turns: {
    /** [S] i32 */
    tokens: T;
    /** [S] f32 */
    logprob: T;
    /** [S, 20] i32 */
    topIds: T;
    /** [S, 20] f32 */
    topLogprobs: T;
  }[];
  /** [L, T] i32: FFN experts that each token used in each layer. */
  ffnCount: T;
}

/** All tensors of a program; float32 unless said, "act": what activations are (ActivationDType). */
export interface Activations<T> {
  step: StepTensors<T>;
  result: ResultTensors<T>;
  /** [T] i32: the step's tokens, resolved, and their positions. */
  tokens: T;
  positions: T;
  /** [T] i32 */
  rowSlot: T;
  /** [T, rope] */
  cosSin: T;
  /** [splits, 2] i32 */
  splits: T;
  /** [R] i32: position of the token that is drawn from a row of logits, and the token before it. */
  logitPosition: T;
  logitToken: T;
  /** [T, D]: the residual stream. */
  x: T;
  /** [T, D] act: a norm's output on the dense branch; after the last layer the final norm's. */
  normed: T;
  /** [T, D] act: the norm after attention 0, which both branches read. */
  shared: T;
  /** [T, D] act: an attention's output. */
  attended: T;
  /** [T, D] act: a dense FFN's output. */
  dense: T;
  attention: {
    /** [T, H, nope+rope] act */
    q: T;
    /** [T, qRank] act */
    qLatent: T;
    /** [T, kvRank+rope] act */
    kvLatent: T;
    /** bfloat16 activations: [8, rows, qRank+kvRank+rope], lanes of k of both latents where the rows are few. */
    latentLanes?: T;
    /** [T, H, 2]: running maximum and sum of prompt attention. */
    state: T;
    /** [T, H, kvRank] act */
    qAbsorbed: T;
    /** [splits, H, kvRank+2] */
    partial: T;
    /** [T, H·v] act */
    heads: T;
    /** GPU: [expandedRows, H, nope+v] act, keys and values of prompt attention. */
    expanded?: T;
    /** GPU: [T, H, v], what each row of prompt attention has summed so far. */
    accumulator?: T;
    /** GPU: [roundPlanLength()], what a round of prompt attention consists of. */
    roundPlan?: T;
    /** GPU: [latentRows, kvRank+rope] act, the latents of a round. */
    latents?: T;
  };
  /** [T, ffn] act: shares its memory with `attention`, which is never alive at the same time. */
  ffnHidden: T;
  moe: {
    /** [T, N+Z] */
    scores: T;
    /** [T, K] i32 */
    ids: T;
    /** [T, K] */
    weights: T;
    /** [T] */
    identityWeight: T;
    plan: ExpertPlanTensors<T>;
    /** [T·K, expert ffn] act; of several ranks [ranks·T·K', …], K' the most experts of one rank that a row may use. */
    hidden: T;
    /** [T·K, D] act; of several ranks [ranks·T·K', D]. */
    partial: T;
    /** [T, D] act */
    out: T;
    exchange?: ExchangeTensors<T>;
  };
  /** [R, V] */
  logits: T;
  /** [R]: log-probabilities of targets. */
  scores: T;
  draft?: DraftTensors<T>;
}

/**
 * Which rows each expert has: of the step's rows (native/ops/moe_route/params.h), or where there are several ranks of those that came from all of them
 * (native/ops/ep_dispatch/params.h).
 */
export interface ExpertPlanTensors<T> {
  /** [N+1] i32; of several ranks [experts of this rank + 1] */
  expertStart: T;
  /** [T·K] i32; of several ranks [ranks·T·K'] */
  planRow: T;
  /** [T, K] i32; of several ranks [ranks·T, K'] */
  slotPlan: T;
}

/** What several ranks need beside the rest (native/ops/ep_dispatch/params.h). */
export interface ExchangeTensors<T> {
  /** [T, ranks] i32: which rows went where. */
  sendSlot: T;
  /** Where rows travel as FP8: [ranks·T, D] act, what they stand for. Else they are used where they lie, in the window. */
  received?: T;
}

/** What the draft head needs beside the rest. */
export interface DraftTensors<T> {
  /** [T, 2D] act: both norms, beside each other. */
  input: T;
  /** [T] i32: the token that follows each row; then the drafts themselves, one a sequence. */
  tokens: T;
  /** [S] i32: the row that a sequence's next draft comes from, and slot and position of that draft. */
  row: T;
  slot: T;
  position: T;
  /** [T]: `row` as the index of a gather. */
  gather: T;
  /** [S, V], where the step's logits have been. */
  logits: T;
}

const ALIGNMENT = 64;
/** Lanes of k in a matrix product on a GPU, at most (native/cuda/gemm_formats.cuh: kMaxLanes). */
const LANES = 8;
/** Up to how many rows `mla_project` leaves them for its next kernel to add: it goes by this tensor's shape (sm90/lanes.cu there). */
const LANE_ROWS = 256;

/** Offsets in an arena: bump allocation, with branches that start again at the same place. */
class Layout<T> {
  #offset = 0;
  #peak = 0;
  readonly #make: (dtype: DType, shape: number[], byteOffset: number) => T;

  constructor(make: (dtype: DType, shape: number[], byteOffset: number) => T) {
    this.#make = make;
  }

  readonly allocate: Allocate<T> = (dtype, shape) => {
    const tensor = this.#make(dtype, shape, this.#offset);
    const bytes = shape.reduce((product, n) => product * n, bytesOf(dtype));
    this.#offset += Math.ceil(Math.max(bytes, 1) / ALIGNMENT) * ALIGNMENT;
    this.#peak = Math.max(this.#peak, this.#offset);
    return tensor;
  };

  /** Lays out `a` and `b` over each other: they are never alive at the same time. */
  either<A, B>(a: () => A, b: () => B): [A, B] {
    const start = this.#offset;
    const first = a();
    this.#offset = start;
    const second = b();
    this.#offset = this.#peak;
    return [first, second];
  }

  /** Where the next tensor would begin. */
  get offset(): number {
    return this.#offset;
  }

  get bytes(): number {
    return this.#peak;
  }
}

/** A laid-out program: its tensors, and the blocks that the host copies. */
export interface ActivationLayout<T> {
  activations: Activations<T>;
  bytes: number;
  /** Byte range of `step`. */
  stepBytes: { begin: number; end: number };
  /** Byte range of `result`. */
  resultBytes: { begin: number; end: number };
}

/**
 * Lays out every tensor of a program of this capacity.
 *
 * @param act what activations are.
 * @param make called once a tensor with its place; return whatever stands for it.
 */
export function layoutActivations<T>(
  config: ModelConfig,
  capacity: Capacity,
  act: ActivationDType,
  make: (dtype: DType, shape: number[], byteOffset: number) => T,
): ActivationLayout<T> {
  const layout = new Layout(make);
  const { allocate } = layout;
  const { tokens: T, sequences: S, logitRows: R, splits, drafts, expandedRows, latentRows } = capacity;
  const D = config.hiddenSize;
  const H = config.numHeads;
  const K = config.topK;
  const rope = config.qkRopeHeadDim;
  const { ranks } = capacity;
  const slots = ranks > 1 ? slotsOfRank(config, ranks) : K;
  const picks = ranks * T * slots;

  const stepBegin = layout.offset;
  const step: StepTensors<T> = {
    counts: allocate("int32", [8]),
    tokenIds: allocate("int32", [T]),
    promptPositions: allocate("int32", [T]),
    seqStart: allocate("int32", [S + 1]),
    seqSlot: allocate("int32", [S]),
    seqLimit: allocate("int32", [S]),
    seqNext: allocate("int32", [S]),
    logitRows: allocate("int32", [R]),
    logitSlot: allocate("int32", [R]),
    turnStart: allocate("int32", [drafts + 2]),
    ...(drafts > 0 && {
      draftCounts: allocate("int32", [8]),
      draftStart: allocate("int32", [S + 1]),
      draftRange: allocate("int32", [2]),
    }),
    targets: allocate("int32", [R]),
  };
  const resultBegin = layout.offset;
  const result: ResultTensors<T> = {
    turns: Array.from({ length: drafts + 1 }, () => ({
      tokens: allocate("int32", [S]),
      logprob: allocate("float32", [S]),
      topIds: allocate("int32", [S, MAX_LOGPROBS]),
      topLogprobs: allocate("float32", [S, MAX_LOGPROBS]),
    })),
    ffnCount: allocate("int32", [config.numLayers, T]),
  };
  const resultEnd = layout.offset;

  const common = {
    tokens: allocate("int32", [T]),
    positions: allocate("int32", [T]),
    rowSlot: allocate("int32", [T]),
    cosSin: allocate("float32", [T, rope]),
    splits: allocate("int32", [splits, 2]),
    logitPosition: allocate("int32", [R]),
    logitToken: allocate("int32", [R]),
    x: allocate("float32", [T, D]),
    normed: allocate(act, [T, D]),
    shared: allocate(act, [T, D]),
    attended: allocate(act, [T, D]),
    dense: allocate(act, [T, D]),
  };
  const moe = {
    scores: allocate("float32", [T, config.numExperts + config.numZeroExperts]),
    ids: allocate("int32", [T, K]),
    weights: allocate("float32", [T, K]),
    identityWeight: allocate("float32", [T]),
    plan: {
      expertStart: allocate("int32", [expertsOfRank(config, ranks) + 1]),
      planRow: allocate("int32", [picks]),
      slotPlan: allocate("int32", [ranks * T, slots]),
    },
    hidden: allocate(act, [picks, config.expertFfnHiddenSize]),
    partial: allocate(act, [picks, D]),
    out: allocate(act, [T, D]),
    ...(ranks > 1 && {
      exchange: {
        sendSlot: allocate("int32", [T, ranks]),
        ...(capacity.fp8Dispatch && { received: allocate(act, [ranks * T, D]) }),
      },
    }),
  };
  const [attention, ffnHidden] = layout.either(
    () => ({
      q: allocate(act, [T, H, config.qkNopeHeadDim + rope]),
      qLatent: allocate(act, [T, config.qLoraRank]),
      kvLatent: allocate(act, [T, config.kvLoraRank + rope]),
      state: allocate("float32", [T, H, 2]),
      qAbsorbed: allocate(act, [T, H, config.kvLoraRank]),
      partial: allocate("float32", [splits, H, config.kvLoraRank + 2]),
      heads: allocate(act, [T, H * config.vHeadDim]),
      ...(act === "bfloat16" && {
        latentLanes: allocate("float32", [LANES, Math.min(T, LANE_ROWS), config.qLoraRank + config.kvLoraRank + rope]),
      }),
      ...(expandedRows > 0 && {
        expanded: allocate(act, [expandedRows, H, config.qkNopeHeadDim + config.vHeadDim]),
        accumulator: allocate("float32", [T, H, config.vHeadDim]),
        roundPlan: allocate("int32", [roundPlanLength(capacity)]),
      }),
      ...(latentRows > 0 && { latents: allocate(act, [latentRows, config.kvLoraRank + rope]) }),
    }),
    () => allocate(act, [T, config.ffnHiddenSize]),
  );
  const scores = allocate("float32", [R]);
  const [logits, ofDrafts] = layout.either(
    () => allocate("float32", [R, config.vocabSize]),
    () => drafts > 0 && { logits: allocate("float32", [S, config.vocabSize]) },
  );
  const draft = ofDrafts && { ...ofDrafts, ...draftTensors(layout, { tokens: T, sequences: S, hidden: D, act }) };
  return {
    activations: { step, result, ...common, attention, ffnHidden, moe, scores, logits, ...(draft && { draft }) },
    bytes: layout.bytes,
    stepBytes: { begin: stepBegin, end: resultBegin },
    resultBytes: { begin: resultBegin, end: resultEnd },
  };
}

function draftTensors<T>(
  layout: Layout<T>,
  { tokens, sequences, hidden, act }: { tokens: number; sequences: number; hidden: number; act: ActivationDType },
): Omit<DraftTensors<T>, "logits"> {
  const { allocate } = layout;
  const [row, gather] = layout.either(
    () => allocate("int32", [sequences]),
    () => allocate("int32", [tokens]),
  );
  return {
    ...{ row, gather },
    input: allocate(act, [tokens, 2 * hidden]),
    tokens: allocate("int32", [tokens]),
    slot: allocate("int32", [sequences]),
    position: allocate("int32", [sequences]),
  };
}
