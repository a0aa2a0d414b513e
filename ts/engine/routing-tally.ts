/**
 * What many tokens' choices of experts come to: FFN experts of a mean token and how far tokens are from it, by layer and over all; how even the
 * experts' load is.
 * @module
 */

import type { RoutedRows } from "../model/routing.js";

/** FFN experts that tokens choose; the rest of top-k are zero experts. */
export interface FfnUse {
  /** Of a mean token, in a mean layer where it is said of several. */
  ffnExpertsPerToken: number;
  /** Standard deviation between tokens: of their counts in a layer, or of their means over layers. */
  deviation: number;
  /** Share of picks that are zero experts, 0 … 1. */
  zeroExpertShare: number;
}

/** The load of one layer's FFN experts, in tokens that chose them. */
export interface ExpertLoad {
  /** `tokens[expert]` */
  tokens: number[];
  mean: number;
  min: number;
  max: number;
  /** Coefficient of variation, standard deviation ÷ mean: 0 where all have the same; 0 too where no expert was chosen. */
  variation: number;
  /** The five with the most tokens, the first having most; of equals the lower id first. */
  busiest: number[];
}

/** One layer. */
export interface LayerRouting extends FfnUse {
  load: ExpertLoad;
}

const BUSIEST = 5;

/** The sizes that choices are read by. */
interface RoutingSizes {
  numLayers: number;
  numExperts: number;
  topK: number;
}

/** Sum and squares of some numbers. */
class Moments {
  #sum = 0;
  #squares = 0;

  add(value: number): void {
    this.#sum += value;
    this.#squares += value * value;
  }

  of(count: number): { mean: number; deviation: number } {
    const mean = this.#sum / count;
    return { mean, deviation: Math.sqrt(Math.max(0, this.#squares / count - mean * mean)) };
  }
}

/** Adds up choices of tokens. */
export class RoutingTally {
  tokens = 0;
  readonly #sizes: RoutingSizes;
  readonly #loads: Float64Array[];
  readonly #layers: Moments[];
  readonly #all = new Moments();

  constructor(sizes: RoutingSizes) {
    const layers = Array.from({ length: sizes.numLayers });
    this.#sizes = sizes;
    this.#loads = layers.map(() => new Float64Array(sizes.numExperts));
    this.#layers = layers.map(() => new Moments());
  }

  /** Takes some tokens' choices; gives the FFN experts of each, by layer. */
  add({ rows, ids }: RoutedRows): number[][] {
    const { numLayers, numExperts, topK } = this.#sizes;
    const counts = Array.from({ length: rows }, () => new Array<number>(numLayers).fill(0));
    for (let l = 0; l < numLayers; l++) {
      const [load, layer] = [this.#loads[l]!, this.#layers[l]!];
      for (const [row, count] of counts.entries()) {
        const first = (l * rows + row) * topK;
        for (const id of ids.subarray(first, first + topK)) {
          if (id >= numExperts) break; // ids ascend: the rest are zero experts
          load[id]! += 1;
          count[l]! += 1;
        }
        layer.add(count[l]!);
      }
    }
    for (const count of counts) this.#all.add(count.reduce((sum, n) => sum + n, 0) / numLayers);
    this.tokens += rows;
    return counts;
  }

  /** All together. */
  use(): FfnUse {
    return this.#use(this.#all);
  }

  /** Layer by layer. */
  layers(): LayerRouting[] {
    return this.#layers.map((layer, l) => ({ ...this.#use(layer), load: loadOf(Array.from(this.#loads[l]!)) }));
  }

  #use(moments: Moments): FfnUse {
    const { mean, deviation } = moments.of(this.tokens);
    return { ffnExpertsPerToken: mean, deviation, zeroExpertShare: 1 - mean / this.#sizes.topK };
  }
}

function loadOf(tokens: number[]): ExpertLoad {
  const moments = new Moments();
  for (const count of tokens) moments.add(count);
  const { mean, deviation } = moments.of(tokens.length);
  const busiest = tokens.map((_, expert) => expert).sort((a, b) => tokens[b]! - tokens[a]!); // stable
  return {
    ...{ tokens, mean, min: Math.min(...tokens), max: Math.max(...tokens), variation: mean === 0 ? 0 : deviation / mean },
    busiest: busiest.slice(0, BUSIEST),
  };
}
