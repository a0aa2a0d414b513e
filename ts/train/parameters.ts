/**
 * What is trained: weights, gradients, momenta and variances, each in one piece of memory of the same layout. One operation then
 * clears, measures or scales all gradients at once, and a tensor's four parts lie at the same place of the four.
 * @module
 */

import type { ModelConfig } from "../model/config.js";
import { randomHeaders } from "../model/random-weights.js";
import { isNgramTable, loadWeights, type ModelWeights } from "../model/weights.js";
import type { Device, Queue, Tensor } from "../runtime/device.js";
import { ops } from "../runtime/ops.js";

/** Tensors that share a rate and an initial spread. */
export type ParameterGroup = "embedding" | "hidden" | "head" | "norm";

/** All groups. */
export const PARAMETER_GROUPS: readonly ParameterGroup[] = ["embedding", "hidden", "head", "norm"];

/** One tensor of the model, named as in a checkpoint. */
export interface Parameter {
  name: string;
  shape: readonly number[];
  /** null: the router's selection bias, which the budget controller moves and no gradient (ts/train/budget.ts). */
  group: ParameterGroup | null;
  /** Its first number in each memory, and how many it has. */
  offset: number;
  count: number;
}

/** The four memories, by what they hold. */
export const MEMORIES = ["weight", "gradient", "momentum", "variance"] as const;
export type Memory = (typeof MEMORIES)[number];

/** Standard deviation at the start, by group; norms start at 1. */
export type InitialSpread = Record<Exclude<ParameterGroup, "norm">, number>;

/** Width at which the customary spread of 0.02 is what hidden matrices get: the report's proxy. */
const PROXY_WIDTH = 768;
const PROXY_SPREAD = 0.02;

/** The report's transfer rule from the proxy: an embedding keeps its variance; hidden matrices' and the head's go with 1 / width. */
export function initialSpread({ hiddenSize }: Pick<ModelConfig, "hiddenSize">): InitialSpread {
  const hidden = PROXY_SPREAD * Math.sqrt(PROXY_WIDTH / hiddenSize);
  return { embedding: PROXY_SPREAD, hidden, head: hidden };
}

/** Numbers between two tensors' begins are a multiple of this, a cache line. */
const ALIGNMENT = 16;

/** Weights and what goes with them, on a device. */
export class Parameters {
  readonly list: readonly Parameter[];
  /** float32, one piece each. */
  readonly flat: Readonly<Record<Memory, Tensor>>;
  /** The same as the model's code names it. */
  readonly weights: ModelWeights;
  readonly gradients: ModelWeights;
  readonly #views: Readonly<Record<Memory, ReadonlyMap<string, Tensor>>>;

  private constructor(list: readonly Parameter[], flat: Record<Memory, Tensor>, weights: ModelWeights, gradients: ModelWeights) {
    this.list = list;
    this.flat = flat;
    this.weights = weights;
    this.gradients = gradients;
    const viewsOf = (memory: Memory) =>
      new Map(list.map(({ name, offset, count }) => [name, flat[memory].view("float32", [count], 4 * offset)]));
    this.#views = {
      ...{ weight: viewsOf("weight"), gradient: viewsOf("gradient"), momentum: viewsOf("momentum"), variance: viewsOf("variance") },
    };
  }

  /** Memory for a model of that config, all zero. */
  static async create(device: Device, config: ModelConfig): Promise<Parameters> {
    const { full: headers } = randomHeaders({ config, dtype: "float32" }, Number.POSITIVE_INFINITY);
    const list: Parameter[] = [];
    let offset = 0;
    for (const { name, shape } of headers.specs) {
      const count = shape.reduce((product, n) => product * n, 1);
      list.push({ name, shape, group: groupOf(name), offset, count });
      offset += Math.ceil(count / ALIGNMENT) * ALIGNMENT;
    }
    const memory = () => device.tensor("float32", [offset]);
    const flat = { weight: memory(), gradient: memory(), momentum: memory(), variance: memory() };
    const places = new Map(list.map((parameter) => [parameter.name, parameter]));
    const modelOver = (base: Tensor) =>
      loadWeights(device, headers, {
        ...{ dtype: "auto", ngram: "device" },
        make: (name) => base.view("float32", places.get(name)!.shape, 4 * places.get(name)!.offset),
      });
    return new Parameters(list, flat, await modelOver(flat.weight), await modelOver(flat.gradient));
  }

  /** A tensor's numbers in one of the memories, [count]. */
  view(memory: Memory, name: string): Tensor {
    return this.#views[memory].get(name)!;
  }

  /** Numbers that gradients train. */
  get trained(): number {
    return this.list.reduce((sum, { group, count }) => sum + (group ? count : 0), 0);
  }

  /** Starting weights: uniform, of the group's spread, the same on every device. Norms are 1, the selection bias 0. */
  async initialise(queue: Queue, spread: InitialSpread, seed: number): Promise<void> {
    for (const [index, { name, group }] of this.list.entries()) {
      if (!queue.hasRoom(1)) await queue.room();
      const half = group && group !== "norm" ? Math.sqrt(3) * spread[group] : 0;
      const centre = group === "norm" && !name.endsWith(".bias") ? 1 : 0;
      ops.randomFill(queue, { out: this.view("weight", name), seed: seed + index, low: centre - half, high: centre + half });
    }
    await queue.done();
  }
}

function groupOf(name: string): ParameterGroup | null {
  if (name.endsWith("e_score_correction_bias")) return null;
  if (name === "model.embed_tokens.weight" || isNgramTable(name)) return "embedding";
  if (name === "lm_head.weight") return "head";
  const vector = name.endsWith(".bias") || name.endsWith("norm.weight") || /_layernorm\.\d\.weight$/.test(name);
  return vector ? "norm" : "hidden";
}
