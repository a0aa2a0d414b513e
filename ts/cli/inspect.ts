/**
 * `longcat inspect model | devices | estimate`: look at checkpoints and machines before anything is loaded.
 * @module
 */

import {
  diagnose,
  type EngineOptions,
  type EstimateOptions,
  inspect,
  listDevices,
  type MemoryEstimate,
  type ParallelEstimate,
} from "../index.js";
import { type Command, JSON_FLAG } from "./command.js";
import { PARALLEL_FLAGS, parallelOptions, SPECULATIVE_FLAG, speculative } from "./engine-flags.js";
import type { Flag } from "./flags.js";
import { alignColumns, formatBytes, note, print, printJson } from "./output.js";

const UNKNOWN_TENSORS_FLAG: Flag = { name: "allow-unknown-tensors", kind: "flag", help: "accept tensors unknown to this version" };

export const inspectModelCommand: Command = {
  usage: ["inspect model [DIR] [--json]"],
  about: "Checks a checkpoint folder and says what it holds, from config.json and the headers of its files; no weight is read.",
  flags: [UNKNOWN_TENSORS_FLAG, JSON_FLAG],
  maxPositionals: 1,
  run: async (flags) => {
    const description = await inspect.model(flags.positionals[0], { allowUnknownTensors: flags.on("allow-unknown-tensors") });
    if (flags.on("json")) await printJson(description);
    else await print(`${alignColumns(Object.entries(flatten(description)).map(([name, value]) => [name, value]))}\n`);
    return undefined;
  },
};

/** Nested records as dotted names; lists as they are written. */
function flatten(value: object, prefix = ""): Record<string, string> {
  const lines: Record<string, string> = {};
  for (const [name, entry] of Object.entries(value)) {
    if (entry === undefined) continue;
    if (typeof entry === "object" && entry !== null && !Array.isArray(entry)) Object.assign(lines, flatten(entry, `${prefix}${name}.`));
    else lines[prefix + name] = typeof entry === "number" && /bytes$/i.test(name) ? `${entry} (${formatBytes(entry)})` : format(entry);
  }
  return lines;
}

function format(entry: unknown): string {
  return typeof entry === "string" ? entry : JSON.stringify(entry);
}

export const inspectDevicesCommand: Command = {
  usage: ["inspect devices [--json]"],
  about: "Lists the devices that a model can run on: the processor, and the GPUs. Where there is no GPU, standard error says why.",
  flags: [JSON_FLAG],
  maxPositionals: 0,
  run: async (flags) => {
    const gpus = await listDevices();
    const devices = [await inspect.processor(), ...gpus];
    if (flags.on("json")) await printJson(devices);
    else await print(`${devices.map((device) => alignColumns(Object.entries(flatten(device)))).join("\n\n")}\n`);
    if (gpus.length === 0) {
      const { findings } = await diagnose();
      note(`GPU: ${findings.find(({ name }) => name === "GPU")?.detail ?? "none"}`);
    }
    return undefined;
  },
};

export const inspectEstimateCommand: Command = {
  usage: [
    "inspect estimate [DIR] [--device D] [--dtype T] [--cache-dtype T] [--speculative S] [--context N] [--batch N] [--ranks R] [--json]",
    "inspect estimate --shape flash|lite|mini [--dtype bfloat16|fp8|float32] …",
  ],
  about:
    "Says how many bytes weights, latent cache and scratch will take and what fits into the memory that is free now. Nothing is loaded.\n" +
    "With --ranks it says so of one rank, and what an exchange moves; for LongCat-Flash on GPUs also how long a decode step should take, its sequences\n" +
    "as many as --batch a rank and --context long: by the arithmetic of docs/parallel.md, from parts that were measured on an H100.",
  flags: [
    { name: "shape", kind: "text", value: "NAME", help: "instead of a folder, a model of the sizes of flash, lite or mini" },
    { name: "device", kind: "text", value: "D", help: "auto, cpu, cuda or cuda:N; a GPU need not be there" },
    {
      name: "dtype",
      kind: "text",
      value: "T",
      help: "weights: auto (as stored), bfloat16 or float32; with --shape bfloat16 (default), fp8 or float32",
    },
    { name: "cache-dtype", kind: "text", value: "T", help: "what the latent cache holds: auto (what activations are) or fp8" },
    { name: "ngram", kind: "text", value: "N", help: "n-gram tables: auto, host or device" },
    SPECULATIVE_FLAG,
    { name: "context", kind: "number", value: "N", help: "tokens of each sequence (default: the model's context)" },
    { name: "batch", kind: "number", value: "N", help: "sequences at once (default 1)" },
    { name: "max-batch-tokens", kind: "number", value: "N", help: "tokens of one step (default 4096)" },
    ...PARALLEL_FLAGS,
    UNKNOWN_TENSORS_FLAG,
    JSON_FLAG,
  ],
  maxPositionals: 1,
  run: async (flags) => {
    const estimate = await inspect.estimate(flags.positionals[0], {
      shape: flags.text("shape") as EstimateOptions["shape"],
      device: flags.text("device") as EngineOptions["device"],
      dtype: flags.text("dtype") as EstimateOptions["dtype"],
      cacheDType: flags.text("cache-dtype") as EngineOptions["cacheDType"],
      ngram: flags.text("ngram") as EngineOptions["ngram"],
      speculative: speculative(flags),
      context: flags.number("context"),
      batch: flags.number("batch"),
      maxBatchTokens: flags.number("max-batch-tokens"),
      allowUnknownTensors: flags.on("allow-unknown-tensors"),
      parallel: parallelOptions(flags),
    });
    if (flags.on("json")) await printJson(estimate);
    else await printEstimate(estimate);
    return undefined;
  },
};

