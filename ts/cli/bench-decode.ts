/**
 * `longcat bench decode`: tokens a second beside the least time that this machine's memory and arithmetic allow, measured in the same run.
 * @module
 */

import { Engine } from "../index.js";
import { openCheckpoint } from "../model/checkpoint.js";
import { decodeStepCost, type WeightCost, weightCost } from "../model/cost.js";
import { openModel } from "../model/open.js";
import { trace } from "../model/trace.js";
import { measure } from "../runtime/addon.js";
import { type Command, JSON_FLAG } from "./command.js";
import { ENGINE_FLAGS, engineOptions, modelFolder } from "./engine-flags.js";
import { type ParsedFlags, parseNumber, UsageError } from "./flags.js";
import { interruptible } from "./interrupt.js";
import { note, print, printJson } from "./output.js";

const PROMPT_TOKENS = 32;
const DEFAULT_TOKENS = 128;
const DEFAULT_RUNS = 5;
/** Prompts are drawn from these ids: ordinary tokens of any tokenizer, padding of none that is known. */
const [FIRST_ID, LAST_ID] = [20, 1000];

/** One batch size, measured. */
interface DecodeResult {
  batch: number;
  /** All rows together; the median of the runs. */
  tokensPerSecond: number;
  stepMs: number;
  bytesPerStep: number;
  flopsPerStep: number;
  /** Read over a buffer as large as a step's bytes. */
  readBytesPerSecond: number;
  flopsPerSecond: number;
  floorMs: number;
  /** floorMs ÷ stepMs: 1 is the floor itself. */
  shareOfFloor: number;
  ffnExpertsPerToken: number;
  distinctExperts: number;
}

/** How much routing a run used, in one layer on average. */
interface RoutingUse {
  ffnExpertsPerToken: number;
  distinctExperts: number;
}

export const benchDecodeCommand: Command = {
  usage: ["bench decode [--model DIR] [--batch 1,16] [--tokens N] [--runs N] [--json]"],
  about:
    "Decodes batches of random prompts, end tokens ignored, and prints tokens/s beside the floor: the larger of bytes touched ÷ read bandwidth\n" +
    "(over a buffer of that size) and flops ÷ peak, both measured here and now. Experts are counted as the run's own routing used them.",
  flags: [
    { name: "batch", kind: "ids", value: "1,16", help: "batch sizes" },
    { name: "tokens", kind: "number", value: "N", help: `tokens to generate in each row (default ${DEFAULT_TOKENS})` },
    { name: "runs", kind: "number", value: "N", help: `runs, of which the median counts (default ${DEFAULT_RUNS})` },
    ...ENGINE_FLAGS,
    JSON_FLAG,
  ],
  maxPositionals: 0,
  run: async (flags) => {
    const batches = wholeNumbers(flags, "batch", "1,16", 1, 1024);
    const [tokens = DEFAULT_TOKENS] = wholeNumbers(flags, "tokens", String(DEFAULT_TOKENS), 2, 65536);
    const [runs = DEFAULT_RUNS] = wholeNumbers(flags, "runs", String(DEFAULT_RUNS), 1, 100);
    await interruptible((signal) => bench(flags, batches, tokens, runs, signal));
    return undefined;
  },
};

function wholeNumbers(flags: ParsedFlags, name: string, otherwise: string, min: number, max: number): number[] {
  const numbers = (flags.text(name) ?? otherwise).split(",").map((part) => parseNumber(`--${name}`, part.trim()));
  for (const value of numbers)
    if (!Number.isInteger(value) || value < min || value > max)
      throw new UsageError(`--${name}: ${value} is not a whole number from ${min} to ${max}`);
  return numbers;
}

async function bench(flags: ParsedFlags, batches: number[], tokens: number, runs: number, signal: AbortSignal): Promise<void> {
  const directory = modelFolder(flags);
  const checkpoint = await openCheckpoint(directory, { allowUnknownTensors: flags.on("allow-unknown-tensors") });
  const { config } = checkpoint;
  const weights = weightCost(checkpoint);
  checkpoint.close();
  const json = flags.on("json");
  const engine = await Engine.load(directory, { maxSequences: Math.max(...batches), ...withoutAbsent(engineOptions(flags)), signal });
  const { device, threads, isa } = engine.info;
  try {
    if (!json) {
      note(`decode on ${device} (${threads} threads, ${isa}): ${tokens} tokens after a prompt of ${PROMPT_TOKENS}, median of ${runs} runs`);
      note("floor = max(bytes a step touches ÷ read bandwidth over a buffer of that size, flops ÷ peak), measured beside the run");
    }
    const results: DecodeResult[] = [];
    for (const batch of batches) {
      const { tokensPerSecond, rows } = await timeDecode(engine, batch, tokens, runs, signal);
      const use = await routingUse(directory, rows, threads, flags.on("allow-unknown-tensors"));
      const result = besideFloor(config, weights, { batch, tokensPerSecond, context: PROMPT_TOKENS + tokens / 2, threads, use });
      results.push(result);
      if (!json) await print(`${describe(result)}\n`);
    }
    if (json) await printJson({ model: directory, device, threads, isa, promptTokens: PROMPT_TOKENS, tokens, runs, results });
  } finally {
    await engine.close();
  }
}

