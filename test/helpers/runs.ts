/**
 * Runs of a runner whose bits are compared: prompts, batches, and what must be alike.
 */
import type { Runner } from "../../ts/model/runner.js";
import type { DrawnToken, StepResult, StepSequence } from "../../ts/model/runner-types.js";
import { takeSlot } from "./goldens.js";

/** A prompt of `length` ids that exist, different for each seed. */
export function prompt(length: number, seed: number): number[] {
  return Array.from({ length }, (_, i) => 12 + ((i * 7919 + seed * 104729) % 300));
}

/** What must be the same bits: tokens, their log-probabilities and those of the alternatives. */
export function bits(results: readonly StepResult[]): DrawnToken[] {
  return results.flatMap(({ drawn }) => drawn);
}

/** The tokens alone. */
export function tokens(results: readonly StepResult[]): number[] {
  return bits(results).map(({ token }) => token);
}

/** How far two lists of numbers are from one another at most; NaN if one is met. */
export function farthest(a: Float32Array, b: Float32Array): number {
  let most = 0;
  a.forEach((value, i) => {
    const off = Math.abs(value - b[i]!);
    if (!(off <= most)) most = off;
  });
  return most;
}

/** Prompts of all in one step (or as many as fit), then decode steps together. */
export async function batch(runner: Runner, prompts: number[][], count: number): Promise<StepResult[][]> {
  const results: StepResult[][] = prompts.map(() => []);
  let block = 0;
  prompts.forEach((tokens, slot) => {
    takeSlot(runner, slot, block, tokens.length + count, 5);
    block += Math.ceil((tokens.length + count) / runner.limits.blockSize);
  });
  const first = await runner.step(prompts.map((tokens, slot) => ({ slot, position: 0, tokens, sample: true })));
  first.forEach((result, i) => {
    results[i]!.push(result);
  });
  for (let step = 1; step < count; step++) {
    const next = await runner.step(
      prompts.map((tokens, slot) => ({ slot, position: tokens.length + step - 1, tokens: null, sample: true })),
    );
    next.forEach((result, i) => {
      results[i]!.push(result);
    });
  }
  return results;
}

/** One sequence after another starts, each prompt in chunks, while those before it decode in the same steps. */
export async function staggered(runner: Runner, prompts: number[][], count: number, chunk: number): Promise<StepResult[][]> {
  const results: StepResult[][] = prompts.map(() => []);
  const computed = prompts.map(() => 0);
  let block = 0;
  prompts.forEach((tokens, slot) => {
    takeSlot(runner, slot, block, tokens.length + count, 5);
    block += Math.ceil((tokens.length + count) / runner.limits.blockSize);
  });
  while (results.some(({ length }) => length < count)) {
    const starting = prompts.findIndex((tokens, s) => computed[s]! < tokens.length);
    const decoding = prompts.flatMap((tokens, s) => (computed[s]! >= tokens.length && results[s]!.length < count ? [s] : []));
    const steps: StepSequence[] = decoding.map((slot) => ({ slot, position: computed[slot]!, tokens: null, sample: true }));
    if (starting >= 0) {
      const [tokens, position] = [prompts[starting]!, computed[starting]!];
      const piece = tokens.slice(position, position + chunk);
      steps.unshift({ slot: starting, position, tokens: piece, sample: position + piece.length === tokens.length });
    }
    for (const [i, result] of (await runner.step(steps)).entries()) {
      const { slot, tokens, sample } = steps[i]!;
      computed[slot]! += tokens?.length ?? 1;
      if (sample) results[slot]!.push(result);
    }
  }
  return results;
}
