/**
 * The trainer: steps of a run, one after another. A step clears the gradients, adds up those of its batches, makes them no longer than they
 * may be, and moves the weights; then the budget controller moves the router's biases.
 *
 * A step depends on the weights, AdamW's state and the step's number alone, and every sum has one order: a run that is saved and resumed
 * has the bits of one that was not, on any number of threads.
 * @module
 */

import { LongcatError } from "../errors.js";
import type { ModelConfig } from "../model/config.js";
import { ropeParameters } from "../model/rope.js";
import type { ModelWeights } from "../model/weights.js";
import { Device, type Queue, type Tensor } from "../runtime/device.js";
import { ops } from "../runtime/ops.js";
import { type Batch, countTargets, countTokens, writeBatch } from "./batch.js";
import { moveBias } from "./budget.js";
import { loadCheckpoint, readTrainState, saveCheckpoint, type TrainState } from "./checkpoint.js";
import { openData, type TrainData } from "./data.js";
import type { Pass } from "./layer.js";
import { createMemory, type TrainMemory } from "./memory.js";
import { backward, forward, loss } from "./model.js";
import { Parameters } from "./parameters.js";
import { parseRun, type Run } from "./run.js";
import { rateShare } from "./schedule.js";
import { type PassReport, StepTally, sumOf } from "./tally.js";

/** What a step says of itself. */
export interface StepReport extends PassReport {
  /** Steps that are done, this one counted. */
  step: number;
  /** Length of all gradients together, before clipping. */
  gradientNorm: number;
  /** Share of the peak rate. */
  rateShare: number;
}

/** What a forward over `rows` tokens left, and what it is of. */
export interface Forwarded {
  config: ModelConfig;
  weights: ModelWeights;
  queue: Queue;
  memory: TrainMemory;
  rows: number;
}

/** Where a trainer runs. */
export interface TrainerOptions {
  threads?: number | "auto";
}

/** Chunks that gradients are cut in to be measured: the length's bits depend on it. */
const NORM_CHUNKS = 4096;

/** A model in training. */
export class Trainer {
  readonly run: Run;
  /** Weights and what goes with them. */
  readonly parameters: Parameters;
  readonly #json: Record<string, unknown>;
  readonly #device: Device;
  readonly #queue: Queue;
  readonly #data: TrainData;
  readonly #pass: Pass;
  /** Of gradient_norm: sums by chunk, the length, the factor. */
  readonly #norm: { partial: Tensor; norm: Tensor; factor: Tensor };
  /** Selection biases by layer, as the device has them. */
  readonly #biases: Float32Array<ArrayBuffer>[];
  #step = 0;

