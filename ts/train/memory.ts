/**
 * The tensors of a training pass. What a layer's backward reads lies in a memory of each layer; gates, hidden rows and attention's weights
 * are computed again and have room once, as everything else that only passes through.
 *
 * Names: T tokens of a batch (capacity), S sequences, D hidden, H heads, K experts chosen, N of them with an FFN, Z zero experts.
 * @module
 */

import type { ModelConfig } from "../model/config.js";
import type { Device, Tensor } from "../runtime/device.js";
import type { DType } from "../runtime/dtype.js";

/** What a batch may have. */
export interface BatchCapacity {
  /** T, all sequences together. */
  tokens: number;
  sequences: number;
  /** Tokens of the longest sequence. */
  length: number;
}

/** A norm: what it normed and what came of it, [T, D]. */
export interface NormMemory {
  sum: Tensor;
  out: Tensor;
}

/** An attention. */
export interface AttentionMemory {
  /** [T, H, nope+rope] */
  q: Tensor;
  /** The latent cache as the forward sees it, blocks of one position: [T, 1, kvRank+rope]; and as rows, [T, kvRank+rope]. */
  cache: Tensor;
  latents: Tensor;
  /** [T, H·v] before the output projection; [T, H, 2] maximum and sum of each softmax. */
  heads: Tensor;
  state: Tensor;
}

/** Routing: native/ops/moe_route/params.h. */
export interface MoeMemory {
  scores: Tensor;
  ids: Tensor;
  weights: Tensor;
  identityWeight: Tensor;
  ffnCount: Tensor;
  expertStart: Tensor;
  planRow: Tensor;
  slotPlan: Tensor;
}

/** What a layer's router is told, read by the host: the balance loss with α and f by group, [D+1], and what comes back to the chosen experts' weights, [T, K]. */
export interface RouterMemory {
  balanceLoss: Tensor;
  share: Tensor;
  dWeights: Tensor;
}

/** What a layer's backward reads. */
export interface LayerMemory {
  norms: [NormMemory, NormMemory, NormMemory, NormMemory];
  attention: [AttentionMemory, AttentionMemory];
  moe: MoeMemory;
}

/** All tensors of a pass, by what they are for. */
export type TrainMemory = ReturnType<typeof createMemory>;

/**
 * Makes them. Pages that nothing touches take no memory.
 *
 * @param groups of FFN experts in the balance loss
 */
export function createMemory(device: Device, config: ModelConfig, { tokens: T, sequences: S, length }: BatchCapacity, groups: number) {
  const make = (dtype: DType, ...shape: number[]): Tensor => device.tensor(dtype, shape);
  const f = (...shape: number[]): Tensor => make("float32", ...shape);
  const i = (...shape: number[]): Tensor => make("int32", ...shape);
  const { hiddenSize: D, numHeads: H, topK: K, numExperts: N, qLoraRank, ffnHiddenSize, expertFfnHiddenSize, vocabSize } = config;
  const { qkNopeHeadDim: nope, qkRopeHeadDim: rope, vHeadDim: v } = config;
  const all = N + config.numZeroExperts;
  const query = [T, H, nope + rope];
  const latentWidth = config.kvLoraRank + rope;

  const norm = (): NormMemory => ({ sum: f(T, D), out: f(T, D) });
  const attention = (): AttentionMemory => {
    const cache = f(T, 1, latentWidth);
    return { q: f(...query), cache, latents: cache.view("float32", [T, latentWidth]), heads: f(T, H * v), state: f(T, H, 2) };
  };
  const moe = (): MoeMemory => ({
    ...{ scores: f(T, all), ids: i(T, K), weights: f(T, K), identityWeight: f(T), ffnCount: i(T) },
    ...{ expertStart: i(N + 1), planRow: i(T * K), slotPlan: i(T, K) },
  });
  const layer = (): LayerMemory => ({ norms: [norm(), norm(), norm(), norm()], attention: [attention(), attention()], moe: moe() });
  const counts = i(8);

  return {
    /** Written by the host for each batch (native/ops/step_plan/params.h), and what step_plan makes of it. */
    batch: {
      ...{ counts, tokenIds: i(T), promptPositions: i(T), seqStart: i(S + 1), seqSlot: i(S), seqLimit: i(S), seqNext: i(S) },
      ...{ blockTables: i(S, length), targets: i(T), lossScale: f(1), zLossScale: f(1) },
      ...{ history: i(S, length), lengths: i(S), tokens: i(T), positions: i(T), rowSlot: i(T), cosSin: f(T, rope), splits: i(1, 2) },
    },
    /** [rope/2] of the rotations, written once. */
    invFreq: f(rope / 2),
    /** i32[1]: live rows. */
    rows: counts.view("int32", [1]),
    embedded: f(T, D),
    layers: Array.from({ length: config.numLayers }, layer),
    final: norm(),
    /** Logits, then their gradient. */
    logits: f(T, vocabSize),
    /** Read by the host: losses by row, and each layer's router. */
    loss: f(T),
    zLoss: f(T),
    routers: Array.from({ length: config.numLayers }, (): RouterMemory => ({ balanceLoss: f(1), share: f(groups + 1), dWeights: f(T, K) })),
    /** Passes through a forward. */
    forward: {
      ...{ attended: f(T, D), dense: f(T, D), experts: f(T, D) },
      ...{ qLatent: f(T, qLoraRank), kvLatent: f(T, latentWidth), ffnHidden: f(T, ffnHiddenSize) },
      ...{ expertHidden: f(T * K, expertFfnHiddenSize), expertPartial: f(T * K, D) },
    },
    /** Passes through a backward. dX is the gradient of the residual stream. */
    backward: {
      ...{ dX: f(T, D), dNormed: f(T, D), dShared: f(T, D), scales: f(T) },
      ...{ dHeads: f(T, H * v), dQ: f(...query), dLatents: f(T, latentWidth), dExpanded: f(T, H * (nope + v)), dRopeKeys: f(T, H * rope) },
      ...{
        qLatent: f(T, qLoraRank),
        qNormed: f(T, qLoraRank),
        dQLatent: f(T, qLoraRank),
        kvLatent: f(T, latentWidth),
        latentScales: f(2, T),
      },
      dense: { gateRows: f(T, ffnHiddenSize), upRows: f(T, ffnHiddenSize), hiddenRows: f(T, ffnHiddenSize) },
      experts: {
        ...{ gateRows: f(T * K, expertFfnHiddenSize), upRows: f(T * K, expertFfnHiddenSize), hiddenRows: f(T * K, expertFfnHiddenSize) },
        ...{ partial: f(T * K, D), dLogits: f(T, all), dScore: f(all), probability: f(groups + 1) },
      },
    },
  };
}
