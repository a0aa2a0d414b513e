/**
 * `longcat bench all-to-all`: what the exchange of a layer's rows takes between ranks of this host.
 * @module
 */

import {
  type AllToAllFacts,
  type AllToAllPlan,
  type AllToAllResult,
  checkAllToAll,
  type DirectionResult,
  exchangeSizes,
} from "../engine/bench-all-to-all.js";
import { runRanks } from "../engine/bench-ranks.js";
import { type Bar, barChart } from "./bar-chart.js";
import {
  cell,
  describeWhere,
  deviceName,
  exchangeOf,
  meansGpu,
  numberOr,
  noteLauncher,
  numbers,
  oneOf,
  ranksOf,
  SHAPE_FLAG,
  SHAPE_NAMES,
  threadsOf,
} from "./bench-flags.js";
import { benchReport } from "./bench-report.js";
import { chartFile, writeChart } from "./chart-file.js";
import { type Command, JSON_FLAG } from "./command.js";
import type { ParsedFlags } from "./flags.js";
import { EXCHANGE_FLAG } from "./engine-flags.js";
import { interruptible } from "./interrupt.js";
import { note, printJson } from "./output.js";

const DEFAULT_TOKENS = { gpu: "1,8,64,128,512,1024,4096", cpu: "1,16,64" };
const DEFAULT_RANKS = 2;
const DEFAULT_SAMPLES = 7;

export const benchAllToAllCommand: Command = {
  usage: [
    "bench all-to-all [--ranks R] [--tokens 1,8,64,…] [--shape flash|lite|mini] [--hidden N] [--dtype bfloat16|float32] [--fp8] [--exchange peer|nccl] [--device cuda|cpu] [--json] [--svg FILE]",
  ],
  about:
    "The exchange between ranks by itself, a process and a GPU each: every token's row to the ranks that hold its experts, and their sums back, at some\n" +
    "numbers of tokens a rank, each with experts of its own choice. The times of both operations, recorded in turn again and again, of the rank where they\n" +
    "take longest: with numbering and planning of the rows, and with weighing and adding up. Beside them on GPUs: NCCL's all-to-all of as many bytes, and\n" +
    "what NVLink itself takes. GB/s: what a rank sends to others ÷ time.",
  flags: [
    {
      name: "ranks",
      kind: "number",
      value: "R",
      help: `ranks of this host, which this process starts, rank r on GPU r; a divisor of the experts (default ${DEFAULT_RANKS})`,
    },
    {
      name: "tokens",
      kind: "text",
      value: "1,8,…",
      help: `tokens of each rank (default: GPU ${DEFAULT_TOKENS.gpu}, CPU ${DEFAULT_TOKENS.cpu})`,
    },
    SHAPE_FLAG,
    { name: "hidden", kind: "number", value: "N", help: "numbers of a row (default: the shape's)" },
    {
      name: "dtype",
      kind: "text",
      value: "T",
      help: "activations: bfloat16 (default on GPUs) or float32 (default and only one on the CPU)",
    },
    { name: "fp8", kind: "flag", help: "dispatch rows as e4m3 with a scale for each 128 numbers" },
    EXCHANGE_FLAG,
    { name: "samples", kind: "number", value: "N", help: `measurements, of which the median counts (default ${DEFAULT_SAMPLES})` },
    { name: "device", kind: "text", value: "D", help: "auto (GPUs, else the CPU), cpu or cuda" },
    { name: "threads", kind: "text", value: "N", help: "CPU threads of each rank, or auto (a share each)" },
    { name: "svg", kind: "text", value: "FILE", help: "write a chart of the times beside NCCL's and the floors" },
    JSON_FLAG,
  ],
  maxPositionals: 0,
  run: async (flags) => {
    await bench(flags);
    return undefined;
  },
};

