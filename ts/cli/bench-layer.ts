/**
 * `longcat bench layer`: one layer with random weights, each of its operations and the whole.
 * @module
 */

import {
  batchesFor,
  benchLayer,
  checkLayerRanks,
  type ExchangeShare,
  type LayerFacts,
  type LayerPlan,
  type LayerResult,
} from "../engine/bench-layer.js";
import { runRanks } from "../engine/bench-ranks.js";
import { MOST_DRAFTS } from "../engine/options.js";
import {
  cell,
  describeWhere,
  deviceName,
  exchangeOf,
  HELD_FLAG,
  meansGpu,
  numberOr,
  noteLauncher,
  numbers,
  oneOf,
  randomModel,
  ranksOf,
  SHAPE_FLAG,
  threadsOf,
} from "./bench-flags.js";
import { benchReport } from "./bench-report.js";
import { chartFile, writeChart } from "./chart-file.js";
import { type Command, JSON_FLAG } from "./command.js";
import { type ParsedFlags, UsageError } from "./flags.js";
import { DISPATCH_FLAG, EXCHANGE_FLAG } from "./engine-flags.js";
import { interruptible } from "./interrupt.js";
import { layerChart } from "./layer-chart.js";
import { formatBytes, note, printJson } from "./output.js";

const DEFAULT_BATCHES = { gpu: "1,16,64", cpu: "1,16" };
const DEFAULT_CONTEXT = { gpu: 1024, cpu: 128 };
const DEFAULT_LAYERS = { gpu: 6, cpu: 2 };
const DEFAULT_SAMPLES = 7;
/** A token and the most drafts that an engine takes. */
const MAX_QUERIES = MOST_DRAFTS + 1;

export const benchLayerCommand: Command = {
  usage: [
    "bench layer [--shape flash|lite|mini] [--experts-held N] [--expert-rows N] [--dtype bfloat16|fp8|float32] [--batch 1,16] [--queries N] [--context N] [--prompt 128,1024] [--ranks R] [--json] [--svg FILE]",
  ],
  about:
    "A whole layer with random weights: the time of each of its operations, alone and again and again in a recorded graph, and of the whole,\n" +
    "its two branches one after the other and at once. An operation alone goes through several layers' weights in turn, so that they come from\n" +
    "memory; where all together fit the device's cache (mini's do), they come from there. The share is that of the floor: bytes ÷ what a copy\n" +
    "within the GPU's memory moves, on the CPU the larger of bytes ÷ read bandwidth and flops ÷ peak, measured in the same run.\n" +
    "With --ranks the same on several GPUs at once, a process each, that exchange the rows of their experts: what the exchange takes alone, and what\n" +
    "of that a layer takes longer than the same layer without it.",
  flags: [
    SHAPE_FLAG,
    HELD_FLAG,
    {
      name: "expert-rows",
      kind: "number",
      value: "N",
      help: "with --experts-held: N rows for each of these experts, whatever the router chooses, as on one rank of many",
    },
    { name: "dtype", kind: "text", value: "T", help: "the layers' matrices: bfloat16 (default), fp8 or float32" },
    {
      name: "ranks",
      kind: "number",
      value: "R",
      help: "ranks of this host, which this process starts, rank r on GPU r; --experts-held is then of each, and --batch too (default 1)",
    },
    ...[EXCHANGE_FLAG, DISPATCH_FLAG],
    {
      name: "batch",
      kind: "text",
      value: "1,16,…",
      help: `sequences of a decode step (default: GPU ${DEFAULT_BATCHES.gpu}, CPU ${DEFAULT_BATCHES.cpu}; with --expert-rows those with rows enough)`,
    },
    {
      name: "queries",
      kind: "number",
      value: "N",
      help: `rows of each of them, not of prompts: its newest token and N - 1 drafts to verify (1 to ${MAX_QUERIES}, default 1)`,
    },
    {
      name: "context",
      kind: "number",
      value: "N",
      help: `cached tokens of each (default: GPU ${DEFAULT_CONTEXT.gpu}, CPU ${DEFAULT_CONTEXT.cpu})`,
    },
    { name: "prompt", kind: "text", value: "128,…", help: "prompts of so many tokens instead, or with --batch beside" },
    {
      name: "layers",
      kind: "number",
      value: "N",
      help: `layers of weights to go through in turn (default: GPU ${DEFAULT_LAYERS.gpu}, CPU ${DEFAULT_LAYERS.cpu})`,
    },
    { name: "samples", kind: "number", value: "N", help: `measurements, of which the median counts (default ${DEFAULT_SAMPLES})` },
    { name: "device", kind: "text", value: "D", help: "auto (the first GPU, else the CPU), cpu, cuda or cuda:N" },
    { name: "threads", kind: "text", value: "N", help: "CPU threads, or auto" },
    { name: "cache-dtype", kind: "text", value: "T", help: "what the latent caches hold: auto (what activations are) or fp8" },
    { name: "fp8-activations", kind: "flag", help: "GPU, fp8: quantise the inputs of products too" },
    { name: "no-batch-invariant", kind: "flag", help: "GPU: permit results that depend on the batch" },
    { name: "svg", kind: "text", value: "FILE", help: "write a chart of the operations' times beside their floors" },
    JSON_FLAG,
  ],
  maxPositionals: 0,
  run: async (flags) => {
    await bench(flags);
    return undefined;
  },
};