function withoutAbsent<T extends object>(values: T): Partial<T> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as Partial<T>;
}

/** Different prompts, the same in each run of the program. */
function prompts(batch: number): { tokens: number[] }[] {
  let state = 12345;
  const next = () => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return FIRST_ID + ((state >>> 8) % (LAST_ID - FIRST_ID));
  };
  return Array.from({ length: batch }, () => ({ tokens: Array.from({ length: PROMPT_TOKENS }, next) }));
}

/** Tokens a second of the whole batch, and the token ids of its rows. The first run warms up and does not count. */
async function timeDecode(engine: Engine, batch: number, tokens: number, runs: number, signal: AbortSignal) {
  const batchPrompts = prompts(batch);
  const speeds: number[] = [];
  let rows: number[][] = [];
  for (let run = 0; run <= runs; run++) {
    const results = await engine.generate(batchPrompts, { maxTokens: tokens, ignoreEos: true, temperature: 1, seed: 1, signal });
    const speed = results.reduce((sum, result) => sum + result.timings.tokensPerSecond, 0);
    if (run > 0) speeds.push(speed);
    rows = results.map((result, i) => [...(batchPrompts[i]?.tokens ?? []), ...result.tokens]);
  }
  speeds.sort((a, b) => a - b);
  return { tokensPerSecond: speeds[speeds.length >> 1] ?? 0, rows };
}

/** Runs the rows once more as prompts and counts the experts that their decode steps used. */
async function routingUse(directory: string, rows: number[][], threads: number, allowUnknownTensors: boolean): Promise<RoutingUse> {
  const length = Math.max(...rows.map((row) => row.length));
  const model = await openModel(directory, {
    ...{ device: "cpu", dtype: "auto", threads, debug: "off", allowUnknownTensors, onWarning: () => undefined },
    ...{ maxSequences: 1, maxBatchTokens: length, cacheBytes: "auto" },
  });
  try {
    const { config } = model.checkpoint;
    // step and layer → experts used by any row
    const used = new Map<string, Set<number>>();
    let picks = 0;
    for (const row of rows) {
      const { routing } = await trace(model.runner, row);
      for (const [layer, { ids }] of routing.entries())
        for (let position = PROMPT_TOKENS; position < row.length - 1; position++) {
          const key = `${layer} ${position}`;
          const experts = used.get(key) ?? new Set();
          used.set(key, experts);
          for (const id of ids.subarray(position * config.topK, (position + 1) * config.topK)) {
            if (id >= config.numExperts) continue;
            experts.add(id);
            picks++;
          }
        }
    }
    const steps = Math.max(1, used.size);
    const distinct = [...used.values()].reduce((sum, experts) => sum + experts.size, 0);
    return { ffnExpertsPerToken: picks / steps / rows.length, distinctExperts: distinct / steps };
  } finally {
    await model.close();
  }
}

function besideFloor(
  config: Parameters<typeof decodeStepCost>[0],
  weights: WeightCost,
  run: { batch: number; tokensPerSecond: number; context: number; threads: number; use: RoutingUse },
): DecodeResult {
  const { batch, tokensPerSecond, context, threads, use } = run;
  const { bytes, flops } = decodeStepCost(config, weights, { batch, context, ...use });
  const { readBytesPerSecond, flopsPerSecond } = measure(threads, Math.ceil(bytes));
  const floorMs = 1000 * Math.max(bytes / readBytesPerSecond, flops / flopsPerSecond);
  const stepMs = (1000 * batch) / tokensPerSecond;
  return {
    ...{ batch, tokensPerSecond, stepMs, bytesPerStep: Math.round(bytes), flopsPerStep: Math.round(flops) },
    ...{ readBytesPerSecond, flopsPerSecond, floorMs, shareOfFloor: floorMs / stepMs, ...use },
  };
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
    `${cell(100 * r.shareOfFloor, 5, 1)} % of the floor`,
    `${cell(r.ffnExpertsPerToken, 4, 1)} experts/token, ${cell(r.distinctExperts, 4, 1)} distinct`,
  ].join("  ");
}
