/** The whole model's gradients: every tensor's, against what the loss does when the tensor moves. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ropeParameters } from "../../ts/model/rope.js";
import { Device, type Queue } from "../../ts/runtime/device.js";
import { type Batch, countTargets, writeBatch } from "../../ts/train/batch.js";
import type { Pass } from "../../ts/train/layer.js";
import { createMemory } from "../../ts/train/memory.js";
import { backward, forward, loss } from "../../ts/train/model.js";
import { Parameters } from "../../ts/train/parameters.js";
import { parseRun } from "../../ts/train/run.js";
import { LITE_TOY, TOY, toyRun } from "../helpers/training.js";

/** Ragged, and with targets that do not count. */
const BATCH: Batch = [
  { tokens: [1, 5, 9, 2, 7, 11], targets: [5, 9, -1, 7, 11, 3] },
  { tokens: [1], targets: [8] },
  { tokens: [1, 6, 6, 10], targets: [-1, 6, 10, 2] },
];
const CAPACITY = { tokens: 16, sequences: 4, length: 8 };

class Model {
  private constructor(
    readonly device: Device,
    readonly queue: Queue,
    readonly pass: Pass,
    readonly parameters: Parameters,
  ) {}

  static async open(model: Record<string, unknown>): Promise<Model> {
    const { config, spread } = parseRun(toyRun({ model }));
    const device = Device.open({ threads: 2 });
    const queue = device.queue();
    const parameters = await Parameters.create(device, config);
    await parameters.initialise(queue, { embedding: 0.5, hidden: 2 * spread.hidden, head: spread.head }, 7);
    const memory = createMemory(device, config, CAPACITY, 1);
    const rope = ropeParameters(config);
    queue.write(memory.invFreq, rope.invFreq);
    writeBatch(queue, memory, CAPACITY, BATCH, { loss: 1 / countTargets(BATCH), zLoss: 0 });
    return new Model(device, queue, { config, rope, memory, balance: null }, parameters);
  }

  async loss(): Promise<number> {
    await forward(this.queue, this.pass, this.parameters.weights);
    loss(this.queue, this.pass);
    const rows = new Float32Array(11);
    await this.queue.read(this.pass.memory.loss, rows);
    return rows.reduce((sum, n) => sum + n, 0) / countTargets(BATCH);
  }

  /** Which experts each token has, of all layers. */
  async routing(): Promise<string> {
    const all: number[] = [];
    for (const { moe } of this.pass.memory.layers) {
      const ids = new Int32Array(11 * this.pass.config.topK);
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
  ["LongCat-Flash", TOY],
  ["LongCat-Flash with biases", { ...TOY, attention_bias: true }],
  ["LongCat-Flash-Lite", LITE_TOY],
  ["tied embeddings", { ...TOY, tie_word_embeddings: true }],
])("the gradients of %s", (_, config) => {
  let model: Model;
  beforeAll(async () => {
    model = await Model.open(config);
  });
  afterAll(() => model.device.close());

  // A step h along a tensor's own gradient g changes the loss by h |g| and terms of h³, which the difference of both directions is rid of
  // but for h². Losses in float32 are off by some 1e-7, so that a difference of 2e-3 is known to 1e-4 (4e-4 was the worst seen); where
  // the gradient is so small that the step would be a large one, less is asked.
  it("are what the loss does when a tensor moves along them", async () => {
    const { queue, pass, parameters } = model;
    const before = await model.loss();
    const routed = await model.routing();
    expect(before).toBeGreaterThan(1);
    await forward(queue, pass, parameters.weights);
    queue.fill(parameters.flat.gradient, 0);
    await backward(queue, pass, parameters.weights, parameters.gradients);
    let checked = 0;
    for (const { name, group } of parameters.list) {
      const gradient = await model.numbers("gradient", name);
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
    const { queue, pass, parameters } = model;
    const gradients = async (times: number) => {
      queue.fill(parameters.flat.gradient, 0);
      for (let i = 0; i < times; i++) {
        await forward(queue, pass, parameters.weights);
        await backward(queue, pass, parameters.weights, parameters.gradients);
      }
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
