/** Log-probabilities that recorded logits give to the tokens they were recorded over. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Json } from "./fixtures.js";
import { goldenTraces } from "./goldens.js";

/** A JSON file's content. */
export const parse = (path: string): Json => JSON.parse(readFileSync(path, "utf8"));

/** For each recorded trace: its tokens, and log p of tokens 1, 2, … each given those before it. */
export function scoresOfGolden(dir: string): { tokens: number[]; logprobs: number[] }[] {
  const { vocab_size, num_layers } = parse(join(dir, "config.json"));
  return goldenTraces(dir, { numLayers: num_layers, vocabulary: vocab_size }).map(({ tokens, logits }) => ({
    tokens,
    logprobs: tokens.slice(1).map((token, t) => logSoftmax(logits.subarray(t * vocab_size, (t + 1) * vocab_size), token)),
  }));
}

/** log of the softmax of `logits` at `index`, in double precision. */
export function logSoftmax(logits: ArrayLike<number>, index: number): number {
  const values = Array.from(logits);
  const max = Math.max(...values);
  return (values[index] as number) - max - Math.log(values.reduce((sum, value) => sum + Math.exp(value - max), 0));
}
