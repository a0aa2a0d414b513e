/** config.json in every variant: aliases, names of the architecture, RoPE keys, wrong and unsupported values. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { LongcatError } from "../../ts/errors.js";
import { type ModelConfig, parseConfig } from "../../ts/model/config.js";
import { type Json, modelPath } from "../helpers/fixtures.js";

const tinyA: Json = JSON.parse(readFileSync(join(modelPath("tiny-a"), "config.json"), "utf8"));
const tinyLite: Json = JSON.parse(readFileSync(join(modelPath("tiny-lite-a"), "config.json"), "utf8"));

/** `base` with keys set (undefined: removed). */
function change(base: Json, changes: Json): Json {
  const config = structuredClone(base);
  for (const [key, value] of Object.entries(changes)) {
    if (value === undefined) delete config[key];
    else config[key] = value;
  }
  return config;
}

function read(json: unknown): { config: ModelConfig; warnings: string[] } {
  const warnings: string[] = [];
  return { config: parseConfig(json, "config.json", (w) => warnings.push(w)), warnings };
}

function failure(json: unknown): LongcatError {
  try {
    parseConfig(json, "config.json");
  } catch (error) {
    expect(error).toBeInstanceOf(LongcatError);
    expect((error as Error).message.length).toBeLessThan(300);
    return error as LongcatError;
  }
  throw new Error("the config was accepted");
}

function expectFailure(json: unknown, code: string, ...named: (string | RegExp)[]): void {
  const error = failure(json);
  expect(error.code).toBe(code);
  for (const name of named)
    expect(error.message).toEqual(typeof name === "string" ? expect.stringContaining(name) : expect.stringMatching(name));
}

describe("a released config", () => {
  it("gives every value, and no warning", () => {
    const { config, warnings } = read(tinyA);
    expect(warnings).toEqual([]);
    expect(config).toMatchObject({
      modelType: "longcat_flash",
      hiddenSize: 96,
      numLayers: 2,
      numHeads: 4,
      ffnHiddenSize: 160,
      expertFfnHiddenSize: 48,
      numExperts: 14,
      numZeroExperts: 7,
      topK: 5,
      routedScalingFactor: 3,
      qLoraRank: 40,
      kvLoraRank: 24,
      qkNopeHeadDim: 24,
      qkRopeHeadDim: 16,
      vHeadDim: 32,
      rmsNormEps: 1e-5,
      qScale: Math.sqrt(96 / 40),
      kvScale: 2,
      ropeTheta: 10000,
      ropeScaling: null,
      maxPositionEmbeddings: 512,
      vocabSize: 320,
      tieWordEmbeddings: false,
      attentionBias: false,
      eosTokenIds: [2],
      bosTokenId: 1,
      numNextnPredictLayers: 0,
      ngram: null,
      quantization: null,
      disableQuantModules: [],
      dtype: "float32",
    });
  });

  it("of Lite gives n-gram sizes and YaRN", () => {
    const { config, warnings } = read(tinyLite);
    expect(warnings).toEqual([]);
    expect(config.modelType).toBe("longcat_flash_ngram");
    expect(config.ngram).toEqual({ neighbors: 4, splits: 4, ratio: 4 });
    expect(config.ropeScaling).toMatchObject({
      type: "yarn",
      factor: 4,
      betaFast: 32,
      betaSlow: 1,
      mscale: 1,
      mscaleAllDim: 1,
      originalMaxPositionEmbeddings: 64,
    });
  });
});

