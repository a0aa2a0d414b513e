/**
 * The one table of a model's tensors: names, shapes, what may be quantised (docs/model.md, sections 5 and 7).
 * Checking a checkpoint, quantising it and describing it all read this.
 * @module
 */

import { type ModelConfig, numNgramTables } from "./config.js";

/** Which part of the model a tensor belongs to. */
export type ModelPart = "trunk" | "mtp" | "ngram";

/** One tensor as the config wants it. */
export interface TensorSpec {
  name: string;
  shape: readonly number[];
  part: ModelPart;
  /** A matrix that block FP8 may store; its scales are `scaleName(name)`. */
  quantisable: boolean;
  /** May be absent without harm. */
  optional: boolean;
  /** Older names of the same tensor. */
  aliases: readonly string[];
  /** Tensors with one stack name are used as one stack, so they must share a dtype. */
  stack: string | null;
  /** The module that `disable_quant_module` may list. */
  module: "self_attn" | "mlps" | "experts" | "mtp" | null;
  /** A routed expert's: a token uses some of them only. */
  expert: boolean;
}

/** Rows and columns of a block of FP8 weights that share a scale. */
export const FP8_BLOCK = 128;

/** Where the block scales of an FP8 matrix are stored. */
export function scaleName(name: string): string {
  return `${name}_scale_inv`;
}

/** [ceil(rows / 128), ceil(columns / 128)] */
export function scaleShape([rows, columns]: readonly number[]): number[] {
  return [Math.ceil(rows! / FP8_BLOCK), Math.ceil(columns! / FP8_BLOCK)];
}

function spec(name: string, shape: number[], extra: Partial<TensorSpec> = {}): TensorSpec {
  return {
    ...{ name, shape, part: "trunk", quantisable: false, optional: false, aliases: [], stack: null, module: null, expert: false },
    ...extra,
  };
}

type Extra = Partial<TensorSpec>;

function* attention(config: ModelConfig, prefix: string, extra: Extra): Generator<TensorSpec> {
  const { hiddenSize: D, numHeads: H, qLoraRank, kvLoraRank, qkNopeHeadDim: nope, qkRopeHeadDim: rope, vHeadDim: v } = config;
  const matrix = { ...extra, quantisable: true };
  yield spec(`${prefix}.q_a_proj.weight`, [qLoraRank, D], matrix);
  yield spec(`${prefix}.q_a_layernorm.weight`, [qLoraRank], extra);
  yield spec(`${prefix}.q_b_proj.weight`, [H * (nope + rope), qLoraRank], matrix);
  yield spec(`${prefix}.kv_a_proj_with_mqa.weight`, [kvLoraRank + rope, D], matrix);
  yield spec(`${prefix}.kv_a_layernorm.weight`, [kvLoraRank], extra);
  yield spec(`${prefix}.kv_b_proj.weight`, [H * (nope + v), kvLoraRank], matrix);
  yield spec(`${prefix}.o_proj.weight`, [D, H * v], matrix);
  if (!config.attentionBias) return;
  yield spec(`${prefix}.q_a_proj.bias`, [qLoraRank], extra);
  yield spec(`${prefix}.kv_a_proj_with_mqa.bias`, [kvLoraRank + rope], extra);
  yield spec(`${prefix}.o_proj.bias`, [D], extra);
}

function* swiglu(prefix: string, width: number, ffn: number, extra: (projection: string) => Extra): Generator<TensorSpec> {
  const matrix = (projection: string) => ({ ...extra(projection), quantisable: true });
  yield spec(`${prefix}.gate_proj.weight`, [ffn, width], matrix("gate_proj"));
  yield spec(`${prefix}.up_proj.weight`, [ffn, width], matrix("up_proj"));
  yield spec(`${prefix}.down_proj.weight`, [width, ffn], matrix("down_proj"));
}

function* layer(config: ModelConfig, prefix: string): Generator<TensorSpec> {
  const { hiddenSize: D, numExperts, numZeroExperts } = config;
  for (const i of [0, 1]) {
    yield spec(`${prefix}.input_layernorm.${i}.weight`, [D]);
    yield* attention(config, `${prefix}.self_attn.${i}`, { module: "self_attn" });
    yield spec(`${prefix}.post_attention_layernorm.${i}.weight`, [D]);
    yield* swiglu(`${prefix}.mlps.${i}`, D, config.ffnHiddenSize, () => ({ module: "mlps" }));
  }
  yield spec(`${prefix}.mlp.router.classifier.weight`, [numExperts + numZeroExperts, D]);
  yield spec(`${prefix}.mlp.router.e_score_correction_bias`, [numExperts + numZeroExperts]);
  for (let e = 0; e < numExperts; e++) {
    yield* swiglu(`${prefix}.mlp.experts.${e}`, D, config.expertFfnHiddenSize, (projection) => ({
      ...{ module: "experts", expert: true, stack: `${prefix}.mlp.experts.*.${projection}.weight` },
    }));
  }
}

