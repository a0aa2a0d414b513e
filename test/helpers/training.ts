/** Models and runs small enough to train in a test. */

/** config.json of a LongCat-Flash of 78 thousand numbers: sizes that differ, so that none stands for another. */
export const TOY = {
  architectures: ["LongcatFlashForCausalLM"],
  model_type: "longcat_flash",
  ...{ hidden_size: 32, num_layers: 2, vocab_size: 24, max_position_embeddings: 64 },
  ...{ num_attention_heads: 2, q_lora_rank: 20, kv_lora_rank: 12, qk_nope_head_dim: 16, qk_rope_head_dim: 8, v_head_dim: 10 },
  ...{ ffn_hidden_size: 64, expert_ffn_hidden_size: 24, n_routed_experts: 8, zero_expert_num: 4, moe_topk: 3, routed_scaling_factor: 2 },
  ...{ rms_norm_eps: 1e-5, rope_theta: 10000, bos_token_id: 1, eos_token_id: 2 },
};

/** The same with n-gram embeddings. */
export const LITE_TOY = {
  ...TOY,
  ...{ architectures: ["LongcatFlashNgramForCausalLM"], model_type: "longcat_flash_ngram" },
  ...{ emb_neighbor_num: 3, emb_split_num: 2, ngram_vocab_size_ratio: 3 },
};

/** A run that copies words of six of twelve symbols. */
export function toyRun(changes: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    ...{ model: TOY, seed: 3, steps: 150, sequences: 16, task: { kind: "copy", symbols: 12, length: 6 } },
    ...{ rate: 0.01, schedule: { warmup: 20 }, budget: { mu: 0.1 }, balance: { alpha: 0.001, groups: 2 }, zLoss: 1e-6 },
    ...changes,
  };
}