describe("which model it is", () => {
  const same = (base: Json, changes: Json) => expect(read(change(base, changes)).config).toEqual(read(base).config);
  const oe = {
    emb_neighbor_num: undefined,
    emb_split_num: undefined,
    ngram_vocab_size_ratio: undefined,
    oe_neighbor_num: 4,
    oe_split_num: 4,
    oe_vocab_size_ratio: 4,
  };

  it("is concluded from the class where model_type is absent", () => same(tinyLite, { model_type: undefined }));
  it("is concluded from the class where model_type is null", () => same(tinyLite, { model_type: null }));
  it("takes n-gram sizes in their other spelling", () => same(tinyLite, oe));
  it("takes both spellings where they agree", () => same(tinyLite, { oe_neighbor_num: 4 }));
  it("refuses two spellings that disagree", () =>
    expectFailure(change(tinyLite, { oe_split_num: 2 }), "CONFIG_INVALID", "emb_split_num", "oe_split_num"));
  it("refuses the shared class name with n-gram keys", () =>
    expectFailure(
      change(tinyLite, { ...oe, model_type: undefined, architectures: ["LongcatCausalLM"] }),
      "CHECKPOINT_UNSUPPORTED",
      "LongcatCausalLM",
    ));
  it("refuses sparse attention before anything else", () =>
    expectFailure(
      change(tinyLite, { ...oe, model_type: undefined, architectures: ["LongcatCausalLM"], attention_method: "LSA", index_topk: 64 }),
      "CHECKPOINT_UNSUPPORTED",
      "index_topk",
      "sparse attention",
    ));
  it("refuses attention_method LSA alone", () =>
    expectFailure(change(tinyA, { attention_method: "LSA" }), "CHECKPOINT_UNSUPPORTED", "attention_method", "sparse"));
  it("takes the shared class name where only dense keys are there", () =>
    same(tinyA, { model_type: undefined, architectures: ["LongcatCausalLM"] }));
  it("refuses a config that names neither, saying what was looked for", () =>
    expectFailure(
      change(tinyA, { model_type: undefined, architectures: undefined }),
      "CHECKPOINT_UNSUPPORTED",
      "longcat_flash",
      "LongcatFlashForCausalLM",
    ));
  it("refuses another model_type", () =>
    expectFailure(change(tinyA, { model_type: "llama" }), "CHECKPOINT_UNSUPPORTED", '"llama"', "longcat_flash"));
  it("refuses model_type and class that contradict each other", () =>
    expectFailure(change(tinyA, { architectures: ["LongcatFlashNgramForCausalLM"] }), "CONFIG_INVALID", "model_type", "architectures"));
  it("refuses n-gram keys in a dense model", () =>
    expectFailure(change(tinyA, { oe_neighbor_num: 4, oe_split_num: 4, oe_vocab_size_ratio: 4 }), "CONFIG_INVALID", "n-gram"));
  it("refuses an n-gram model without its sizes", () =>
    expectFailure(
      change(tinyLite, { emb_neighbor_num: undefined, emb_split_num: undefined, ngram_vocab_size_ratio: undefined }),
      "CONFIG_INVALID",
      "emb_neighbor_num",
    ));
  it("refuses half of the n-gram sizes", () =>
    expectFailure(change(tinyLite, { emb_split_num: undefined }), "CONFIG_INVALID", "emb_split_num", "oe_split_num"));
});

describe("other spellings", () => {
  it.each([
    ["ffn_hidden_size", "intermediate_size"],
    ["n_routed_experts", "num_local_experts"],
    ["moe_topk", "num_experts_per_tok"],
    ["expert_ffn_hidden_size", "moe_intermediate_size"],
  ])("%s may be %s", (name, alias) => {
    expect(read(change(tinyA, { [name]: undefined, [alias]: tinyA[name] }))).toEqual(read(tinyA));
    expectFailure(change(tinyA, { [alias]: tinyA[name] + 1 }), "CONFIG_INVALID", name, alias);
  });

  it("num_hidden_layers counts attentions where num_layers is absent", () => {
    expect(read(change(tinyA, { num_layers: undefined, num_hidden_layers: 6 })).config.numLayers).toBe(3);
    expectFailure(change(tinyA, { num_layers: undefined, num_hidden_layers: 5 }), "CONFIG_INVALID", "num_hidden_layers", "5");
    expectFailure(change(tinyA, { num_layers: undefined }), "CONFIG_INVALID", "num_layers");
  });

  it.each([2, 4])("num_hidden_layers %i agrees with 2 layers", (n) =>
    expect(read(change(tinyA, { num_hidden_layers: n })).config.numLayers).toBe(2),
  );
  it("num_hidden_layers 6 does not", () =>
    expectFailure(change(tinyA, { num_hidden_layers: 6 }), "CONFIG_INVALID", "num_layers", "num_hidden_layers", "6"));
});

