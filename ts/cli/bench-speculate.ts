/**
 * `longcat bench speculate`: what the draft head's tokens are worth, by their number and by batch.
 * @module
 */

import type { BenchFacts } from "../engine/bench-model.js";
import { type AcceptanceResult, benchSpeculate, type SpeculatePlan, type SpeedResult } from "../engine/bench-speculate.js";
import { MOST_DRAFTS } from "../engine/options.js";
import { cell, numberOr, numbers } from "./bench-flags.js";
import { describeModel, runsOf } from "./bench-model.js";
import { benchReport } from "./bench-report.js";
import { type Command, JSON_FLAG } from "./command.js";
import { BENCH_ENGINE_FLAGS, engineOptions } from "./engine-flags.js";
import { type ParsedFlags, UsageError } from "./flags.js";
import { interruptible } from "./interrupt.js";
import { note, printJson } from "./output.js";

const DEFAULT_DRAFTS = Array.from({ length: MOST_DRAFTS }, (_, i) => i + 1).join();
const DEFAULT_BATCHES = "1,4,16,64";
const DEFAULT_TOKENS = 64;
/** Of a row: two steps and more behind its first token, whatever is accepted. */
const LEAST_TOKENS = 2 * (MOST_DRAFTS + 1);
const MOST_PROMPTS = 1024;

export const benchSpeculateCommand: Command = {
  usage: ["bench speculate [PROMPT…] [--model DIR] [--drafts 1,2] [--batch 1,16] [--tokens N] [--temperature T] [--runs N] [--json]"],
  about:
    "Answers prompts (texts as they are, or built-in ones) with each number of drafts, and prints how many were accepted, by their place in a\n" +
    "step. Then times rows that decode together, end tokens ignored: without drafts, with each number, with as many as pay (auto), and without\n" +
    "drafts or steps launched ahead. Predicted is Ω ÷ ((γ T_D + T_V) / T_T): the tokens of a step by the answers' shares; verification\n" +
    "(T_V; of a step without drafts T_T) and drafting (γ T_D) timed apart. Cost is of a step as the engine ran it; idle is time between steps.\n" +
    "Accepted by place: of the drafts behind accepted ones only, so that 95, 65 means 95 % of the first and 65 % of those second ones. Tokens a\n" +
    "step: of one sequence, in steps that verified its drafts. µs/step: of all steps that were timed, whatever they verified.",
  flags: [
    { name: "drafts", kind: "text", value: DEFAULT_DRAFTS, help: `numbers of drafts, 1 to ${MOST_DRAFTS}` },
    { name: "batch", kind: "text", value: DEFAULT_BATCHES, help: "batch sizes" },
    {
      ...{ name: "tokens", kind: "number", value: "N" },
      help: `tokens of an answer at most, and of each row: ${LEAST_TOKENS} or more (default ${DEFAULT_TOKENS})`,
    },
    { name: "temperature", kind: "number", value: "T", help: "of all draws (default 0)" },
    { name: "runs", kind: "number", value: "N", help: "runs, of which the median counts (default 5)" },
    ...BENCH_ENGINE_FLAGS,
    JSON_FLAG,
  ],
  maxPositionals: MOST_PROMPTS,
  run: async (flags) => {
    await bench(flags, {
      drafts: distinct("drafts", numbers(flags, "drafts", DEFAULT_DRAFTS, 1, MOST_DRAFTS)),
      batches: distinct("batch", numbers(flags, "batch", DEFAULT_BATCHES, 1, 1024)),
      tokens: numberOr(flags, "tokens", LEAST_TOKENS, 65536, DEFAULT_TOKENS),
      temperature: temperatureOf(flags),
      runs: runsOf(flags),
      prompts: flags.positionals,
    });
    return undefined;
  },
};

function distinct(name: string, values: number[]): number[] {
  const twice = values.find((value, i) => values.indexOf(value) < i);
  if (twice !== undefined) throw new UsageError(`--${name}: ${twice} is given twice`);
  return values;
}

function temperatureOf(flags: ParsedFlags): number {
  const temperature = flags.number("temperature") ?? 0;
  if (temperature < 0) throw new UsageError(`--temperature: ${temperature} is not a number of at least 0`);
  return temperature;
}

async function bench(flags: ParsedFlags, plan: SpeculatePlan): Promise<void> {
  const json = flags.on("json");
  const report = benchReport<BenchFacts, AcceptanceResult | SpeedResult>(
    json,
    (facts) =>
      note(
        `speculate on ${describeModel(facts)}: temperature ${plan.temperature}, rows of ${plan.tokens} tokens, median of ${plan.runs} runs`,
      ),
    (result) => `${result.kind === "acceptance" ? describeAcceptance(result) : describeSpeed(result)}\n`,
  );
  const options = engineOptions(flags);
  const source = { device: options.device ?? "auto", directory: flags.text("model"), options };
  await interruptible((signal) => benchSpeculate({ ...source, signal }, plan, report));
  if (json) await printJson({ ...report.facts, ...plan, results: report.results });
}

function describeAcceptance({ drafts, draftedSteps, acceptedLength, shares }: AcceptanceResult): string {
  const places = shares.map((share) => cell(100 * share, 5, 1)).join(", ");
  return `${drafts} ${drafts === 1 ? "draft " : "drafts"}  ${cell(acceptedLength, 5, 2)} tokens a step  accepted by place ${places} % of ${draftedSteps} steps`;
}

/** One aligned line. */
function describeSpeed(r: SpeedResult): string {
  const name = typeof r.drafts === "number" ? `${r.drafts} ${r.drafts === 1 ? "draft" : "drafts"}` : r.drafts;
  return [
    `batch ${cell(r.batch, 3, 0)}`,
    name.padEnd(10),
    `${cell(r.tokensPerSecond, 7, 0)} tokens/s`,
    `${cell(r.measuredSpeedup, 5, 2)} times`,
    r.predictedSpeedup === null ? "".padEnd(15) : `predicted ${cell(r.predictedSpeedup, 5, 2)}`,
    `${cell(r.stepUs, 8, 1)} µs/step`,
    `cost ${cell(r.cost, 5, 2)}`,
    `${cell(r.acceptedLength, 5, 2)} tokens a step`,
    `idle ${cell(100 * r.idleShare, 5, 1)} %`,
    ...(r.verifyUs === null || r.draftUs === null ? [] : [`verify ${cell(r.verifyUs, 8, 1)} µs`, `draft ${cell(r.draftUs, 7, 1)} µs`]),
  ].join("  ");
}
