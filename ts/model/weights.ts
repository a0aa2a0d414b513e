/**
 * The model's weights as tensors on a device, by their place in the model. Files stay mapped; on the CPU nothing is copied unless
 * another dtype is asked for, a GPU gets copies.
 * @module
 */

import type { Device, Tensor } from "../runtime/device.js";
import { bytesOf, DTYPES, type DType } from "../runtime/dtype.js";
import type { Weight } from "../runtime/ops.js";
import type { Checkpoint, ExpertRange } from "./checkpoint.js";
import { numNgramTables } from "./config.js";
import { scaleName } from "./tensor-names.js";

/** One multi-head latent attention. */
export interface AttentionWeights {
  /** [qRank, D] */
  qA: Weight;
  qABias?: Tensor;
  /** [qRank] */
  qANorm: Tensor;
  /** [H·(nope+rope), qRank] */
  qB: Weight;
  /** [kvRank+rope, D] */
  kvA: Weight;
  kvABias?: Tensor;
  /** [kvRank] */
  kvANorm: Tensor;
  /** [H·(nope+v), kvRank] */
  kvB: Weight;
  /** [D, H·v] */
  o: Weight;
  oBias?: Tensor;
}

/** A SwiGLU FFN: gate and up [ffn, D], down [D, ffn]. */
export interface DenseWeights {
  gate: Weight;
  up: Weight;
  down: Weight;
}

/** Router and experts; the experts' matrices are stacks [N, …], or of as many experts as were asked for. */
export interface MoeWeights extends DenseWeights {
  /** [N+Z, D] */
  classifier: Tensor;
  /** [N+Z]: added for the selection only. */
  bias: Tensor;
}

/** One layer of the trunk. */
export interface LayerWeights {
  inputNorm: [Tensor, Tensor];
  attention: [AttentionWeights, AttentionWeights];
  postAttentionNorm: [Tensor, Tensor];
  dense: [DenseWeights, DenseWeights];
  moe: MoeWeights;
}

/** The draft head (multi-token prediction): one attention and one dense FFN. */
export interface MtpWeights {
  embeddingNorm: Tensor;
  hiddenNorm: Tensor;
  /** [D, 2D] */
  projection: Weight;
  inputNorm: Tensor;
  attention: AttentionWeights;
  postAttentionNorm: Tensor;
  dense: DenseWeights;
  norm: Tensor;
}

/** All of it. */
export interface ModelWeights {
  /** [V, D] */
  embedding: Tensor;
  /** LongCat-Flash-Lite: hashed n-gram tables [M_i, D/tables] and their projections [D, D/tables]. */
  ngram: { table: Tensor; projection: Tensor }[];
  layers: LayerWeights[];
  norm: Tensor;
  /** [V, D] */
  head: Weight;
  mtp: MtpWeights | null;
}

/** "auto": as stored; else the layers' matrices are converted: all that block FP8 may store (ts/model/tensor-names.ts). */
export type WeightDType = "auto" | "float32" | "bfloat16";

/** Where n-gram tables live: in the device's memory, or in host memory, of which a GPU reads rows over the bus. */
export type NgramPlace = "host" | "device";

/** What `loadWeights` may be told. */
export interface LoadWeightsOptions {
  dtype: WeightDType;
  ngram: NgramPlace;
  /** Bytes of weights placed so far, of how many. */
  onProgress?: (doneBytes: number, totalBytes: number) => void;
  /** Makes a tensor otherwise than from its file (ts/model/random-weights.ts). */
  make?: (name: string) => Tensor;
  /** Experts in a layer's stacks: those of one rank. Default: all. */
  experts?: ExpertRange;
}

/** Whether a tensor is one of LongCat-Flash-Lite's n-gram tables. */
export function isNgramTable(name: string): boolean {
  return name.startsWith("model.ngram_embeddings.embedders.");
}

/** A GPU holds at most so many bytes of matrices that wait to be converted, and the one that comes next. */
export const MOST_STAGED_BYTES = 256 * 1024 * 1024;