describe("the RoPE base", () => {
  const yarn = tinyLite.rope_scaling;
  it("is the same at the top and in rope_parameters", () => {
    const a = read(change(tinyA, { rope_theta: 500000.0 })).config;
    const b = read(change(tinyA, { rope_theta: undefined, rope_parameters: { rope_type: "default", rope_theta: 500000.0 } })).config;
    expect(b).toEqual(a);
    expect(a.ropeTheta).toBe(500000);
    expect(read(tinyA).config.ropeTheta).toBe(10000);
  });
  it("is refused where two values are given", () =>
    expectFailure(
      change(tinyA, { rope_parameters: { rope_type: "default", rope_theta: 500000.0 } }),
      "CONFIG_INVALID",
      "rope_theta",
      "500000",
      "10000",
      "rope_parameters",
    ));
  it("is 10,000,000 with one warning where none is given", () => {
    const { config, warnings } = read(change(tinyA, { rope_theta: undefined }));
    expect(config.ropeTheta).toBe(10_000_000);
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toMatch(/rope_theta.*10000000/);
  });
  it("and YaRN are the same in rope_parameters, with type, with an integer factor", () => {
    const { config } = read(tinyLite);
    expect(
      read(change(tinyLite, { rope_theta: undefined, rope_scaling: undefined, rope_parameters: { ...yarn, rope_theta: 10000.0 } })).config,
    ).toEqual(config);
    const { rope_type, ...rest } = yarn;
    expect(read(change(tinyLite, { rope_scaling: { ...rest, type: rope_type } })).config).toEqual(config);
    expect(read(change(tinyLite, { rope_scaling: { ...yarn, factor: 4 } })).config).toEqual(config);
    expect(read(change(tinyLite, { rope_parameters: yarn })).config).toEqual(config);
  });
  it("refuses another scaling by name", () =>
    expectFailure(change(tinyLite, { rope_scaling: { rope_type: "llama3", factor: 8 } }), "CHECKPOINT_UNSUPPORTED", "llama3", "yarn"));
  it("refuses unequal scalings", () =>
    expectFailure(change(tinyLite, { rope_parameters: { ...yarn, factor: 8 } }), "CONFIG_INVALID", "rope_scaling", "rope_parameters"));
  it("refuses type and rope_type that differ", () =>
    expectFailure(change(tinyLite, { rope_scaling: { ...yarn, type: "linear" } }), "CONFIG_INVALID", "rope_type", "type"));
  it("refuses a factor without a type", () =>
    expectFailure(change(tinyA, { rope_scaling: { factor: 4 } }), "CONFIG_INVALID", "rope_scaling.factor"));
  it("refuses unknown keys within", () =>
    expectFailure(change(tinyLite, { rope_scaling: { ...yarn, short_factor: [1] } }), "CONFIG_INVALID", "short_factor"));
  it("takes a null scaling as none", () => expect(read(change(tinyA, { rope_scaling: null })).config.ropeScaling).toBeNull());
  it.each([0, 1, -5, "10000", true, [10000], Number.NaN, Number.POSITIVE_INFINITY])("refuses rope_theta %s", (value) =>
    expectFailure(change(tinyA, { rope_theta: value }), "CONFIG_INVALID", "rope_theta", "number"),
  );
});

