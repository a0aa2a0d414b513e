/**
 * A layer's router under its two losses, as the report watches it (5.1): the language model's loss makes experts differ, the balance loss
 * makes them equal. Where the second is too strong, the experts' vectors become alike.
 * @module
 */

import type { BalanceOptions } from "./layer.js";

/** What one batch told a router: native/ops/balance_loss/params.h, native/ops/moe_route/backward/params.h. */
export interface RouterGradients {
  /** Experts of each token, [T, K], and the gradients of their weights. */
  ids: Int32Array;
  dWeights: Float32Array;
  /** f of each group, [D+1]. */
  share: Float32Array;
}

/** Adds up both losses' gradients in P, the mean probability of each expert, over a step's batches. */
export class RouterTally {
  readonly #balance: BalanceOptions;
  readonly #numExperts: number;
  readonly #factor: number;
  /** dL/dP of the loss behind the layer, and of the balance loss with α: [N+Z]. */
  readonly #learning: Float64Array;
  readonly #levelling: Float64Array;
  /** f of each group, of all batches. */
  readonly #share: Float64Array;
  #batches = 0;

  /** @param factor what a chosen expert's probability is multiplied by to be its weight */
  constructor(balance: BalanceOptions, numExperts: number, numZeroExperts: number, factor: number) {
    this.#balance = balance;
    this.#numExperts = numExperts;
    this.#factor = factor;
    this.#learning = new Float64Array(numExperts + numZeroExperts);
    this.#levelling = new Float64Array(numExperts + numZeroExperts);
    this.#share = new Float64Array(balance.groups + 1);
  }

  /** A batch. P moves by δ where every token's probability does, so dL/dP is the sum over tokens of dL/dp. */
  add({ ids, dWeights, share }: RouterGradients): void {
    const { alpha, groups } = this.#balance;
    const size = this.#numExperts / groups;
    for (let k = 0; k < ids.length; k++) this.#learning[ids[k]!]! += this.#factor * dWeights[k]!;
    for (let i = 0; i < this.#levelling.length; i++) this.#levelling[i]! += alpha * share[Math.min(groups, Math.floor(i / size))]!;
    for (let j = 0; j <= groups; j++) this.#share[j]! += share[j]!;
    this.#batches += 1;
  }

  /** R_g of Eq. 9: how long the balance loss's gradient in P is beside the other. The report keeps it below 0.1. */
  get gradientRatio(): number {
    return length(this.#levelling) / length(this.#learning);
  }

  /** f of the fullest group in a mean batch: 1 where all are even. */
  get fullestGroup(): number {
    return Math.max(...this.#share) / this.#batches;
  }
}

/** Mean cosine of two experts' vectors, over all pairs of rows of a classifier [experts, width]. */
export function meanCosine(classifier: Float32Array, experts: number): number {
  const width = classifier.length / experts;
  // Of unit vectors u: |Σu|² is the sum of all cosines, each row's with itself included.
  const sum = new Float64Array(width);
  for (let i = 0; i < experts; i++) {
    const row = classifier.subarray(i * width, (i + 1) * width);
    const norm = length(row);
    for (let k = 0; k < width; k++) sum[k]! += row[k]! / norm;
  }
  return (length(sum) ** 2 - experts) / (experts * (experts - 1));
}

function length(vector: Float32Array | Float64Array): number {
  let squares = 0;
  for (const x of vector) squares += x * x;
  return Math.sqrt(squares);
}
