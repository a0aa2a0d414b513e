/**
 * Synthetic tasks over bare ids, for models too small for a text: each makes sequences from random numbers alone.
 *
 * Ids: 1 begins, 2 ends, 3 separates; what follows is the task's own.
 * @module
 */

import type { TrainSequence } from "./batch.js";
import { wholeBelow } from "./random.js";

const BEGIN = 1;
const END = 2;
const SEPARATOR = 3;
const FIRST = 4;

/** Which task, and how hard. */
export type TaskOptions =
  | { kind: "copy"; symbols: number; length: number }
  | { kind: "sums"; digits: number }
  | { kind: "recall"; symbols: number; pairs: number };

/** Ids that a task uses: the vocabulary has at least so many. */
export function taskVocabulary(task: TaskOptions): number {
  return FIRST + (task.kind === "sums" ? 12 : task.symbols);
}

/** Tokens of its longest sequence. */
export function taskLength(task: TaskOptions): number {
  switch (task.kind) {
    case "copy":
      return 2 * task.length + 2;
    case "sums":
      return 3 * task.digits + 4;
    case "recall":
      return 2 * task.pairs + 4;
  }
}

/** One sequence. Only what follows from what came before counts: the copy, the sum, what was asked for. */
export function drawTask(task: TaskOptions, random: () => number): TrainSequence {
  switch (task.kind) {
    case "copy": {
      const word = Array.from({ length: task.length }, () => FIRST + wholeBelow(task.symbols, random));
      return predicting([BEGIN, ...word, SEPARATOR], [...word, END]);
    }
    case "sums": {
      const [a, b] = [wholeBelow(10 ** task.digits, random), wholeBelow(10 ** task.digits, random)];
      const plus = FIRST + 10;
      const equals = FIRST + 11;
      const digits = (n: number) => Array.from(String(n), (digit) => FIRST + Number(digit));
      return predicting([BEGIN, ...digits(a), plus, ...digits(b), equals], [...digits(a + b), END]);
    }
    case "recall": {
      const keys = shuffled(task.symbols, random).slice(0, task.pairs);
      const values = keys.map(() => FIRST + wholeBelow(task.symbols, random));
      const asked = wholeBelow(task.pairs, random);
      const pairs = keys.flatMap((key, i) => [FIRST + key, values[i]!]);
      return predicting([BEGIN, ...pairs, SEPARATOR, FIRST + keys[asked]!], [values[asked]!, END]);
    }
  }
}

/** `given`, then `wanted`: each token of which is predicted by the one before it. */
function predicting(given: readonly number[], wanted: readonly number[]): TrainSequence {
  const all = [...given, ...wanted];
  return { tokens: all.slice(0, -1), targets: all.slice(1).map((token, i) => (i + 1 >= given.length ? token : -1)) };
}

/** 0 … n−1 in random order. */
function shuffled(n: number, random: () => number): number[] {
  const list = Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const j = wholeBelow(i + 1, random);
    [list[i], list[j]] = [list[j]!, list[i]!];
  }
  return list;
}
