/**
 * `longcat bench decode`: tokens a second beside the least time that this machine's memory and arithmetic allow, measured in the same run.
 * @module
 */

import { benchDecode, type DecodePlan, type DecodeResult } from "../engine/bench.js";
import type { BenchFacts } from "../engine/bench-model.js";
import { cell, numberOr, numbers } from "./bench-flags.js";
import { describeModel, MODEL_RUN_FLAGS, modelSource, runsOf } from "./bench-model.js";
import { benchReport } from "./bench-report.js";
import type { Command } from "./command.js";
import type { ParsedFlags } from "./flags.js";
import { interruptible } from "./interrupt.js";
import { note, printJson } from "./output.js";

const DEFAULT_BATCHES = "1,16";
const DEFAULT_TOKENS = 128;
const DEFAULT_CONTEXT = 32;

export const benchDecodeCommand: Command = {
  usage: [
    "bench decode [--model DIR] [--batch 1,16] [--context N] [--tokens N] [--runs N] [--json]",
    "bench decode --random-weights [--shape flash|lite|mini] [--layers N] [--experts-held N] [--dtype bfloat16|fp8|float32] …",
  ],
  about:
    "Decodes batches of random prompts, end tokens ignored, and prints tokens/s (through Engine.generate, between the last prompt's end and the\n" +
    "first row's, and of the runner alone) beside the floor, the least time that a step can take here: the larger of bytes touched ÷ read\n" +
    "bandwidth (over a buffer of that size) and flops ÷ peak, both measured here and now; on a GPU bytes touched ÷ what a copy within its memory\n" +
    'moves. "20 % of the possible speed" means that a step took five times its floor. Experts are counted as the run\'s own routing used them\n' +
    "(random weights: in its last layer).",
  flags: [
    { name: "batch", kind: "text", value: DEFAULT_BATCHES, help: "batch sizes" },
    { name: "context", kind: "number", value: "N", help: `tokens of each prompt (default ${DEFAULT_CONTEXT})` },
    { name: "tokens", kind: "number", value: "N", help: `tokens to generate in each row (default ${DEFAULT_TOKENS})` },
    ...MODEL_RUN_FLAGS,
  ],
  maxPositionals: 0,
  run: async (flags) => {
    const batches = numbers(flags, "batch", DEFAULT_BATCHES, 1, 1024);
    const tokens = numberOr(flags, "tokens", 2, 65536, DEFAULT_TOKENS);
    const runs = runsOf(flags);
    const context = numberOr(flags, "context", 1, 1_000_000, DEFAULT_CONTEXT);
    await bench(flags, { batches, tokens, runs, context });
    return undefined;
  },
};

async function bench(flags: ParsedFlags, plan: DecodePlan): Promise<void> {
  const json = flags.on("json");
  const { tokens, runs, context } = plan;
  const report = benchReport<BenchFacts, DecodeResult>(
    json,
    (facts) => {
      note(`decode on ${describeModel(facts)}: ${tokens} tokens after a prompt of ${context}, median of ${runs} runs`);
      note("floor = least time of a step, measured beside the run; longcat bench decode --help says how");
    },
    (result) => `${describe(result)}\n`,
  );
  const source = await modelSource(flags);
  await interruptible((signal) => benchDecode({ ...source, signal }, plan, report));
  if (json) await printJson({ ...report.facts, promptTokens: context, tokens, runs, results: report.results });
}

/** One aligned line. */
function describe(r: DecodeResult): string {
  const flopsBound = r.flopsPerSecond !== null && r.bytesPerStep / r.readBytesPerSecond < r.flopsPerStep / r.flopsPerSecond;
  const flops = r.flopsPerSecond === null ? "" : ` at ${cell(r.flopsPerSecond / 1e9, 5, 1)} Gflop/s`;
  return [
    `batch ${cell(r.batch, 3, 0)}`,
    `${cell(r.tokensPerSecond, 7, 0)} tokens/s`,
    `${cell(r.stepMs, 7, 3)} ms/step`,
    `runner ${cell(r.runnerTokensPerSecond, 7, 0)} tokens/s ${cell(r.runnerStepUs, 8, 1)} µs/step`,
    `floor ${cell(r.floorMs, 7, 3)} ms (${flopsBound ? "flops" : "bytes"}: ${cell(r.bytesPerStep / 1e6, 6, 1)} MB at ` +
      `${cell(r.readBytesPerSecond / 1e9, 5, 1)} GB/s, ${cell(r.flopsPerStep / 1e6, 6, 1)} Mflop${flops})`,
    `${cell(100 * r.shareOfFloor, 5, 1)} % of the possible speed (runner ${cell(100 * r.runnerShareOfFloor, 5, 1)} %)`,
    `${cell(r.ffnExpertsPerToken, 4, 1)} experts/token, ${cell(r.distinctExperts, 4, 1)} distinct`,
  ].join("  ");
}