describe("keys that change the result", () => {
  it.each<[string, unknown]>([
    ["norm_topk_prob", true],
    ["zero_expert_type", "drop"],
    ["zero_expert_type", "copy"],
    ["hidden_act", "gelu"],
    ["nextn_use_scmoe", true],
    ["index_topk", 64],
    ["index_n_heads", 4],
    ["n_shared_experts", 1],
    ["scoring_func", "sigmoid"],
    ["n_group", 8],
    ["num_key_value_heads", 1],
    ["rope_interleave", false],
    ["sliding_window", 4096],
    ["compression_config", {}],
    ["num_nextn_predict_layers", 3],
    ["mlp_bias", true],
  ])("%s = %j is CHECKPOINT_UNSUPPORTED by name", (key, value) =>
    expectFailure(change(tinyA, { [key]: value }), "CHECKPOINT_UNSUPPORTED", key),
  );

  it.each<[string, unknown]>([
    ["norm_topk_prob", false],
    ["hidden_act", "silu"],
    ["nextn_use_scmoe", false],
    ["num_key_value_heads", 4],
    ["n_group", 1],
    ["qk_head_dim", 40],
    ["router_dtype", "float32"],
  ])("%s = %j is what the engine does", (key, value) => expect(read(change(tinyA, { [key]: value }))).toEqual(read(tinyA)));

  it("mla_scale_q_lora and mla_scale_kv_lora are honoured", () => {
    expect(read(change(tinyA, { mla_scale_q_lora: false })).config.qScale).toBe(1);
    expect(read(change(tinyA, { mla_scale_kv_lora: false })).config.kvScale).toBe(1);
    expect(read(change(tinyA, { mla_scale_q_lora: undefined })).config.qScale).toBe(Math.sqrt(96 / 40));
  });
  it("an integer routed_scaling_factor is taken", () =>
    expect(read(change(tinyA, { routed_scaling_factor: 3 })).config).toEqual(read(tinyA).config));
  it("router_bias is ignored with one warning", () =>
    expect(read(change(tinyA, { router_bias: true })).warnings).toEqual([expect.stringContaining("router_bias")]));
});

describe("quantisation", () => {
  const fp8 = { quant_method: "fp8", fmt: "e4m3", activation_scheme: "dynamic", weight_block_size: [128, 128] };
  it("takes block FP8", () =>
    expect(read(change(tinyA, { quantization_config: fp8 })).config.quantization).toEqual({ method: "fp8", blockSize: 128 }));
  it.each<[string, Json]>([
    ["quant_method", { quant_method: "awq" }],
    ["fmt", { fmt: "e5m2" }],
    ["activation_scheme", { activation_scheme: "static" }],
    ["weight_block_size", { weight_block_size: [64, 64] }],
    ["weight_block_size", { weight_block_size: undefined }],
  ])("refuses another %s", (key, changes) =>
    expectFailure(change(tinyA, { quantization_config: change(fp8, changes) }), "CHECKPOINT_UNSUPPORTED", key),
  );
  it("keeps disable_quant_module", () =>
    expect(read(change(tinyA, { disable_quant_module: ["self_attn"] })).config.disableQuantModules).toEqual(["self_attn"]));
  it("refuses a disable_quant_module that is no list", () =>
    expectFailure(change(tinyA, { disable_quant_module: "mtp" }), "CONFIG_INVALID", "disable_quant_module"));
});