async function planOf(flags: ParsedFlags): Promise<LayerPlan & { ranks: number }> {
  const device = deviceName(flags, "auto");
  const ranks = ranksOf(flags, device, 1, 1);
  const kind = (await meansGpu(device)) ? "gpu" : "cpu";
  const prompts = numbers(flags, "prompt", "", 1, 65536);
  const rows = { ...randomModel(flags, kind === "gpu"), expertRows: expertRowsOf(flags), queries: queriesOf(flags) };
  checkRankFlags(flags, ranks);
  const plan: LayerPlan & { ranks: number } = {
    ...{
      ...rows,
      ranks,
      exchange: exchangeOf(flags),
      fp8Dispatch: oneOf(flags, "dispatch-dtype", ["auto", "fp8"] as const, "auto") === "fp8",
    },
    ...{ batches: batchesOf(flags, rows, prompts.length > 0 ? "" : DEFAULT_BATCHES[kind]), prompts },
    context: numberOr(flags, "context", 0, 1_000_000, DEFAULT_CONTEXT[kind]),
    layers: numberOr(flags, "layers", 1, 64, DEFAULT_LAYERS[kind]),
    samples: numberOr(flags, "samples", 1, 100, DEFAULT_SAMPLES),
    cacheDType: oneOf<"auto" | "fp8">(flags, "cache-dtype", ["auto", "fp8"], "auto"),
    ...{ device, threads: threadsOf(flags), fp8Activations: flags.on("fp8-activations"), batchInvariant: !flags.on("no-batch-invariant") },
  };
  if (ranks > 1) checkLayerRanks(plan, ranks, kind === "gpu" ? "cuda" : "cpu");
  return plan;
}

/** The batches asked for; else, of those that are usual, the ones that can be measured. */
function batchesOf(flags: ParsedFlags, rows: Parameters<typeof batchesFor>[0], usual: string): number[] {
  const batches = numbers(flags, "batch", usual, 1, 1024);
  return flags.text("batch") !== undefined || batches.length === 0 ? batches : batchesFor(rows, batches);
}

function queriesOf(flags: ParsedFlags): number {
  const queries = numberOr(flags, "queries", 1, MAX_QUERIES, 1);
  if (queries > 1 && flags.text("prompt") !== undefined && flags.text("batch") === undefined)
    throw new UsageError("--queries are rows of decode steps, and --prompt measures prompts; give --batch too");
  return queries;
}

function checkRankFlags(flags: ParsedFlags, ranks: number): void {
  const idle = ["exchange", "dispatch-dtype"].find((name) => flags.text(name) !== undefined);
  if (ranks === 1 && idle !== undefined) throw new UsageError(`--${idle} needs --ranks`);
  if (ranks > 1 && flags.text("expert-rows") !== undefined)
    throw new UsageError("--expert-rows stands for other ranks, and with --ranks they are there; give one of both");
}