/** Whether a layer's matrix of this type is converted. */
export function isConverted(stored: DType, dtype: WeightDType): dtype is Exclude<WeightDType, "auto"> {
  return dtype !== "auto" && dtype !== stored;
}

/** What converting would take: bytes of the copies, and bytes of the files that nothing reads any more afterwards. */
export function conversionBytes(
  { specs, tensors }: Pick<Checkpoint, "specs" | "tensors">,
  dtype: WeightDType,
): { converted: number; replaced: number } {
  const bytes = { converted: 0, replaced: 0 };
  for (const { name, shape, quantisable } of specs) {
    const stored = tensors.get(name)!.entry;
    if (!quantisable || !isConverted(DTYPES[stored.dtype]!, dtype)) continue;
    const scale = tensors.get(scaleName(name))?.entry;
    bytes.converted += shape.reduce((product, n) => product * n, bytesOf(dtype));
    bytes.replaced += stored.end - stored.begin + (scale ? scale.end - scale.begin : 0);
  }
  return bytes;
}

/** Puts a checkpoint's tensors on a device. Head, embedding, router, norms and n-gram tables keep their stored dtype. */
export async function loadWeights(device: Device, checkpoint: Checkpoint, options: LoadWeightsOptions): Promise<ModelWeights> {
  const loader = new Loader(device, checkpoint, options);
  const { config } = checkpoint;
  const layers: LayerWeights[] = [];
  for (let l = 0; l < config.numLayers; l++) {
    layers.push(await loader.layer(`model.layers.${l}`));
    await loader.breathe();
  }
  const embedding = loader.plain("model.embed_tokens.weight");
  const ngram: ModelWeights["ngram"] = [];
  for (let i = 0; i < numNgramTables(config.ngram); i++) {
    ngram.push(loader.ngram("model.ngram_embeddings", i));
    await loader.breathe();
  }
  const weights: ModelWeights = {
    ...{ embedding, ngram, layers, norm: loader.plain("model.norm.weight") },
    head: checkpoint.tensors.has("lm_head.weight") ? { data: loader.plain("lm_head.weight") } : { data: embedding },
    mtp: checkpoint.hasMtp ? await loader.mtp("model.mtp") : null,
  };
  await loader.breathe();
  return weights;
}

/** Reads tensors by name; counts them for the progress bar. */
class Loader {
  readonly #device: Device;
  readonly #checkpoint: Checkpoint;
  readonly #options: LoadWeightsOptions;
  #doneBytes = 0;
  #stagedBytes = 0;

  constructor(device: Device, checkpoint: Checkpoint, options: LoadWeightsOptions) {
    this.#device = device;
    this.#checkpoint = checkpoint;
    this.#options = options;
  }

  /** Lets the event loop turn, and says how far it got: on a GPU, what has arrived. */
  async breathe(): Promise<void> {
    await this.#arrived();
    this.#options.onProgress?.(this.#doneBytes, this.#checkpoint.bytes);
    await new Promise((resolve) => setImmediate(resolve));
  }

  /** Waits for a GPU's copies and conversions. */
  async #arrived(): Promise<void> {
    if (this.#device.kind === "cuda") await this.#device.done();
    this.#stagedBytes = 0;
  }

  plain(name: string, place: NgramPlace = "device"): Tensor {
    const { file, entry } = this.#checkpoint.tensors.get(name)!;
    this.#doneBytes += entry.end - entry.begin;
    return this.#options.make?.(name) ?? this.#device.fromFile(file, entry, place);
  }

  optional(name: string): Tensor | undefined {
    return this.#checkpoint.tensors.has(name) ? this.plain(name) : undefined;
  }