async function printEstimate(estimate: MemoryEstimate): Promise<void> {
  const { context, batch, device, ngram, availableBytes } = estimate;
  const line = (name: string, bytes: number) => [name, bytes, formatBytes(bytes)];
  const beside = estimate.cacheBytes + estimate.stateBytes + estimate.scratchBytes + estimate.windowBytes + estimate.convertedBytes;
  const onDevice = device === "cuda" && ngram === "device" ? estimate.ngramBytes : 0;
  const tables = device === "cpu" ? "stay mapped" : ngram === "device" ? "on the GPU" : "in host memory";
  const rows = [
    line("weights", estimate.totalBytes - beside - onDevice),
    ...(estimate.ngramBytes > 0 ? [line(`n-gram tables (${tables})`, estimate.ngramBytes)] : []),
    ...(estimate.convertedBytes > 0 ? [line("weights, converted", estimate.convertedBytes)] : []),
    line("cache, one token", estimate.cacheBytesPerToken),
    line(`cache, ${batch} × ${context} tokens`, estimate.cacheBytes),
    line("state", estimate.stateBytes),
    line("scratch", estimate.scratchBytes),
    ...(estimate.windowBytes > 0 ? [line("window of the exchange", estimate.windowBytes)] : []),
    line("in all", estimate.totalBytes),
    ...(availableBytes === null ? [] : [line("free now", availableBytes)]),
  ];
  await print(`${alignColumns(rows)}\n`);
  if (estimate.parallel) await print(describeParallel(estimate.parallel, batch));
  if (estimate.fits === null) return note("Whether it fits is not known: that GPU is not here.");
  await print(`${estimate.fits ? "It fits" : "It does not fit"}: room for ${estimate.maxCachedTokens} cached tokens beside the rest.\n`);
  if (!estimate.fits) note("warning: more memory is needed than is free now");
}

function describeParallel({ ranks, expertsHeld, exchange, step }: ParallelEstimate, batch: number): string {
  const { hostRows, networkRows } = exchange;
  const sent = (bytes: number) => `${(hostRows + networkRows).toFixed(1)} rows, ${formatBytes(Math.round(bytes))}`;
  const us = (time: number) => `${time.toFixed(1)} µs`;
  const rows = [
    ["dispatch, sent and received", sent(exchange.dispatchBytes)],
    ["combine", sent(exchange.combineBytes)],
  ];
  if (step) {
    const { layer } = step;
    rows.push(
      ["attention 0, router", us(layer.firstUs)],
      ["FFN 0, projections 1", `${us(layer.secondUs)}, beside dispatch of ${us(layer.dispatchUs)}`],
      ["experts", us(layer.expertsUs)],
      ["attention 1, FFN 1", `${us(layer.fourthUs)}, beside combine of ${us(layer.combineUs)}`],
      ["exchange, exposed", us(layer.exposedUs)],
      ["layer", us(layer.layerUs)],
      ["step", `${step.stepMs.toFixed(2)} ms`],
      [
        "tokens/s",
        `${step.tokensPerSecond.toFixed(1)} a sequence, ${step.rankTokensPerSecond.toFixed(0)} a rank, ${step.allTokensPerSecond.toFixed(0)} in all`,
      ],
    );
  }
  const title = `One of ${ranks} ranks, ${expertsHeld} experts of each layer; a layer of a decode step of ${batch} tokens a rank:`;
  const unknown = step ? "" : "How long it takes is not known: parts were measured of LongCat-Flash on GPUs alone.\n";
  return `${title}\n${alignColumns(rows)}\n${unknown}`;
}