describe("wrong values", () => {
  it.each<[string, unknown]>([
    ["hidden_size", undefined],
    ["hidden_size", 0],
    ["hidden_size", -96],
    ["hidden_size", 96.5],
    ["hidden_size", "96"],
    ["hidden_size", [96]],
    ["hidden_size", 2 ** 40],
    ["hidden_size", {}],
    ["hidden_size", true],
    ["vocab_size", 0],
    ["num_layers", 0],
    ["num_attention_heads", Number.POSITIVE_INFINITY],
    ["q_lora_rank", null],
    ["moe_topk", 22],
    ["moe_topk", 0],
    ["zero_expert_num", -1],
    ["n_routed_experts", 0],
    ["qk_rope_head_dim", 15],
    ["head_dim", 8],
    ["qk_head_dim", 41],
    ["routed_scaling_factor", 0],
    ["routed_scaling_factor", Number.NaN],
    ["routed_scaling_factor", "6"],
    ["rms_norm_eps", -1],
    ["rms_norm_eps", "1e-5"],
    ["attention_bias", 1],
    ["tie_word_embeddings", "no"],
    ["mla_scale_q_lora", "true"],
    ["max_position_embeddings", 0],
    ["bos_token_id", 320],
    ["bos_token_id", "1"],
    ["architectures", "LongcatFlashForCausalLM"],
    ["model_type", 7],
    ["quantization_config", []],
    ["quantization_config", {}],
    ["rope_scaling", "yarn"],
    ["rope_scaling", { rope_type: 3 }],
    ["rope_scaling", { rope_type: "yarn", factor: 0.5 }],
    ["rope_scaling", { rope_type: "yarn" }],
    ["eos_token_id", "2"],
    ["eos_token_id", [2, "2"]],
    ["eos_token_id", 320],
    ["eos_token_id", -1],
    ["eos_token_id", 2.5],
    ["eos_token_id", { a: 2 }],
  ])("%s = %j is CONFIG_INVALID and named", (key, value) =>
    expectFailure(change(tinyA, { [key]: value }), "CONFIG_INVALID", key === "rope_scaling" ? /rope_scaling|factor/ : key),
  );

  it.each([null, 3, "x", [], true, undefined])("a config that is %j is refused", (json) => expectFailure(json, "CONFIG_INVALID", "object"));

  it("gives the value and what is accepted", () => {
    expectFailure(change(tinyA, { hidden_size: "96" }), "CONFIG_INVALID", '"96"', "integer");
    expectFailure(change(tinyA, { moe_topk: 22 }), "CONFIG_INVALID", "22", "21");
  });

  it("names n-gram sizes that do not divide the hidden size", () =>
    expectFailure(change(tinyLite, { emb_split_num: 7 }), "CONFIG_INVALID", "hidden_size", "21"));
  it("names too many n-gram tables", () => expectFailure(change(tinyLite, { emb_split_num: 32 }), "CHECKPOINT_UNSUPPORTED", "96"));
  it("keeps messages short whatever the file holds", () => {
    failure(change(tinyA, { hidden_size: "x".repeat(1_000_000) }));
    failure(change(tinyA, { model_type: "\u0000\ud800".repeat(1000) }));
    failure(change(tinyA, { rope_scaling: { rope_type: "yarn", factor: 2, ["k".repeat(10000)]: 1 } }));
  });
});

describe("end tokens", () => {
  it.each<[unknown, number[]]>([
    [2, [2]],
    [
      [2, 25],
      [2, 25],
    ],
    [[], []],
    [undefined, []],
    [null, []],
    [[2, 2], [2]],
    [0, [0]],
  ])("%j gives %j", (value, ids) => expect(read(change(tinyA, { eos_token_id: value })).config.eosTokenIds).toEqual(ids));
});

describe("unknown keys", () => {
  it("give one warning that names them", () => {
    const { warnings } = read(change(tinyA, { frobnicate: 1, sparkle: true }));
    expect(warnings).toEqual([expect.stringMatching(/frobnicate, sparkle/)]);
  });
  it("that are harmless give none", () => {
    const harmless = {
      use_cache: true,
      transformers_version: "5.17.0",
      auto_map: {},
      _name_or_path: "x",
      initializer_range: 0.02,
      pad_token_id: 3,
      attention_dropout: 0.1,
    };
    expect(read(change(tinyA, harmless)).warnings).toEqual([]);
  });
  it("named as parts of every object are keys like others", () => {
    const json = JSON.parse(`{"__proto__": {"hidden_size": 1}, ${JSON.stringify(tinyA).slice(1)}`);
    expect(read(json).config.hiddenSize).toBe(96);
    expectFailure(JSON.parse('{"__proto__": {"model_type": "longcat_flash"}}'), "CHECKPOINT_UNSUPPORTED");
  });
});
