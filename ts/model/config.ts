/**
 * config.json of every LongCat-Flash variant, read into one typed form (docs/model.md, section 1).
 *
 * Rules: a key that changes the result is honoured or refused by name; two spellings of one thing must agree; what a key
 * cannot be is said with its value; harmless keys are ignored; any other unknown key gives one warning.
 * @module
 */

import { LongcatError } from "../errors.js";
import { cut, Fields, shown } from "./fields.js";
import { parseRope, type RopeConfig, type YarnScaling } from "./rope.js";

export { type RopeParameters, ropeParameters, type YarnScaling } from "./rope.js";

/** LongCat-Flash-Lite's hashed n-gram embeddings (docs/model.md, section 7). */
export interface NgramConfig {
  /** Longest n-gram, the token itself counted. */
  neighbors: number;
  /** Tables for each length. */
  splits: number;
  /** Rows of a table, as a multiple of the vocabulary. */
  ratio: number;
}

/** Block FP8 (docs/model.md, section 5.2): 128 × 128 blocks, e4m3. */
export interface QuantizationConfig {
  method: "fp8";
  blockSize: 128;
}

/** A model's sizes and constants. Letters: docs/model.md, section 1. */
export interface ModelConfig extends RopeConfig {
  /** "longcat_flash" or "longcat_flash_ngram", given or concluded. */
  modelType: "longcat_flash" | "longcat_flash_ngram";
  hiddenSize: number;
  /** Decoder layers, each with two attentions, two dense FFNs and one MoE. */
  numLayers: number;
  numHeads: number;
  ffnHiddenSize: number;
  expertFfnHiddenSize: number;
  numExperts: number;
  numZeroExperts: number;
  topK: number;
  routedScalingFactor: number;
  qLoraRank: number;
  kvLoraRank: number;
  qkNopeHeadDim: number;
  qkRopeHeadDim: number;
  vHeadDim: number;
  rmsNormEps: number;
  /** sqrt(D / qLoraRank), or 1 where mla_scale_q_lora is false. */
  qScale: number;
  /** sqrt(D / kvLoraRank), or 1 where mla_scale_kv_lora is false. */
  kvScale: number;
  ropeTheta: number;
  ropeScaling: YarnScaling | null;
  /** The context: tokens a sequence may have. */
  maxPositionEmbeddings: number;
  vocabSize: number;
  tieWordEmbeddings: boolean;
  /** Biases on q_a, kv_a and o. */
  attentionBias: boolean;
  /** End tokens of config.json; empty where it gives none. */
  eosTokenIds: number[];
  bosTokenId: number | null;
  /** Draft heads that the config promises (0 or 1). */
  numNextnPredictLayers: number;
  ngram: NgramConfig | null;
  quantization: QuantizationConfig | null;
  /** Modules left unquantised: "self_attn", "mlps", "mtp". */
  disableQuantModules: string[];
  /** As the config names it ("bfloat16"); the tensors' own types count. */
  dtype: string | null;
}

/** Largest number of n-gram tables that the operations take. */
const MAX_NGRAM_TABLES = 40;

/** The id that n-grams do not reach across: end of text. No config says it; the reference has it as a constant. */
export const NGRAM_END_ID = 2;

/** How many n-gram tables there are: `splits` for each length from 2 to `neighbors`. Table i has ratio · vocabulary + 2i + 1 rows. */
export function numNgramTables(ngram: Pick<NgramConfig, "neighbors" | "splits"> | null): number {
  return ngram ? ngram.splits * (ngram.neighbors - 1) : 0;
}

/** Most heads, and most numbers of a part of a head, that the attention operations take. */
const MAX_HEAD_SIZE = 1 << 16;

/** Keys without influence on the result of inference. */
const HARMLESS = new Set(
  `architectures model_type torch_dtype dtype transformers_version auto_map _name_or_path use_cache attention_dropout
   initializer_range pad_token_id sep_token_id cls_token_id output_attentions output_hidden_states return_dict is_decoder is_encoder_decoder
   add_cross_attention chunk_size_feed_forward gradient_checkpointing id2label label2id problem_type finetuning_task task_specific_params
   tokenizer_class prefix _commit_hash _attn_implementation attn_implementation use_bfloat16 torchscript pruned_heads
   pretraining_tp ep_size router_aux_loss_coef aux_loss_alpha seq_aux output_router_logits description license
   architecture_version resid_pdrop embd_pdrop hidden_dropout mtp_loss_weight`.split(/\s+/),
);