function* mtp(config: ModelConfig): Generator<TensorSpec> {
  const { hiddenSize: D } = config;
  const prefix = "model.mtp.layers.0";
  const extra: Extra = { part: "mtp", module: "mtp" };
  yield spec(`${prefix}.enorm.m.weight`, [D], extra);
  yield spec(`${prefix}.hnorm.m.weight`, [D], extra);
  yield spec(`${prefix}.eh_proj.weight`, [D, 2 * D], { ...extra, quantisable: true });
  yield spec(`${prefix}.input_layernorm.weight`, [D], extra);
  yield* attention(config, `${prefix}.self_attn`, extra);
  yield spec(`${prefix}.post_attention_layernorm.weight`, [D], extra);
  yield* swiglu(`${prefix}.transformer_layer.mlp`, D, config.ffnHiddenSize, () => extra);
  yield spec("model.mtp.norm.weight", [D], extra);
}

function* ngram(config: ModelConfig): Generator<TensorSpec> {
  const tables = numNgramTables(config.ngram);
  const width = config.hiddenSize / tables;
  for (let i = 0; i < tables; i++) {
    yield spec(`model.ngram_embeddings.embedders.${i}.weight`, [config.ngram!.ratio * config.vocabSize + 2 * i + 1, width], {
      ...{ part: "ngram", aliases: [`model.oe_embed_tokens${i}.weight`] },
    });
    yield spec(`model.ngram_embeddings.post_projs.${i}.weight`, [config.hiddenSize, width], {
      ...{ part: "ngram", aliases: [`model.oe_embed_proj${i}.weight`], stack: "model.ngram_embeddings.post_projs.*.weight" },
    });
  }
}

/** Every tensor of the model, draft head included, scales left out. Lazily: a config's numbers may be absurd. */
export function* modelTensors(config: ModelConfig): Generator<TensorSpec> {
  const { vocabSize: V, hiddenSize: D } = config;
  const aliases = config.ngram ? ["model.ngram_embeddings.word_embeddings.weight"] : [];
  yield spec("model.embed_tokens.weight", [V, D], { aliases });
  yield* ngram(config);
  for (let l = 0; l < config.numLayers; l++) yield* layer(config, `model.layers.${l}`);
  yield spec("model.norm.weight", [D]);
  if (!config.tieWordEmbeddings) yield spec("lm_head.weight", [V, D]);
  yield* mtp(config);
}

/** The number of the routed expert that a tensor belongs to, scales included; undefined: none. */
export function expertOf(name: string): number | undefined {
  const expert = /^model\.layers\.\d+\.mlp\.experts\.(\d{1,9})\./.exec(name)?.[1];
  return expert === undefined ? undefined : Number(expert);
}

/** Why a tensor that the model does not use may be in a checkpoint. */
export type ExtraKind = "unused expert" | "rotary frequencies" | "copy of a shared tensor" | "router bias" | "sparse attention" | "unknown";

/** Judges a name that is not in the table. */
export function classifyExtra(name: string, config: ModelConfig): ExtraKind {
  if (/(^|\.)indexer(\.|$)/.test(name)) return "sparse attention";
  const expert = expertOf(name);
  if (expert !== undefined && expert >= config.numExperts) return "unused expert";
  if (name.endsWith("rotary_emb.inv_freq")) return "rotary frequencies";
  if (/^model\.mtp\.(embed_tokens|lm_head|layers\.0\.(embed_tokens|shared_head\.head))\.weight$/.test(name))
    return "copy of a shared tensor";
  if (name === "lm_head.weight" && config.tieWordEmbeddings) return "copy of a shared tensor";
  if (name === "model.ngram_embeddings.word_embeddings.weight" && config.ngram) return "copy of a shared tensor";
  if (/^model\.layers\.\d+\.mlp\.router\.classifier\.bias$/.test(name)) return "router bias";
  return "unknown";
}
