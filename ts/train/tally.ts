/**
 * What a step's batches come to: losses, the hidden state's size, and the load of the experts.
 * @module
 */

import type { ModelWeights } from "../model/weights.js";
import type { Queue, Tensor } from "../runtime/device.js";
import type { Pass } from "./layer.js";
import { meanCosine, RouterTally } from "./router.js";

/** The numbers of a step that its passes leave on the device. */
export interface PassReport {
  /** Mean cross-entropy of the targets, before the step moved anything. */
  loss: number;
  /** The z-loss of a mean row without λ, and the balance loss of a mean layer with α. */
  zLoss: number;
  balanceLoss: number;
  /** Length of a mean row of the last hidden state, before the final norm. */
  hiddenNorm: number;
  /** FFN experts of a mean token, by layer, and how far tokens are from it: the standard deviation. */
  ffnExperts: number[];
  ffnSpread: number[];
  /** Mean cosine of two rows of each layer's router, before the step moved them. */
  routerSimilarity: number[];
  /** Of each layer, with a balance loss: R_g of Eq. 9, and f of the fullest group (ts/train/router.ts). */
  gradientRatio: number[];
  fullestGroup: number[];
  /** Tokens of the step. */
  tokens: number;
}

/** Adds up the batches of one step. */
export class StepTally {
  /** Tokens of each layer that chose each FFN expert. */
  readonly counts: readonly Float64Array[];
  tokens = 0;
  readonly #pass: Pass;
  readonly #sums = { loss: 0, zLoss: 0, balanceLoss: 0, hiddenNorm: 0 };
  /** By layer: of each token's FFN experts, their squares. */
  readonly #squares: Float64Array;
  readonly #similarity: number[] = [];
  readonly #routers: RouterTally[];

  constructor(pass: Pass) {
    const { numLayers, numExperts, numZeroExperts, routedScalingFactor } = pass.config;
    const { balance } = pass;
    this.#pass = pass;
    this.counts = Array.from({ length: numLayers }, () => new Float64Array(numExperts));
    this.#squares = new Float64Array(numLayers);
    this.#routers = balance
      ? Array.from({ length: numLayers }, () => new RouterTally(balance, numExperts, numZeroExperts, routedScalingFactor))
      : [];
  }

  /** Reads what a forward and a backward over `rows` tokens left. */
  async add(queue: Queue, rows: number): Promise<void> {
    const { config, memory, balance } = this.#pass;
    const sums = this.#sums;
    this.tokens += rows;
    sums.loss += await sumOf(queue, memory.loss, rows);
    sums.zLoss += await sumOf(queue, memory.zLoss, rows);
    sums.hiddenNorm += await this.#hiddenNorms(queue, rows);
    for (const [l, { moe }] of memory.layers.entries()) {
      const [starts, ofTokens] = [new Int32Array(config.numExperts + 1), new Int32Array(rows)];
      await queue.read(moe.expertStart, starts);
      await queue.read(moe.ffnCount, ofTokens);
      for (let e = 0; e < config.numExperts; e++) this.counts[l]![e]! += starts[e + 1]! - starts[e]!;
      for (const n of ofTokens) this.#squares[l]! += n * n;
      if (balance) await this.#addRouter(queue, l, rows);
    }
  }

  /** Reads how alike the rows of the routers are. */
  async addWeights(queue: Queue, { layers }: ModelWeights): Promise<void> {
    const { numExperts, numZeroExperts } = this.#pass.config;
    for (const { moe } of layers) this.#similarity.push(meanCosine(await queue.readFloats(moe.classifier), numExperts + numZeroExperts));
  }

  /** Everything, given the step's targets. */
  report(targets: number): PassReport {
    const { tokens, counts } = this;
    const { loss, zLoss, balanceLoss, hiddenNorm } = this.#sums;
    const ffnExperts = counts.map((layer) => layer.reduce((sum, n) => sum + n, 0) / tokens);
    return {
      ...{ loss: loss / targets, zLoss: zLoss / tokens, balanceLoss: balanceLoss / counts.length, hiddenNorm: hiddenNorm / tokens },
      ...{ ffnExperts, tokens, routerSimilarity: this.#similarity },
      gradientRatio: this.#routers.map(({ gradientRatio }) => gradientRatio),
      fullestGroup: this.#routers.map(({ fullestGroup }) => fullestGroup),
      ffnSpread: ffnExperts.map((mean, l) => Math.sqrt(Math.max(0, this.#squares[l]! / tokens - mean * mean))),
    };
  }

  /** Reads what both losses told a layer's router. */
  async #addRouter(queue: Queue, layer: number, rows: number): Promise<void> {
    const { config, memory, balance } = this.#pass;
    const router = memory.routers[layer]!;
    this.#sums.balanceLoss += await sumOf(queue, router.balanceLoss, 1);
    const slots = rows * config.topK;
    const [ids, dWeights, share] = [new Int32Array(slots), new Float32Array(slots), new Float32Array(balance!.groups + 1)];
    await queue.read(memory.layers[layer]!.moe.ids, ids);
    await queue.read(router.dWeights, dWeights);
    await queue.read(router.share, share);
    this.#routers[layer]!.add({ ids, dWeights, share });
  }

  async #hiddenNorms(queue: Queue, rows: number): Promise<number> {
    const width = this.#pass.config.hiddenSize;
    const hidden = new Float32Array(rows * width);
    await queue.read(this.#pass.memory.final.sum, hidden);
    let all = 0;
    for (let r = 0; r < rows; r++) {
      let squares = 0;
      for (let k = r * width; k < (r + 1) * width; k++) squares += hidden[k]! * hidden[k]!;
      all += Math.sqrt(squares);
    }
    return all;
  }
}

/** Of a tensor's first `count` numbers. */
export async function sumOf(queue: Queue, tensor: Tensor, count: number): Promise<number> {
  const numbers = new Float32Array(count);
  await queue.read(tensor, numbers);
  return numbers.reduce((sum, n) => sum + n, 0);
}
