/**
 * `longcat bench decode`: tokens a second beside the least time that this machine's memory and arithmetic allow, measured in the same run.
 * @module
 */

import { benchDecode, type DecodePlan, type DecodeReport, type DecodeResult, PROMPT_TOKENS } from "../engine/bench.js";
import { type Command, JSON_FLAG } from "./command.js";
import { ENGINE_FLAGS, engineOptions } from "./engine-flags.js";
import { type ParsedFlags, parseNumber, UsageError } from "./flags.js";
import { interruptible } from "./interrupt.js";
import { note, print, printJson } from "./output.js";

const DEFAULT_BATCHES = "1,16";
const DEFAULT_TOKENS = 128;
const DEFAULT_RUNS = 5;

export const benchDecodeCommand: Command = {
  usage: ["bench decode [--model DIR] [--batch 1,16] [--tokens N] [--runs N] [--json]"],
  about:
    "Decodes batches of random prompts, end tokens ignored, and prints tokens/s beside the floor, the least time that a step can take here:\n" +
    'the larger of bytes touched ÷ read bandwidth (over a buffer of that size) and flops ÷ peak, both measured here and now. "20 % of the\n' +
    "possible speed\" means that a step took five times its floor. Experts are counted as the run's own routing used them.",
  flags: [
    { name: "batch", kind: "text", value: DEFAULT_BATCHES, help: "batch sizes" },
    { name: "tokens", kind: "number", value: "N", help: `tokens to generate in each row (default ${DEFAULT_TOKENS})` },
    { name: "runs", kind: "number", value: "N", help: `runs, of which the median counts (default ${DEFAULT_RUNS})` },
    ...ENGINE_FLAGS,
    JSON_FLAG,
  ],
  maxPositionals: 0,
  run: async (flags) => {
    const batches = (flags.text("batch") ?? DEFAULT_BATCHES).split(",").map((part) => wholeNumber("batch", part.trim(), 1, 1024));
    const tokens = wholeNumber("tokens", flags.text("tokens") ?? String(DEFAULT_TOKENS), 2, 65536);
    const runs = wholeNumber("runs", flags.text("runs") ?? String(DEFAULT_RUNS), 1, 100);
    await bench(flags, { batches, tokens, runs });
    return undefined;
  },
};

function wholeNumber(name: string, text: string, min: number, max: number): number {
  const value = parseNumber(`--${name}`, text);
  if (!Number.isInteger(value) || value < min || value > max)
    throw new UsageError(`--${name}: ${value} is not a whole number from ${min} to ${max}`);
  return value;
}

async function bench(flags: ParsedFlags, plan: DecodePlan): Promise<void> {
  const json = flags.on("json");
  const results: DecodeResult[] = [];
  let facts = {};
  const report: DecodeReport = {
    loaded: ({ directory, device, threads, isa }) => {
      facts = { model: directory, device, threads, isa };
      if (json) return;
      const { tokens, runs } = plan;
      note(`decode on ${device} (${threads} threads, ${isa}): ${tokens} tokens after a prompt of ${PROMPT_TOKENS}, median of ${runs} runs`);
      note(
        "floor = least time of a step = max(bytes it touches ÷ read bandwidth over a buffer of that size, flops ÷ peak), measured beside the run",
      );
    },
    measured: async (result) => {
      results.push(result);
      if (!json) await print(`${describe(result)}\n`);
    },
  };
  await interruptible((signal) => benchDecode(flags.text("model"), { ...engineOptions(flags), signal }, plan, report));
  if (json) await printJson({ ...facts, promptTokens: PROMPT_TOKENS, tokens: plan.tokens, runs: plan.runs, results });
}

/** One aligned line. */
function describe(r: DecodeResult): string {
  const cell = (value: number, width: number, digits: number) => value.toFixed(digits).padStart(width);
  const bound = r.bytesPerStep / r.readBytesPerSecond >= r.flopsPerStep / r.flopsPerSecond ? "bytes" : "flops";
  return [
    `batch ${cell(r.batch, 3, 0)}`,
    `${cell(r.tokensPerSecond, 7, 0)} tokens/s`,
    `${cell(r.stepMs, 7, 3)} ms/step`,
    `floor ${cell(r.floorMs, 7, 3)} ms (${bound}: ${cell(r.bytesPerStep / 1e6, 6, 1)} MB at ${cell(r.readBytesPerSecond / 1e9, 5, 1)} GB/s, ` +
      `${cell(r.flopsPerStep / 1e6, 6, 1)} Mflop at ${cell(r.flopsPerSecond / 1e9, 5, 1)} Gflop/s)`,
    `${cell(100 * r.shareOfFloor, 5, 1)} % of the possible speed`,
    `${cell(r.ffnExpertsPerToken, 4, 1)} experts/token, ${cell(r.distinctExperts, 4, 1)} distinct`,
  ].join("  ");
}
