/** The whole model's gradients: every tensor's, against what the loss does when the tensor moves. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ropeParameters } from "../../ts/model/rope.js";
import { Device, type Queue, type Tensor } from "../../ts/runtime/device.js";
import { type Batch, countTargets, writeBatch } from "../../ts/train/batch.js";
import type { Pass } from "../../ts/train/layer.js";
import { createMemory } from "../../ts/train/memory.js";
import { backward, forward } from "../../ts/train/model.js";
import { Parameters } from "../../ts/train/parameters.js";
import { parseRun } from "../../ts/train/run.js";
import { LITE_TOY, TOY, toyRun } from "../helpers/training.js";

/** Ragged, and with targets that do not count. */
const BATCH: Batch = [
  { tokens: [1, 5, 9, 2, 7, 11], targets: [5, 9, -1, 7, 11, 3] },
  { tokens: [1], targets: [8] },
  { tokens: [1, 6, 6, 10], targets: [-1, 6, 10, 2] },
];
const ROWS = 11;
const CAPACITY = { tokens: 16, sequences: 4, length: 8 };

class Model {
  private constructor(
    readonly device: Device,
    readonly queue: Queue,
    readonly pass: Pass,
    readonly parameters: Parameters,
    readonly zLoss: number,
  ) {}

  static async open(model: Record<string, unknown>, zLoss: number, balance: Pass["balance"]): Promise<Model> {
    const { config, spread } = parseRun(toyRun({ model }));
    const device = Device.open({ threads: 2 });
    const queue = device.queue();
    const parameters = await Parameters.create(device, config);
    await parameters.initialise(queue, { embedding: 0.5, hidden: 2 * spread.hidden, head: spread.head }, 7);
    const memory = createMemory(device, config, CAPACITY, balance?.groups ?? 1);
    const rope = ropeParameters(config);
    queue.write(memory.invFreq, rope.invFreq);
    writeBatch(queue, memory, CAPACITY, BATCH, { loss: 1 / countTargets(BATCH), zLoss: zLoss / ROWS });
    return new Model(device, queue, { config, rope, memory, balance }, parameters, zLoss);
  }

  /** All losses together, as `backward` differentiates them; its gradients are added to what is there. */
  async loss(): Promise<number> {
    const { memory, balance } = this.pass;
    await forward(this.queue, this.pass, this.parameters.weights);
    await backward(this.queue, this.pass, this.parameters.weights, this.parameters.gradients);
    const sum = async (tensor: Tensor, count: number) => {
      const numbers = new Float32Array(count);
      await this.queue.read(tensor, numbers);
      return numbers.reduce((total, n) => total + n, 0);
    };
    let all = (await sum(memory.loss, ROWS)) / countTargets(BATCH) + (this.zLoss * (await sum(memory.zLoss, ROWS))) / ROWS;
    for (const { balanceLoss } of balance ? memory.routers : []) all += await sum(balanceLoss, 1);
    return all;
  }

  /** Which experts each token has, of all layers. */
  async routing(): Promise<string> {
    const all: number[] = [];
    for (const { moe } of this.pass.memory.layers) {
      const ids = new Int32Array(ROWS * this.pass.config.topK);
      await this.queue.read(moe.ids, ids);
      all.push(...ids);
    }
    return all.join();
  }

  async numbers(memory: "weight" | "gradient", name: string): Promise<Float32Array<ArrayBuffer>> {
    const { count } = this.parameters.list.find((parameter) => parameter.name === name)!;
    const numbers = new Float32Array(count);
    await this.queue.read(this.parameters.view(memory, name), numbers);
    return numbers;
  }
}

describe.each([
  ["LongCat-Flash", TOY, 0, null],
  ["LongCat-Flash with biases", { ...TOY, attention_bias: true }, 0, null],
  ["LongCat-Flash-Lite", LITE_TOY, 0, null],
  ["tied embeddings", { ...TOY, tie_word_embeddings: true }, 0, null],
  ["all losses", TOY, 0.01, { alpha: 0.3, groups: 4, meanExperts: 2 }],
])("the gradients of %s", (_, config, zLoss, balance) => {
  let model: Model;
  beforeAll(async () => {
    model = await Model.open(config, zLoss, balance);
  });
  afterAll(() => model.device.close());

  // A step h along a tensor's own gradient g changes the loss by h |g| and terms of h³, which the difference of both directions is rid of
  // but for h². Losses in float32 are off by some 1e-7, so that a difference of 2e-3 is known to 1e-4 (4e-4 was the worst seen); where
  // the gradient is so small that the step would be a large one, less is asked.
  it("are what the loss does when a tensor moves along them", async () => {
    const { queue, parameters } = model;
    queue.fill(parameters.flat.gradient, 0);
    expect(await model.loss()).toBeGreaterThan(1);
    const routed = await model.routing();
    const gradients = new Map<string, Float32Array>();
    for (const { name } of parameters.list) gradients.set(name, await model.numbers("gradient", name));
    let checked = 0;
    for (const { name, group } of parameters.list) {
      const gradient = gradients.get(name)!;
      const length = Math.sqrt(gradient.reduce((sum, g) => sum + g * g, 0));
      if (group === null) expect(length, name).toBe(0);
      if (length < 1e-4) continue; // an expert that nobody chose, the selection bias
      const weight = await model.numbers("weight", name);
      const distance = Math.min(1e-3 / length, 0.02);
      const moved = async (sign: number) => {
        queue.write(
          parameters.view("weight", name),
          weight.map((w, i) => w + (sign * distance * gradient[i]!) / length),
        );
        const value = await model.loss();
        return { value, same: (await model.routing()) === routed };
      };
      const [above, below] = [await moved(1), await moved(-1)];
      queue.write(parameters.view("weight", name), weight);
      if (!above.same || !below.same) continue; // another choice of experts is another function
      checked += 1;
      const change = above.value - below.value;
      expect(Math.abs(change / (2 * distance * length) - 1), name).toBeLessThan(1e-3 + 1e-6 / (2 * distance * length));
    }
    expect(checked).toBeGreaterThan(0.6 * parameters.list.length);
  });

  it("of a batch twice are twice those of it once", async () => {
    const { queue, parameters } = model;
    const gradients = async (times: number) => {
      queue.fill(parameters.flat.gradient, 0);
      for (let i = 0; i < times; i++) await model.loss();
      return queue.readFloats(parameters.flat.gradient);
    };
    const once = await gradients(1);
    expect(await gradients(1)).toEqual(once);
    // The embedding's rows grow token by token, so the second pass's roundings are not the first's.
    const twice = await gradients(2);
    const most = once.reduce((a, g) => Math.max(a, Math.abs(g)), 0);
    for (const [i, g] of once.entries()) expect(Math.abs(twice[i]! - 2 * g)).toBeLessThan(1e-6 * most);
  });
});
