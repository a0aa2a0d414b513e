/**
 * `longcat bench prefill`: tokens a second of prompts.
 * @module
 */

import type { BenchFacts } from "../engine/bench-model.js";
import { benchPrefill, type PrefillPlan, type PrefillResult } from "../engine/bench-prefill.js";
import { cell, numbers } from "./bench-flags.js";
import { describeModel, MODEL_RUN_FLAGS, modelSource, runsOf } from "./bench-model.js";
import { benchReport } from "./bench-report.js";
import type { Command } from "./command.js";
import type { ParsedFlags } from "./flags.js";
import { interruptible } from "./interrupt.js";
import { note, printJson } from "./output.js";

const DEFAULT_LENGTHS = "128,1024,4096";

export const benchPrefillCommand: Command = {
  usage: [
    "bench prefill [--model DIR] [--tokens 128,1024] [--runs N] [--json]",
    "bench prefill --random-weights [--shape flash|lite|mini] [--layers N] [--experts-held N] [--dtype bfloat16|fp8|float32] …",
  ],
  about:
    "Runs one prompt of random tokens at a time, from its first step until its next token is there, and prints tokens/s and TFLOP/s: products\n" +
    "with matrices, experts as they were chosen, causal attention, and one row of logits. Prompts longer than --max-batch-tokens run in chunks.",
  flags: [{ name: "tokens", kind: "text", value: DEFAULT_LENGTHS, help: "lengths of prompts" }, ...MODEL_RUN_FLAGS],
  maxPositionals: 0,
  run: async (flags) => {
    const tokens = numbers(flags, "tokens", DEFAULT_LENGTHS, 1, 1_000_000);
    await bench(flags, { tokens, runs: runsOf(flags) });
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
  const source = await modelSource(flags);
  await interruptible((signal) => benchPrefill({ ...source, signal }, plan, report));
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