/**
 * Reads a parsed config.json.
 *
 * @param json the file's content
 * @param file its name, for messages
 * @param onWarning gets one sentence for each thing that was assumed or ignored
 * @throws LongcatError CONFIG_INVALID (wrong, impossible or conflicting values), CHECKPOINT_UNSUPPORTED (a feature this engine lacks)
 */
export function parseConfig(json: unknown, file = "config.json", onWarning: (message: string) => void = () => {}): ModelConfig {
  const fields = new Fields(json, file);
  refuseUnsupported(fields);
  const ngram = parseNgram(fields);
  const modelType = parseModelType(fields, ngram, file);
  const warn = (message: string) => onWarning(`${cut(file)}: ${message}`);
  const orDefault = (value: number | undefined, key: string, fallback: number): number => {
    if (value === undefined) warn(`${key} is missing; ${fallback} is assumed`);
    return value ?? fallback;
  };

  const hiddenSize = fields.size("hidden_size");
  const vocabSize = fields.size("vocab_size");
  const qLoraRank = fields.size("q_lora_rank");
  const kvLoraRank = fields.size("kv_lora_rank");
  const maxPositionEmbeddings = orDefault(fields.optionalSize("max_position_embeddings"), "max_position_embeddings", 131072);
  const config: ModelConfig = {
    modelType,
    hiddenSize,
    vocabSize,
    qLoraRank,
    kvLoraRank,
    maxPositionEmbeddings,
    numLayers: parseNumLayers(fields),
    numHeads: fields.size("num_attention_heads", { max: MAX_HEAD_SIZE }),
    ffnHiddenSize: fields.size(["ffn_hidden_size", "intermediate_size"]),
    expertFfnHiddenSize: fields.size(["expert_ffn_hidden_size", "moe_intermediate_size"]),
    numExperts: fields.size(["n_routed_experts", "num_local_experts", "num_experts"]),
    numZeroExperts: fields.size("zero_expert_num", { min: 0 }),
    topK: fields.size(["moe_topk", "num_experts_per_tok"]),
    routedScalingFactor: orDefault(fields.optionalNumber("routed_scaling_factor", { above: 0 }), "routed_scaling_factor", 6),
    qkNopeHeadDim: fields.size("qk_nope_head_dim", { max: MAX_HEAD_SIZE }),
    qkRopeHeadDim: fields.size("qk_rope_head_dim", { max: MAX_HEAD_SIZE }),
    vHeadDim: fields.size("v_head_dim", { max: MAX_HEAD_SIZE }),
    rmsNormEps: orDefault(fields.optionalNumber("rms_norm_eps", { min: 0, max: 1 }), "rms_norm_eps", 1e-5),
    qScale: fields.boolean("mla_scale_q_lora", true) ? Math.sqrt(hiddenSize / qLoraRank) : 1,
    kvScale: fields.boolean("mla_scale_kv_lora", true) ? Math.sqrt(hiddenSize / kvLoraRank) : 1,
    ...parseRope(fields, maxPositionEmbeddings, warn),
    tieWordEmbeddings: fields.boolean("tie_word_embeddings", false),
    attentionBias: fields.boolean("attention_bias", false),
    eosTokenIds: fields.tokenIds("eos_token_id", vocabSize),
    bosTokenId: fields.optionalSize("bos_token_id", { min: 0, max: vocabSize - 1 }) ?? null,
    numNextnPredictLayers: fields.optionalSize("num_nextn_predict_layers", { min: 0 }) ?? 0,
    ngram,
    quantization: parseQuantization(fields),
    disableQuantModules: fields.strings("disable_quant_module"),
    dtype: fields.find("dtype", "torch_dtype") ? (fields.optionalString("dtype") ?? fields.optionalString("torch_dtype") ?? null) : null,
  };
  checkTogether(config, fields);
  warnOfIgnored(fields, warn);
  return config;
}

