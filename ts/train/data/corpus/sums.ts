/**
 * Sums and differences of whole numbers; one in five is plain text.
 * @module
 */

import { wholeBelow } from "../../random.js";
import type { Document } from "../document.js";
import { exchange, pick, type Random } from "./words.js";

/** @param digits of the numbers, at most */
export function drawSum(random: Random, digits: number): Document {
  const [a, b] = [wholeBelow(10 ** digits, random), wholeBelow(10 ** digits, random)];
  const plus = random() < 0.6;
  const [term, value] = plus ? [`${a} + ${b}`, a + b] : [`${Math.max(a, b)} - ${Math.min(a, b)}`, Math.abs(a - b)];
  if (random() < 0.2) return { text: `${term} = ${value}` };
  return exchange(pick([`What is ${term}?`, `Compute ${term}.`, `${term} = ?`], random), String(value), random);
}