async function planOf(flags: ParsedFlags): Promise<AllToAllPlan & { ranks: number }> {
  const device = deviceName(flags, "auto");
  const ranks = ranksOf(flags, device, DEFAULT_RANKS, 2);
  const onGpu = await meansGpu(device);
  const sizes = exchangeSizes(oneOf(flags, "shape", SHAPE_NAMES, onGpu ? "flash" : "mini"), ranks);
  const plan = {
    sizes: { ...sizes, hiddenSize: numberOr(flags, "hidden", 1, 65536, sizes.hiddenSize) },
    dtype: oneOf(flags, "dtype", ["bfloat16", "float32"] as const, onGpu ? "bfloat16" : "float32"),
    ...{ fp8: flags.on("fp8"), exchange: exchangeOf(flags) },
    tokens: numbers(flags, "tokens", DEFAULT_TOKENS[onGpu ? "gpu" : "cpu"], 1, 65536),
    samples: numberOr(flags, "samples", 1, 100, DEFAULT_SAMPLES),
    ...{ device, threads: threadsOf(flags) },
  };
  checkAllToAll(plan, ranks, onGpu ? "cuda" : "cpu");
  return { ranks, ...plan };
}

async function bench(flags: ParsedFlags): Promise<void> {
  const { ranks, ...plan } = await planOf(flags);
  const svg = chartFile(flags);
  const json = flags.on("json");
  const report = benchReport<AllToAllFacts, AllToAllResult>(json, introduce, describe);
  noteLauncher();
  await interruptible((signal) =>
    runRanks("all-to-all", ranks, { ...plan, signal }, (value) =>
      "loaded" in value ? report.loaded(value.loaded) : void report.measured(value.measured),
    ),
  );
  if (json) await printJson({ ...report.facts, samples: plan.samples, results: report.results });
  writeChart(svg, () => chart(`exchange between ${ranks} ranks, ${plan.sizes.hiddenSize} numbers a row`, report.results));
}

function introduce(f: AllToAllFacts): void {
  const rows = `rows of ${f.hiddenSize} ${f.dtype}${f.fp8 ? ", dispatched as FP8" : ""}`;
  const choices = `${f.topK} choices of ${f.numExperts} experts and ${f.numZeroExperts} zero experts`;
  note(`${f.ranks} ranks on ${describeWhere(f)}, exchange ${f.exchange}: ${rows}, ${choices}`);
  if (f.withoutNccl !== null) note(`without NCCL's times: ${f.withoutNccl}`);
}

/** A line for each direction, and one for both. */
function describe(r: AllToAllResult): string {
  const optional = (us: number | null) => (us === null ? "-".padStart(9) : cell(us, 9, 2));
  const line = (name: string, { bytes, us, gigabytesPerSecond, ncclUs, floorUs }: DirectionResult) =>
    `  ${name.padEnd(9)} ${cell(bytes / 1e3, 10, 1)} kB  ${cell(us, 9, 2)} µs  ${cell(gigabytesPerSecond, 7, 1)} GB/s   NCCL ${optional(ncclUs)} µs   floor ${optional(floorUs)} µs`;
  const both = `  ${"both".padEnd(9)} ${cell((r.dispatch.bytes + r.combine.bytes) / 1e3, 10, 1)} kB  ${cell(r.us, 9, 2)} µs`;
  const title = `${r.tokens} token${r.tokens === 1 ? "" : "s"} a rank, ${r.rows.toFixed(1)} rows to others`;
  return `${[title, line("dispatch", r.dispatch), line("combine", r.combine), both].join("\n")}\n`;
}

function chart(title: string, results: readonly AllToAllResult[]): string {
  const bars = (name: string, { us, ncclUs, floorUs }: DirectionResult): Bar[] => [
    { name, us, floorUs },
    ...(ncclUs === null ? [] : [{ name: `NCCL, bytes of ${name}`, us: ncclUs, floorUs }]),
  ];
  return barChart(
    title,
    results.map((r) => ({ title: `${r.tokens} tokens a rank`, bars: [...bars("dispatch", r.dispatch), ...bars("combine", r.combine)] })),
  );
}
