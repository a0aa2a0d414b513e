/**
 * `longcat bench prefill`: tokens a second of prompts.
 * @module
 */

import type { BenchFacts } from "../engine/bench-model.js";
import { benchPrefill, type PrefillPlan, type PrefillResult } from "../engine/bench-prefill.js";
import { describeModel } from "./bench-decode.js";
import { cell, meansGpu, numberOr, numbers, RANDOM_FLAGS, randomSource } from "./bench-flags.js";
import { benchReport } from "./bench-report.js";
import { type Command, JSON_FLAG } from "./command.js";
import { ENGINE_FLAGS, engineOptions } from "./engine-flags.js";
import type { ParsedFlags } from "./flags.js";
import { interruptible } from "./interrupt.js";
import { note, printJson } from "./output.js";

const DEFAULT_LENGTHS = "128,1024,4096";
const DEFAULT_RUNS = 5;

export const benchPrefillCommand: Command = {
  usage: [
    "bench prefill [--model DIR] [--tokens 128,1024] [--runs N] [--json]",
    "bench prefill --random-weights [--shape flash|lite|mini] [--layers N] [--experts-held N] [--dtype bfloat16|fp8|float32] …",
  ],
  about:
    "Runs one prompt of random tokens at a time, from its first step until its next token is there, and prints tokens/s and TFLOP/s: products\n" +
    "with matrices, experts as they were chosen, causal attention, and one row of logits. Prompts longer than --max-batch-tokens run in chunks.",
  flags: [
    { name: "tokens", kind: "text", value: DEFAULT_LENGTHS, help: "lengths of prompts" },
    { name: "runs", kind: "number", value: "N", help: `runs, of which the median counts (default ${DEFAULT_RUNS})` },
    ...RANDOM_FLAGS,
    ...ENGINE_FLAGS,
    JSON_FLAG,
  ],
  maxPositionals: 0,
  run: async (flags) => {
    const tokens = numbers(flags, "tokens", DEFAULT_LENGTHS, 1, 1_000_000);
    await bench(flags, { tokens, runs: numberOr(flags, "runs", 1, 100, DEFAULT_RUNS) });
    return undefined;
  },
};

async function bench(flags: ParsedFlags, plan: PrefillPlan): Promise<void> {
  const json = flags.on("json");
  const report = benchReport<BenchFacts, PrefillResult>(
    json,
    (facts) => note(`prefill on ${describeModel(facts)}: median of ${plan.runs} runs`),
    (result) => `${describe(result)}\n`,
  );
  const options = engineOptions(flags);
  const device = options.device ?? "auto";
  const random = randomSource(flags, flags.on("random-weights") && (await meansGpu(device)));
  await interruptible((signal) => benchPrefill({ device, directory: flags.text("model"), random, options, signal }, plan, report));
  if (json) await printJson({ ...report.facts, runs: plan.runs, results: report.results });
}

/** One aligned line. */
function describe({ tokens, chunks, ms, tokensPerSecond, teraflops, ffnExpertsPerToken }: PrefillResult): string {
  return [
    `${cell(tokens, 7, 0)} tokens`,
    `${cell(chunks, 3, 0)} ${chunks === 1 ? "step " : "steps"}`,
    `${cell(ms, 9, 2)} ms`,
    `${cell(tokensPerSecond, 8, 0)} tokens/s`,
    `${cell(teraflops, 8, 3)} TFLOP/s`,
    `${cell(ffnExpertsPerToken, 4, 1)} experts/token`,
  ].join("  ");
}
