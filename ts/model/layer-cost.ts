/**
 * What the operations of one layer must touch and compute, one by one: the floors of `longcat bench layer`.
 * @module
 */

import { bytesOf } from "../runtime/dtype.js";
import type { Weight } from "../runtime/ops.js";
import type { ActivationDType } from "./activations.js";
import type { ModelConfig } from "./config.js";
import type { StepCost } from "./cost.js";
import { type CacheDType, latentRowBytes, latentWidth } from "./state.js";
import type { AttentionWeights, DenseWeights, LayerWeights } from "./weights.js";

/** The rows that go through a layer. */
export interface LayerStep {
  rows: number;
  /** Decode: rows of each sequence, one behind the other. */
  queries: number;
  /** Decode: cached tokens that a sequence's first row attends to, its own counted. Prompt: 0; the rows are one prompt from its start. */
  context: number;
  /** FFN experts that a row uses, on average; different ones that all rows use together. */
  ffnExpertsPerToken: number;
  distinctExperts: number;
  activationDType: ActivationDType;
  cacheDType: CacheDType;
}

/** The commands of a layer whose experts are all here, in their order (ts/model/layer.ts): operation, and which one it is. */
export const LAYER_OPERATIONS = [
  ["rms_norm", "before attention 0"],
  ["mla_project", "attention 0"],
  ["mla_decode", "attention 0"],
  ["linear", "output of attention 0"],
  ["rms_norm", "before experts and FFN 0"],
  ["moe_route", "router"],
  ["moe_experts", "experts"],
  ["swiglu_mlp", "dense FFN 0"],
  ["rms_norm", "before attention 1"],
  ["mla_project", "attention 1"],
  ["mla_decode", "attention 1"],
  ["linear", "output of attention 1"],
  ["rms_norm", "before FFN 1"],
  ["swiglu_mlp", "dense FFN 1"],
] as const;

/** Between ranks: the command before a layer's experts, and the layer's last one. */
export const EXCHANGE_OPERATIONS = ["ep_dispatch", "ep_combine"] as const;

/** The names of a layer's commands in their order, on one rank or on several. */
export function layerCommands(ranks: number): string[] {
  const names = LAYER_OPERATIONS.map(([op]) => op);
  if (ranks === 1) return names;
  const [dispatch, combine] = EXCHANGE_OPERATIONS;
  return [...names.flatMap((op) => (op === "moe_experts" ? [dispatch, op] : [op])), combine];
}

/** Bytes of a matrix and its scales. */
function matrixBytes(...weights: readonly Weight[]): number {
  return weights.reduce((sum, { data, scale }) => sum + data.bytes + (scale?.bytes ?? 0), 0);
}

function elements(...weights: readonly Weight[]): number {
  return weights.reduce((sum, { data }) => sum + data.shape.reduce((product, n) => product * n, 1), 0);
}

/** Costs in the order of LAYER_OPERATIONS: weights and caches once, each row's inputs and outputs once. */
export function layerCosts(config: ModelConfig, weights: LayerWeights, step: LayerStep): StepCost[] {
  const { rows } = step;
  const act = bytesOf(step.activationDType);
  const D = config.hiddenSize;
  /** x in and out as float32, `adds` and the normed rows as activations. */
  const norm = (adds: number): StepCost => ({ bytes: rows * D * (8 + (adds + 1) * act), flops: 0 });
  const product = (inner: number, outer: number, ...matrices: Weight[]): StepCost => ({
    bytes: matrixBytes(...matrices) + rows * (inner + outer) * act,
    flops: 2 * rows * elements(...matrices),
  });
  const project = ({ qA, qB, kvA }: AttentionWeights) =>
    product(D, config.numHeads * (config.qkNopeHeadDim + config.qkRopeHeadDim) + latentWidth(config), qA, qB, kvA);
  const output = ({ o }: AttentionWeights) => product(config.numHeads * config.vHeadDim, D, o);
  const mlp = ({ gate, up, down }: DenseWeights) => product(D, D, gate, up, down);
  const [first, second] = weights.attention;
  const attends = (attention: AttentionWeights) => attentionCost(config, attention, step);
  const classifier = { data: weights.moe.classifier };
  return [
    norm(2),
    ...[project(first), attends(first), output(first)],
    norm(1),
    product(D, 0, classifier),
    expertsCost(config, weights, step),
    mlp(weights.dense[0]),
    norm(1),
    ...[project(second), attends(second), output(second)],
    norm(1),
    mlp(weights.dense[1]),
  ];
}

/** Decode: absorbed form over the latent cache. Prompt: keys and values expanded, then causal attention. */
function attentionCost(config: ModelConfig, { kvB }: AttentionWeights, step: LayerStep): StepCost {
  const { rows, queries, context, activationDType, cacheDType } = step;
  const { numHeads: H, qkNopeHeadDim: nope, qkRopeHeadDim: rope, vHeadDim: v, kvLoraRank } = config;
  const act = bytesOf(activationDType);
  const keys = context > 0 ? (rows / queries) * (context + queries - 1) : rows;
  const bytes = matrixBytes(kvB) + keys * latentRowBytes(config, cacheDType) + rows * H * (nope + rope + v) * act;
  const expanding = 2 * rows * elements(kvB);
  const scoring =
    context > 0
      ? 2 * H * rows * (context + (queries - 1) / 2) * (latentWidth(config) + kvLoraRank)
      : 2 * H * ((rows * (rows + 1)) / 2) * (nope + rope + v);
  return { bytes, flops: expanding + scoring };
}

function expertsCost(config: ModelConfig, { moe }: LayerWeights, step: LayerStep): StepCost {
  const { rows, distinctExperts, ffnExpertsPerToken, activationDType } = step;
  const stacks = [moe.gate, moe.up, moe.down] as const;
  const [experts = 1] = moe.gate.data.shape;
  return {
    bytes: (distinctExperts * matrixBytes(...stacks)) / experts + rows * 2 * config.hiddenSize * bytesOf(activationDType),
    flops: (2 * rows * ffnExpertsPerToken * elements(...stacks)) / experts,
  };
}