  /** A matrix of a layer, converted if asked for. */
  async matrix(name: string): Promise<Weight> {
    const data = this.plain(`${name}.weight`);
    const scale = this.optional(`${name}.weight_scale_inv`);
    const { dtype } = this.#options;
    if (!isConverted(data.dtype, dtype)) return scale ? { data, scale } : { data };
    const converted = this.#device.convert(data, scale, dtype);
    data.release();
    scale?.release();
    this.#stagedBytes += data.bytes;
    if (this.#stagedBytes > MOST_STAGED_BYTES) await this.#arrived();
    return { data: converted };
  }

  async attention(prefix: string): Promise<AttentionWeights> {
    return {
      qA: await this.matrix(`${prefix}.q_a_proj`),
      qABias: this.optional(`${prefix}.q_a_proj.bias`),
      qANorm: this.plain(`${prefix}.q_a_layernorm.weight`),
      qB: await this.matrix(`${prefix}.q_b_proj`),
      kvA: await this.matrix(`${prefix}.kv_a_proj_with_mqa`),
      kvABias: this.optional(`${prefix}.kv_a_proj_with_mqa.bias`),
      kvANorm: this.plain(`${prefix}.kv_a_layernorm.weight`),
      kvB: await this.matrix(`${prefix}.kv_b_proj`),
      o: await this.matrix(`${prefix}.o_proj`),
      oBias: this.optional(`${prefix}.o_proj.bias`),
    };
  }

  async dense(prefix: string): Promise<DenseWeights> {
    return {
      gate: await this.matrix(`${prefix}.gate_proj`),
      up: await this.matrix(`${prefix}.up_proj`),
      down: await this.matrix(`${prefix}.down_proj`),
    };
  }

  async moe(prefix: string): Promise<MoeWeights> {
    const experts: DenseWeights[] = [];
    const { first, count } = this.#options.experts ?? { first: 0, count: this.#checkpoint.config.numExperts };
    for (let e = first; e < first + count; e++) experts.push(await this.dense(`${prefix}.experts.${e}`));
    const stack = (which: keyof DenseWeights): Weight => {
      const data = this.#device.stack(experts.map((expert) => expert[which].data));
      const scales = experts.map((expert) => expert[which].scale);
      return scales.every((scale) => scale !== undefined) ? { data, scale: this.#device.stack(scales) } : { data };
    };
    return {
      classifier: this.plain(`${prefix}.router.classifier.weight`),
      bias: this.plain(`${prefix}.router.e_score_correction_bias`),
      gate: stack("gate"),
      up: stack("up"),
      down: stack("down"),
    };
  }

  async layer(prefix: string): Promise<LayerWeights> {
    const plain = (name: string): [Tensor, Tensor] => [this.plain(`${prefix}.${name}.0.weight`), this.plain(`${prefix}.${name}.1.weight`)];
    return {
      inputNorm: plain("input_layernorm"),
      attention: [await this.attention(`${prefix}.self_attn.0`), await this.attention(`${prefix}.self_attn.1`)],
      postAttentionNorm: plain("post_attention_layernorm"),
      dense: [await this.dense(`${prefix}.mlps.0`), await this.dense(`${prefix}.mlps.1`)],
      moe: await this.moe(`${prefix}.mlp`),
    };
  }

  ngram(prefix: string, index: number): ModelWeights["ngram"][number] {
    return {
      table: this.plain(`${prefix}.embedders.${index}.weight`, this.#options.ngram),
      projection: this.plain(`${prefix}.post_projs.${index}.weight`),
    };
  }

  async mtp(prefix: string): Promise<MtpWeights> {
    const layer = `${prefix}.layers.0`;
    return {
      embeddingNorm: this.plain(`${layer}.enorm.m.weight`),
      hiddenNorm: this.plain(`${layer}.hnorm.m.weight`),
      projection: await this.matrix(`${layer}.eh_proj`),
      inputNorm: this.plain(`${layer}.input_layernorm.weight`),
      attention: await this.attention(`${layer}.self_attn`),
      postAttentionNorm: this.plain(`${layer}.post_attention_layernorm.weight`),
      dense: await this.dense(`${layer}.transformer_layer.mlp`),
      norm: this.plain(`${prefix}.norm.weight`),
    };
  }
}
