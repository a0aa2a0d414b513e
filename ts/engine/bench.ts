/**
 * Decoding measured beside the least time that this machine's memory and arithmetic allow (bench/README.md says how). Looks below the
 * engine, at weights and routing: what `longcat bench decode` prints.
 * @module
 */

import { type Checkpoint, openCheckpoint } from "../model/checkpoint.js";
import { decodeStepCost, type WeightCost, weightCost } from "../model/cost.js";
import { openModel } from "../model/open.js";
import { trace } from "../model/trace.js";
import { measure } from "../runtime/addon.js";
import { LongcatError } from "../errors.js";
import { Engine } from "./engine.js";
import { type EngineOptions, type ResolvedOptions, resolveOptions } from "./options.js";
import type { EngineInfo } from "./types.js";

/** Tokens of each prompt. */
export const PROMPT_TOKENS = 32;
/** Prompts are drawn from these ids: ordinary tokens of any tokenizer, padding of none that is known. */
const [FIRST_ID, LAST_ID] = [20, 1000];

/** What to measure. */
export interface DecodePlan {
  batches: readonly number[];
  /** Tokens to generate in each row. */
  tokens: number;
  /** Runs, of which the median counts. */
  runs: number;
}

/** Called as the measurement goes on. */
export interface DecodeReport {
  /** The checkpoint is loaded. */
  loaded(info: EngineInfo): void;
  /** One batch size is done. */
  measured(result: DecodeResult): Promise<void>;
}

/** One batch size, measured. */
export interface DecodeResult {
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

/**
 * Decodes batches of random prompts, end tokens ignored.
 *
 * @param directory Absent: the bundled checkpoint.
 * @param options The engine's; `maxSequences` is the largest batch if absent.
 * @throws LongcatError as `Engine.load` and `generate` do; `OPTION_INVALID` for a plan whose rows do not fit the context, or do not run together
 */
export async function benchDecode(
  directory: string | undefined,
  options: EngineOptions,
  plan: DecodePlan,
  report: DecodeReport,
): Promise<void> {
  const engine = await Engine.load(directory, { ...options, maxSequences: options.maxSequences ?? Math.max(...plan.batches) });
  const resolved = resolveOptions(options);
  try {
    const { info } = engine;
    checkPlan(plan, info);
    const { config, weights } = await costOf(info.directory, resolved);
    report.loaded(info);
    for (const batch of plan.batches) {
      const { tokensPerSecond, rows } = await timeDecode(engine, batch, plan, resolved.signal);
      const use = await routingUse(info, rows, resolved);
      const context = PROMPT_TOKENS + plan.tokens / 2;
      await report.measured(besideFloor(config, weights, { batch, tokensPerSecond, context, threads: info.threads, use }));
    }
  } finally {
    await engine.close();
  }
}

/** What was not measured must not be reported: a row that would end early, a batch whose rows would wait for one another. */
function checkPlan({ batches, tokens }: DecodePlan, { contextLength, maxSequences, cache }: EngineInfo): void {
  const length = PROMPT_TOKENS + tokens;
  if (length > contextLength)
    throw new LongcatError(
      "OPTION_INVALID",
      `tokens: ${tokens} after a prompt of ${PROMPT_TOKENS} is more than the context of ${contextLength}; at most ${contextLength - PROMPT_TOKENS} are accepted`,
    );
  const most = Math.min(maxSequences, Math.floor(cache.numBlocks / Math.ceil(length / cache.blockSize)));
  const tooLarge = batches.find((batch) => batch > most);
  if (tooLarge !== undefined)
    throw new LongcatError(
      "OPTION_INVALID",
      `batch: ${tooLarge} rows of ${length} tokens do not run at once; maxSequences and cacheBytes allow at most ${most}`,
    );
}

async function costOf(
  directory: string,
  { allowUnknownTensors, dtype }: Pick<ResolvedOptions, "allowUnknownTensors" | "dtype">,
): Promise<{ config: Checkpoint["config"]; weights: WeightCost }> {
  const checkpoint = await openCheckpoint(directory, { allowUnknownTensors });
  try {
    return { config: checkpoint.config, weights: weightCost(checkpoint, dtype) };
  } finally {
    checkpoint.close();
  }
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
async function timeDecode(engine: Engine, batch: number, { tokens, runs }: DecodePlan, signal: AbortSignal | undefined) {
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
async function routingUse({ directory, threads }: EngineInfo, rows: number[][], options: ResolvedOptions): Promise<RoutingUse> {
  const length = Math.max(...rows.map((row) => row.length));
  const model = await openModel(directory, {
    ...{ device: options.device, dtype: options.dtype, allowUnknownTensors: options.allowUnknownTensors },
    ...{ threads, debug: "off", onWarning: () => undefined, maxSequences: 1, maxBatchTokens: length, cacheBytes: "auto" },
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
  config: Checkpoint["config"],
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
