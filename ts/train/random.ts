/**
 * Random numbers of a run: a function of the seed, of what they are for and of their place, so that a run that is resumed draws what
 * an uninterrupted one would.
 * @module
 */

import { philox4x32 } from "../sampling/philox.js";

/** A generator of numbers from 0 to below 1, for sequence `index` of a run with this seed. */
export function drawsOf(seed: number, index: number): () => number {
  const key = [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0] as const;
  let draw = 0;
  return () => {
    const [a, b] = philox4x32([draw++, index >>> 0, Math.floor(index / 2 ** 32) >>> 0, TRAINING], key);
    return ((a >>> 5) * 2 ** 26 + (b >>> 6)) * 2 ** -53;
  };
}

/** Sets these draws apart from those of sampling, whose counters have 0 there. */
const TRAINING = 1;

/** A whole number from 0 to below `n`. */
export function wholeBelow(n: number, random: () => number): number {
  return Math.floor(random() * n);
}