/** Keys whose values would change the result in a way that this engine does not know. */
function refuseUnsupported(fields: Fields): void {
  const sparse = fields.unused().find((key) => key.startsWith("index_") || key.includes("indexer"));
  const method = fields.get("attention_method");
  if (sparse !== undefined && fields.get(sparse) !== undefined)
    fields.fail(sparse, `is ${shown(fields.get(sparse))}: sparse attention (an indexer) is not supported`, "CHECKPOINT_UNSUPPORTED");
  if (method !== undefined && method !== "MLA") {
    fields.fail(
      "attention_method",
      `is ${shown(method)}: not supported (LSA is sparse attention); accepted: "MLA" or no such key`,
      "CHECKPOINT_UNSUPPORTED",
    );
  }
  fields.only("norm_topk_prob", [false], "normalising the chosen experts' weights is");
  fields.only("zero_expert_type", ["identity"], "other zero experts than the identity are");
  fields.only("hidden_act", ["silu", "swish"], "another activation than SiLU is");
  fields.only("nextn_use_scmoe", [false], "a draft head with experts is");
  fields.only("mlp_bias", [false], "biases in FFNs are");
  fields.only("n_shared_experts", [0], "shared experts are");
  fields.only("num_shared_experts", [0], "shared experts are");
  fields.only("scoring_func", ["softmax"], "another router score than softmax is");
  for (const key of ["n_group", "topk_group"]) fields.only(key, [0, 1], "routing by groups is");
  fields.only("sliding_window", [false], "a sliding window is");
  fields.only("use_sliding_window", [false], "a sliding window is");
  fields.only("partial_rotary_factor", [1], "rotating a part of the dimensions is");
  fields.only("rope_interleave", [true], "rotating halves instead of pairs is");
  fields.only("compression_config", [], "compressed weights are");
}

function parseNgram(fields: Fields): NgramConfig | null {
  const keys = [
    ["emb_neighbor_num", "oe_neighbor_num"],
    ["emb_split_num", "oe_split_num"],
    ["ngram_vocab_size_ratio", "oe_vocab_size_ratio"],
  ] as const;
  const there = keys.filter((names) => fields.find(...names));
  if (there.length === 0) return null;
  const [neighbors, splits, ratio] = [
    fields.size([...keys[0]], { min: 2, max: 64 }),
    fields.size([...keys[1]], { max: 64 }),
    fields.size([...keys[2]]),
  ];
  const tables = numNgramTables({ neighbors, splits });
  if (tables > MAX_NGRAM_TABLES)
    fields.fail(there[0]![0], `gives ${tables} n-gram tables; at most ${MAX_NGRAM_TABLES} are supported`, "CHECKPOINT_UNSUPPORTED");
  return { neighbors, splits, ratio };
}

const DENSE_CLASS = "LongcatFlashForCausalLM";
const NGRAM_CLASS = "LongcatFlashNgramForCausalLM";
/** One class name for several architectures: only the keys tell them apart. */
const SHARED_CLASS = "LongcatCausalLM";

/** From model_type, or from architectures where released configs omit it; n-gram keys must fit. */
function parseModelType(fields: Fields, ngram: NgramConfig | null, file: string): ModelConfig["modelType"] {
  const given = fields.optionalString("model_type");
  const classes = fields.strings("architectures");
  const wants = `model_type "longcat_flash" or "longcat_flash_ngram", or architectures ["${DENSE_CLASS}"] or ["${NGRAM_CLASS}"]`;
  const known = given === "longcat_flash" || given === "longcat_flash_ngram" ? given : undefined;
  if (given !== undefined && !known) {
    fields.fail("model_type", `is ${shown(given)}: not supported; looked for ${wants}`, "CHECKPOINT_UNSUPPORTED");
  }
  const byClass = classes.includes(NGRAM_CLASS) ? "longcat_flash_ngram" : classes.includes(DENSE_CLASS) ? "longcat_flash" : undefined;
  if (known && byClass && known !== byClass)
    fields.fail("model_type", `is ${shown(given)} but architectures is ${shown(classes)}: they contradict each other`);
  let type: ModelConfig["modelType"] | undefined = known ?? byClass;
  if (!type && classes.includes(SHARED_CLASS)) {
    if (ngram) {
      fields.fail(
        "architectures",
        `is ["${SHARED_CLASS}"] with n-gram keys: how its embeddings are combined is not known; accepted: ${wants}`,
        "CHECKPOINT_UNSUPPORTED",
      );
    }
    type = "longcat_flash";
  }
  if (!type) {
    throw new LongcatError(
      "CHECKPOINT_UNSUPPORTED",
      `${cut(file)}: not known to be a LongCat-Flash model: looked for ${wants}; architectures is ${shown(classes)}`,
    );
  }
  if (type === "longcat_flash_ngram" && !ngram)
    fields.fail("emb_neighbor_num", "is missing (also looked for oe_neighbor_num); an n-gram model needs it");
  if (type === "longcat_flash" && ngram)
    fields.fail("model_type", "is longcat_flash, yet n-gram keys (emb_… or oe_…) are there: they contradict each other");
  return type;
}