function expertRowsOf(flags: ParsedFlags): number | undefined {
  const rows = numberOr(flags, "expert-rows", 1, 65536, undefined);
  if (rows !== undefined && flags.text("experts-held") === undefined) throw new UsageError("--expert-rows needs --experts-held");
  return rows;
}

async function bench(flags: ParsedFlags): Promise<void> {
  const plan = await planOf(flags);
  const svg = chartFile(flags);
  const json = flags.on("json");
  const report = benchReport<LayerFacts, LayerResult>(json, describeFacts, describe);
  if (plan.ranks > 1) noteLauncher();
  await interruptible((signal) =>
    plan.ranks === 1
      ? benchLayer({ ...plan, signal }, report)
      : runRanks("layer", plan.ranks, { ...plan, signal }, (value) =>
          "loaded" in value ? report.loaded(value.loaded) : void report.measured(value.measured),
        ),
  );
  if (json) await printJson({ ...report.facts, samples: plan.samples, results: report.results });
  writeChart(svg, () => layerChart(`a layer of ${plan.shape}, ${plan.dtype}`, report.results));
}

function describeFacts(f: LayerFacts): void {
  note(
    `a layer of ${f.shape} on ${describeWhere(f)}: ${f.dtype} matrices, ${f.activations} activations, ${f.cacheDType} latent caches, ${f.layers} layers in turn, ${formatBytes(f.memoryBytes)} allocated${f.ranks > 1 ? `; rank 0 of ${f.ranks}, ${f.expertsHeld} of ${f.experts} experts each, exchange ${f.exchange}` : ""}`,
  );
  for (const line of f.notes) note(line);
}

/** Aligned lines: one an operation, then the whole. */
function describe(r: LayerResult): string {
  const title =
    r.kind === "decode"
      ? `decode, batch ${r.batch}${r.queries > 1 ? ` × ${r.queries} queries` : ""}, context ${r.context}`
      : `prompt of ${r.rows} tokens`;
  const use = `${r.ffnExpertsPerToken.toFixed(1)} experts/token, ${r.distinctExperts} distinct; ceiling ${cell(r.bytesPerSecondCeiling / 1e9, 0, 1)} GB/s`;
  const line = (name: string, us: number, bytes: number, flops: number, share: number) =>
    `${name.padEnd(38)} ${cell(us, 10, 2)} µs  ${cell(bytes / us / 1e3, 8, 1)} GB/s  ${cell(flops / us / 1e6, 8, 3)} TFLOP/s  ${cell(100 * share, 6, 1)} %`;
  const rows = r.operations.map(({ op, part, us, bytes, flops, shareOfFloor }) => line(`${op}, ${part}`, us, bytes, flops, shareOfFloor));
  const whole = (name: string, us: number) => line(name, us, r.bytes, r.flops, r.floorUs / us);
  return `${[
    `${title}: ${use}`,
    ...rows,
    whole("sum", r.sumUs),
    whole("whole, one branch after the other", r.serialUs),
    whole("whole, both branches at once", r.overlapUs),
    ...(r.exchange ? describeExchange(r.exchange) : []),
  ].join("\n")}\n`;
}

/** What the exchange between ranks takes, and how much of it the layer waits for. */
function describeExchange({ us, serialWithoutUs, overlapWithoutUs, exposedUs, shareOfExchange, shareOfLayer }: ExchangeShare): string[] {
  const line = (name: string, time: number) => `${name.padEnd(38)} ${cell(time, 10, 2)} µs`;
  const shares = `${(100 * shareOfExchange).toFixed(1)} % of the exchange, ${(100 * shareOfLayer).toFixed(1)} % of the layer`;
  return [
    line("exchange alone, dispatch and combine", us),
    line("without it, one branch after the other", serialWithoutUs),
    line("without it, both branches at once", overlapWithoutUs),
    `${line("exposed, both branches at once", exposedUs)}: ${shares}`,
  ];
}