  private constructor(json: Record<string, unknown>, run: Run, data: TrainData, device: Device, queue: Queue, parameters: Parameters) {
    const { config, balance } = run;
    this.#json = json;
    this.run = run;
    this.#device = device;
    this.#queue = queue;
    this.parameters = parameters;
    this.#data = data;
    const memory = createMemory(device, config, data.capacity, balance?.groups ?? 1);
    const rope = ropeParameters(config);
    queue.write(memory.invFreq, rope.invFreq);
    const alpha = (balance?.alpha ?? 0) / run.accumulate;
    this.#pass = { config, rope, memory, balance: balance && { ...balance, alpha } };
    this.#norm = {
      partial: device.tensor("float32", [NORM_CHUNKS]),
      ...{ norm: device.tensor("float32", [1]), factor: device.tensor("float32", [1]) },
    };
    this.#biases = parameters.weights.layers.map(() => new Float32Array(config.numExperts + config.numZeroExperts));
  }

  /**
   * Begins a run with random weights.
   *
   * @param json the run's JSON (ts/train/run.ts)
   * @throws LongcatError OPTION_INVALID or CONFIG_INVALID naming what is wrong with it
   */
  static async begin(json: Record<string, unknown>, options: TrainerOptions = {}): Promise<Trainer> {
    const trainer = await Trainer.#open(json, options);
    const { run, parameters } = trainer;
    await parameters.initialise(trainer.#queue, run.spread, run.seed);
    return trainer;
  }

  /**
   * Goes on with a run from one of its checkpoints.
   *
   * @throws LongcatError CHECKPOINT_INVALID if the folder holds none, or the texts that it was trained on are not what they were
   */
  static async resume(dir: string, options: TrainerOptions = {}): Promise<Trainer> {
    return Trainer.#from(dir, readTrainState(dir), (name) => name, options);
  }

  /**
   * Goes on from a checkpoint with a model of more layers: `copies` of the layers that it has, one stack upon the other. Embedding, head and
   * final norm stay, and so does all training state: momenta, variances, the step and with it the rate.
   *
   * @throws LongcatError as `resume` does
   */
  static async grow(dir: string, copies: number, options: TrainerOptions = {}): Promise<Trainer> {
    const state = readTrainState(dir);
    const { run } = state;
    const { numLayers } = parseRun(run).config;
    const { num_hidden_layers: _, ...model } = run["model"] as Record<string, unknown>;
    const grown = { ...run, model: { ...model, num_layers: copies * numLayers } };
    const sourceOf = (name: string) =>
      name.replace(/^model\.layers\.(\d+)\./, (__, layer: string) => `model.layers.${Number(layer) % numLayers}.`);
    return Trainer.#from(dir, { ...state, run: grown }, sourceOf, options);
  }

  static async #from(
    dir: string,
    { run, step, data }: TrainState,
    sourceOf: (name: string) => string,
    options: TrainerOptions,
  ): Promise<Trainer> {
    const trainer = await Trainer.#open(run, options);
    try {
      if (trainer.#data.digest !== data)
        throw new LongcatError("CHECKPOINT_INVALID", `${dir}: the texts or the tokenizer that it was trained on are not what they were`);
      await loadCheckpoint(trainer.#queue, dir, trainer.parameters, sourceOf);
      for (const [l, bias] of trainer.#biases.entries()) await trainer.#queue.read(trainer.parameters.weights.layers[l]!.moe.bias, bias);
    } catch (error) {
      await trainer.close();
      throw error;
    }
    trainer.#step = step;
    return trainer;
  }

  static async #open(json: Record<string, unknown>, { threads = "auto" }: TrainerOptions): Promise<Trainer> {
    const run = parseRun(json);
    const data = await openData(run);
    const device = Device.open({ device: "cpu", threads });
    try {
      return new Trainer(json, run, data, device, device.queue(), await Parameters.create(device, run.config));
    } catch (error) {
      await device.close();
      throw error;
    }
  }

  /** Steps that are done. */
  get steps(): number {
    return this.#step;
  }

  /** One step. */
  async step(): Promise<StepReport> {
    const { run, parameters } = this;
    const batches = Array.from({ length: run.accumulate }, (_, i) => this.#data.batch(this.#step * run.accumulate + i));
    const targets = batches.reduce((sum, batch) => sum + countTargets(batch), 0);
    const tokens = batches.reduce((sum, batch) => sum + countTokens(batch), 0);
    const tally = new StepTally(this.#pass);

    await this.#queue.room();
    this.#queue.fill(parameters.flat.gradient, 0);
    for (const batch of batches) {
      writeBatch(this.#queue, this.#pass.memory, this.#data.capacity, batch, { loss: 1 / targets, zLoss: run.zLoss / tokens });
      await forward(this.#queue, this.#pass, parameters.weights);
      await backward(this.#queue, this.#pass, parameters.weights, parameters.gradients);
      await tally.add(this.#queue, countTokens(batch));
    }
    await tally.addWeights(this.#queue, parameters.weights);
    const share = rateShare(run.schedule, this.#step, run.steps);
    const gradientNorm = await this.#moveWeights(share);
    this.#moveBiases(tally, share);
    await this.#queue.done();
    this.#step += 1;
    return { step: this.#step, ...tally.report(targets), gradientNorm, rateShare: share };
  }

  /** Mean cross-entropy of sequences that the run does not train on. */
  async evaluate(batches: number): Promise<number> {
    let [sum, targets] = [0, 0];
    for (let i = 0; i < batches; i++) {
      const batch = await this.#forwardHeldOut(i);
      loss(this.#queue, this.#pass);
      sum += await sumOf(this.#queue, this.#pass.memory.loss, countTokens(batch));
      targets += countTargets(batch);
    }
    return sum / targets;
  }

  /** Runs a forward of held-out sequences; `read` sees what it left. */
  async look<T>(read: (left: Forwarded) => Promise<T>): Promise<T> {
    const batch = await this.#forwardHeldOut(0);
    const { config, memory } = this.#pass;
    return read({ config, memory, queue: this.#queue, weights: this.parameters.weights, rows: countTokens(batch) });
  }

  /** Root mean square of the last step's gradients, tensor by tensor, of those that had any. */
  async gradientSizes(): Promise<number[]> {
    const all = await this.#queue.readFloats(this.parameters.flat.gradient);
    const sizes = this.parameters.list.map(({ offset, count }) => {
      const squares = all.subarray(offset, offset + count).reduce((sum, g) => sum + g * g, 0);
      return Math.sqrt(squares / count);
    });
    return sizes.filter((size) => size > 0);
  }

  /** Writes a checkpoint to the new folder `dir`; an engine loads it, and `resume` goes on from it. */
  save(dir: string): Promise<void> {
    const state = { run: this.#json, step: this.#step, data: this.#data.digest };
    return saveCheckpoint(this.#queue, dir, this.parameters, { config: this.run.model, files: this.#data.files, state });
  }

  /** Gives everything back. */
  close(): Promise<void> {
    return this.#device.close();
  }

  /** Leaves a forward of batch `index` of what is held out in memory. */
  async #forwardHeldOut(index: number): Promise<Batch> {
    const batch = this.#data.heldOut(index);
    await this.#queue.room();
    writeBatch(this.#queue, this.#pass.memory, this.#data.capacity, batch, { loss: 0, zLoss: 0 });
    await forward(this.#queue, this.#pass, this.parameters.weights);
    return batch;
  }

  /** Clips the gradients and moves every weight that they train; returns their length. */
  async #moveWeights(share: number): Promise<number> {
    const { adam, rate } = this.run;
    const { parameters } = this;
    const { partial, norm, factor } = this.#norm;
    ops.gradientNorm(this.#queue, { gradients: parameters.flat.gradient, partial, norm, factor, most: adam.clip });
    for (const { name, group } of parameters.list) {
      if (!group) continue;
      if (!this.#queue.hasRoom(1)) await this.#queue.room();
      ops.adamw(this.#queue, {
        ...{ weight: parameters.view("weight", name), gradient: parameters.view("gradient", name) },
        ...{ momentum: parameters.view("momentum", name), variance: parameters.view("variance", name), factor },
        ...{ ...adam, decay: group === "norm" ? 0 : adam.decay, rate: share * rate[group], step: this.#step + 1 },
      });
    }
    return sumOf(this.#queue, norm, 1);
  }

  /** The budget controller's turn. */
  #moveBiases({ counts, tokens }: StepTally, share: number): void {
    const { budget, config } = this.run;
    if (!budget) return;
    for (const [l, bias] of this.#biases.entries()) {
      moveBias(bias, counts[l]!, tokens, config.topK, budget.meanExperts, budget.mu * share);
      this.#queue.write(this.parameters.weights.layers[l]!.moe.bias, bias);
    }
  }
}
