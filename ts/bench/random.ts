/**
 * Random numbers that a seed repeats, and the distributions that loads are drawn from.
 * @module
 */

import { LongcatError } from "../errors.js";

/** A generator of numbers from 0 to below 1: the 32-bit mixer of a counter. The same seed gives the same numbers. */
export function seededRandom(seed: number): () => number {
  let counter = seed >>> 0;
  return () => {
    counter = (counter + 0x9e3779b9) >>> 0;
    let mixed = counter;
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0x21f0aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
    return ((mixed ^ (mixed >>> 15)) >>> 0) / 2 ** 32;
  };
}

/** Times between the arrivals of a Poisson process of `rate` a second: exponential, in seconds. */
export const exponential = (rate: number, random: () => number): number => -Math.log(1 - random()) / rate;

/** A distribution of whole numbers of at least 1, and how it was written. */
export interface Lengths {
  readonly written: string;
  /** The largest that is drawn. */
  readonly most: number;
  draw(random: () => number): number;
}

/** Longest length that is accepted. */
const LONGEST = 1_000_000;

/**
 * Reads `64`, `uniform:16:256` (both ends included) or `lognormal:64:0.8:512` (median, sigma of the logarithm, largest).
 *
 * @throws LongcatError `OPTION_INVALID` naming `field`.
 */
export function parseLengths(field: string, text: string): Lengths {
  const [kind = "", ...rest] = text.split(":");
  const values = (kind === "uniform" || kind === "lognormal" ? rest : [kind, ...rest]).map(Number);
  const whole = (value: number | undefined): value is number =>
    value !== undefined && Number.isInteger(value) && value >= 1 && value <= LONGEST;
  const [a, b, c] = values;
  if (kind === "uniform" && values.length === 2 && whole(a) && whole(b) && a <= b)
    return { written: text, most: b, draw: (random) => a + Math.floor(random() * (b - a + 1)) };
  if (kind === "lognormal" && values.length === 3 && whole(a) && b !== undefined && b > 0 && b <= 5 && whole(c))
    return {
      written: text,
      most: c,
      draw: (random) => Math.min(c, Math.max(1, Math.round(a * Math.exp(b * normal(random))))),
    };
  if (/^\d+$/.test(text) && whole(a)) return { written: text, most: a, draw: () => a };
  throw new LongcatError(
    "OPTION_INVALID",
    `${field}: ${JSON.stringify(text)} is not a length; give 64, uniform:16:256 or lognormal:64:0.8:512 (median, sigma, largest)`,
  );
}

/** A draw of the standard normal distribution (Box and Muller). */
function normal(random: () => number): number {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}
