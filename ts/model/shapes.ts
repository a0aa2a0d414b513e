/**
 * The sizes of the family's models, built in: for measuring without a checkpoint.
 * @module
 */

import { readFileSync } from "node:fs";
import { type ModelConfig, parseConfig } from "./config.js";

/** Models whose sizes are known: LongCat-Flash, LongCat-Flash-Lite, and the bundled mini. */
export type Shape = "flash" | "lite" | "mini";
export const SHAPES: readonly Shape[] = ["flash", "lite", "mini"];

/** What flash and lite share. */
const COMMON = {
  attention_bias: false,
  attention_method: "MLA",
  eos_token_id: 2,
  kv_lora_rank: 512,
  mla_scale_kv_lora: true,
  mla_scale_q_lora: true,
  moe_topk: 12,
  q_lora_rank: 1536,
  qk_nope_head_dim: 128,
  qk_rope_head_dim: 64,
  rms_norm_eps: 1e-5,
  routed_scaling_factor: 6.0,
  v_head_dim: 128,
  vocab_size: 131072,
  zero_expert_type: "identity",
};

const FLASH = {
  ...COMMON,
  model_type: "longcat_flash",
  expert_ffn_hidden_size: 2048,
  ffn_hidden_size: 12288,
  hidden_size: 6144,
  max_position_embeddings: 131072,
  n_routed_experts: 512,
  num_attention_heads: 64,
  num_layers: 28,
  rope_theta: 1e7,
  zero_expert_num: 256,
};

const LITE = {
  ...COMMON,
  model_type: "longcat_flash_ngram",
  emb_neighbor_num: 4,
  emb_split_num: 4,
  expert_ffn_hidden_size: 1024,
  ffn_hidden_size: 6144,
  hidden_size: 3072,
  max_position_embeddings: 327680,
  n_routed_experts: 256,
  ngram_vocab_size_ratio: 78,
  num_attention_heads: 32,
  num_layers: 14,
  rope_scaling: {
    ...{ type: "yarn", factor: 10, beta_fast: 32, beta_slow: 1, mscale: 1, mscale_all_dim: 1 },
    original_max_position_embeddings: 32768,
  },
  rope_theta: 5e6,
  zero_expert_num: 128,
};

/** A model's sizes; `layers` instead of as many as it has. */
export function shapeConfig(shape: Shape, layers?: number): ModelConfig {
  const mini = new URL("../../models/mini/config.json", import.meta.url);
  const json = { flash: () => FLASH, lite: () => LITE, mini: () => JSON.parse(readFileSync(mini, "utf8")) as unknown }[shape]();
  const config = parseConfig(json, `the built-in sizes of ${shape}`);
  return layers === undefined ? config : { ...config, numLayers: layers };
}