/** num_layers; num_hidden_layers counts attentions (HF: twice as many) or layers (other engines). */
function parseNumLayers(fields: Fields): number {
  const layers = fields.optionalSize("num_layers");
  const attentions = fields.optionalSize("num_hidden_layers");
  if (layers === undefined && attentions === undefined) fields.fail("num_layers", "is missing (also looked for num_hidden_layers)");
  if (layers === undefined) {
    if (attentions! % 2 !== 0)
      fields.fail("num_hidden_layers", `is ${attentions}: odd, though it counts two attentions a layer; give num_layers`);
    return attentions! / 2;
  }
  if (attentions !== undefined && attentions !== layers && attentions !== 2 * layers) {
    fields.fail("num_layers", `is ${layers} but num_hidden_layers is ${attentions}; it must be ${2 * layers} (attentions) or ${layers}`);
  }
  return layers;
}

function parseQuantization(fields: Fields): QuantizationConfig | null {
  const section = fields.object("quantization_config");
  if (!section) return null;
  const method = section.optionalString("quant_method");
  if (method === undefined) section.fail("quant_method", 'is missing; "fp8" is wanted');
  section.only("quant_method", ["fp8"], "this quantisation is");
  section.only("fmt", ["e4m3"], "this FP8 format is");
  section.only("activation_scheme", ["dynamic"], "this activation scheme is");
  const block = section.get("weight_block_size");
  if (JSON.stringify(block) !== "[128,128]") {
    section.fail("weight_block_size", `is ${shown(block)}: not supported; accepted: [128,128]`, "CHECKPOINT_UNSUPPORTED");
  }
  return { method: "fp8", blockSize: 128 };
}

/** What single values cannot show. */
function checkTogether(config: ModelConfig, fields: Fields): void {
  const { qkRopeHeadDim: rope, topK, numExperts, numZeroExperts, numHeads, ngram, hiddenSize } = config;
  if (rope % 2 !== 0) fields.fail("qk_rope_head_dim", `is ${rope}; an even number is wanted`);
  const headDim = fields.optionalSize("head_dim");
  if (headDim !== undefined && headDim !== rope)
    fields.fail("head_dim", `is ${headDim} but qk_rope_head_dim is ${rope}; they must be equal`);
  const qkHeadDim = fields.optionalSize("qk_head_dim");
  if (qkHeadDim !== undefined && qkHeadDim !== config.qkNopeHeadDim + rope) {
    fields.fail("qk_head_dim", `is ${qkHeadDim} but qk_nope_head_dim + qk_rope_head_dim is ${config.qkNopeHeadDim + rope}`);
  }
  const kvHeads = fields.optionalSize("num_key_value_heads");
  if (kvHeads !== undefined && kvHeads !== numHeads) {
    fields.fail(
      "num_key_value_heads",
      `is ${kvHeads}: not supported unless equal to num_attention_heads (${numHeads})`,
      "CHECKPOINT_UNSUPPORTED",
    );
  }
  if (topK > numExperts + numZeroExperts) {
    fields.fail("moe_topk", `is ${topK}; at most ${numExperts + numZeroExperts} is possible (n_routed_experts + zero_expert_num)`);
  }
  if (config.numNextnPredictLayers > 1) {
    fields.fail(
      "num_nextn_predict_layers",
      `is ${config.numNextnPredictLayers}: not supported; accepted: 0 or 1`,
      "CHECKPOINT_UNSUPPORTED",
    );
  }
  const tables = numNgramTables(ngram);
  if (ngram && hiddenSize % tables !== 0)
    fields.fail("hidden_size", `is ${hiddenSize}; a multiple of the ${tables} n-gram tables is wanted`);
  if (ngram && ngram.ratio * config.vocabSize > 2 ** 31 - 100) {
    fields.fail("ngram_vocab_size_ratio", `is ${ngram.ratio}; with ${config.vocabSize} words a table would pass 2^31 rows`);
  }
}

function warnOfIgnored(fields: Fields, warn: (message: string) => void): void {
  if (fields.boolean("router_bias", false)) warn("router_bias is true; the reference never adds that bias, so it is ignored");
  for (const key of ["router_dtype", "rounter_params_dtype"]) {
    const value = fields.get(key);
    if (value !== undefined && value !== "float32" && value !== "fp32")
      warn(`${key} is ${shown(value)}; the router always works in float32`);
  }
  const unknown = fields.unused().filter((key) => !HARMLESS.has(key));
  if (unknown.length === 0) return;
  const listed = unknown
    .slice(0, 8)
    .map((key) => cut(key, 40))
    .join(", ");
  warn(`unknown keys are ignored: ${listed}${unknown.length > 8 ? ` and ${unknown.length - 8} more` : ""}`);
}
