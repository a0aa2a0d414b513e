/**
 * What a checkpoint is, for people: the content of `longcat inspect model`.
 * @module
 */

import { basename } from "node:path";

import type { Checkpoint } from "./checkpoint.js";
import { numNgramTables, ropeParameters } from "./config.js";
import type { TensorSpec } from "./tensor-names.js";

/** A checkpoint described. Sizes count elements of weights, block scales left out; bytes count all that is used. */
export interface CheckpointDescription {
  dir: string;
  modelType: string;
  layers: number;
  hiddenSize: number;
  heads: number;
  vocabulary: number;
  context: number;
  ffn: { dense: number; expert: number };
  experts: { ffn: number; zero: number; perToken: number; routedScalingFactor: number };
  latent: { qRank: number; kvRank: number; nope: number; rope: number; value: number; qScale: number; kvScale: number };
  parameters: {
    total: number;
    /** A token's least (all its picks are zero experts) and most, draft head and n-gram tables not counted (tables: their rows are looked up). */
    activeMin: number;
    activeMax: number;
    draftHead: number;
    ngramTables: number;
  };
  weightBytes: number;
  /** Bytes by stored type: {"BF16": …}. */
  bytesByType: Record<string, number>;
  files: string[];
  rope: { base: number; scaling: string; rotaryScale: number; softmaxScale: number };
  draftHead: boolean;
  ngram: { neighbors: number; splits: number; ratio: number; tables: number } | "none";
  quantization: string;
  endTokens: { config: number[]; generationConfig: number[] };
  /** What was assumed or ignored. */
  warnings: string[];
}

/** Describes an open checkpoint from its config and headers; no weight is read. */
export function describeCheckpoint(checkpoint: Checkpoint): CheckpointDescription {
  const { config, generationConfig } = checkpoint;
  const rope = ropeParameters(config);
  return {
    dir: checkpoint.dir,
    modelType: config.modelType,
    layers: config.numLayers,
    hiddenSize: config.hiddenSize,
    heads: config.numHeads,
    vocabulary: config.vocabSize,
    context: config.maxPositionEmbeddings,
    ffn: { dense: config.ffnHiddenSize, expert: config.expertFfnHiddenSize },
    experts: {
      ffn: config.numExperts,
      zero: config.numZeroExperts,
      perToken: config.topK,
      routedScalingFactor: config.routedScalingFactor,
    },
    latent: {
      ...{
        qRank: config.qLoraRank,
        kvRank: config.kvLoraRank,
        nope: config.qkNopeHeadDim,
        rope: config.qkRopeHeadDim,
        value: config.vHeadDim,
      },
      ...{ qScale: config.qScale, kvScale: config.kvScale },
    },
    parameters: countParameters(checkpoint),
    weightBytes: checkpoint.bytes,
    bytesByType: bytesByType(checkpoint),
    files: checkpoint.files.map((file) => basename(file.path)),
    rope: { base: config.ropeTheta, scaling: describeScaling(checkpoint), rotaryScale: rope.rotaryScale, softmaxScale: rope.softmaxScale },
    draftHead: checkpoint.hasMtp,
    ngram: config.ngram ? { ...config.ngram, tables: numNgramTables(config.ngram) } : "none",
    quantization: config.quantization ? `fp8 e4m3, blocks of ${config.quantization.blockSize} × ${config.quantization.blockSize}` : "none",
    endTokens: { config: config.eosTokenIds, generationConfig: generationConfig.eosTokenIds },
    warnings: [...checkpoint.warnings],
  };
}

function describeScaling({ config: { ropeScaling: yarn } }: Checkpoint): string {
  if (!yarn) return "none";
  const { factor, originalMaxPositionEmbeddings: original, betaFast, betaSlow, mscale, mscaleAllDim } = yarn;
  return `yarn, factor ${factor} over ${original} positions, beta ${betaFast} to ${betaSlow}, mscale ${mscale}, mscale_all_dim ${mscaleAllDim}`;
}

function countParameters(checkpoint: Checkpoint): CheckpointDescription["parameters"] {
  const { numExperts, numZeroExperts, topK } = checkpoint.config;
  const sum = (which: (spec: TensorSpec) => boolean): number => {
    let elements = 0;
    for (const spec of checkpoint.specs) if (which(spec)) elements += spec.shape.reduce((n, d) => n * d, 1);
    return elements;
  };
  const isTable = (spec: TensorSpec) => spec.name.includes(".embedders.");
  const total = sum(() => true);
  const draftHead = sum((spec) => spec.part === "mtp");
  const ngramTables = sum(isTable);
  const experts = sum((spec) => spec.expert);
  const always = total - draftHead - ngramTables - experts;
  const most = Math.min(topK, numExperts);
  const least = Math.max(0, topK - numZeroExperts);
  const active = (picks: number) => Math.round(always + (experts * picks) / numExperts);
  return { total, activeMin: active(least), activeMax: active(most), draftHead, ngramTables };
}

function bytesByType(checkpoint: Checkpoint): Record<string, number> {
  const bytes: Record<string, number> = {};
  for (const { entry } of checkpoint.tensors.values()) bytes[entry.storedDtype] = (bytes[entry.storedDtype] ?? 0) + entry.end - entry.begin;
  return bytes;
}
