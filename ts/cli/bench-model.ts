/**
 * What the benches that run a whole model share: their flags, which model it is, and how it is described.
 * @module
 */

import type { BenchFacts } from "../engine/bench-model.js";
import { describeWhere, meansGpu, numberOr, RANDOM_FLAGS, randomSource } from "./bench-flags.js";
import { JSON_FLAG } from "./command.js";
import { BENCH_ENGINE_FLAGS, engineOptions } from "./engine-flags.js";
import type { Flag, ParsedFlags } from "./flags.js";
import { formatBytes } from "./output.js";

const DEFAULT_RUNS = 5;

/** How often a model runs, and which one. */
export const MODEL_RUN_FLAGS: readonly Flag[] = [
  { name: "runs", kind: "number", value: "N", help: `runs, of which the median counts (default ${DEFAULT_RUNS})` },
  ...RANDOM_FLAGS,
  ...BENCH_ENGINE_FLAGS,
  JSON_FLAG,
];

export function runsOf(flags: ParsedFlags): number {
  return numberOr(flags, "runs", 1, 100, DEFAULT_RUNS);
}

/** The model that the flags name, and the options that it is loaded with. */
export async function modelSource(flags: ParsedFlags) {
  const options = engineOptions(flags);
  const device = options.device ?? "auto";
  const random = randomSource(flags, flags.on("random-weights") && (await meansGpu(device)));
  return { device, directory: flags.text("model"), random, options };
}

/** One line: where, what, how much memory. */
export function describeModel(facts: BenchFacts): string {
  const { model, shape, layers, dtype, memoryBytes, notes } = facts;
  const what = shape === null ? model : `${model} of ${shape}, ${layers} layers, ${dtype}`;
  return [`${describeWhere(facts)}, ${what}, ${formatBytes(memoryBytes)} allocated`, ...notes].join("; ");
}
