/**
 * Decoding measured beside the least time that this machine's memory and arithmetic allow (bench/README.md says how). Looks below the
 * engine, at runner, weights and routing: what `longcat bench decode` prints.
 * @module
 */

import type { ModelConfig } from "../model/config.js";
import { decodeStepCost, type WeightCost } from "../model/cost.js";
import type { Runner } from "../model/runner.js";
import type { StepResult } from "../model/runner-types.js";
import { BLOCK_SIZE } from "../model/sizing.js";
import { trace } from "../model/trace.js";
import { LongcatError } from "../errors.js";
import { abortIfAsked, CeilingMeter, floorSeconds, median, TokenSource } from "./bench-device.js";
import { routingOf } from "./bench-layer.js";
import { type BenchFacts, type BenchModel, type BenchSource, fillSlots, checkBatches, openBenchModel } from "./bench-model.js";
import { Engine } from "./engine.js";
import { resolveOptions } from "./options.js";
import { leadSteps, SteadyMeter } from "./steady-decode.js";
import type { EngineInfo } from "./types.js";

/** What to measure. */
export interface DecodePlan {
  batches: readonly number[];
  /** Tokens to generate in each row. */
  tokens: number;
  /** Runs, of which the median counts. */
  runs: number;
  /** Tokens of each prompt. */
  context: number;
}

/** Called as the measurement goes on. */
export interface DecodeReport {
  /** The model is there. */
  loaded(facts: BenchFacts): void;
  /** One batch size is done. */
  measured(result: DecodeResult): Promise<void>;
}

/** One batch size, measured. */
export interface DecodeResult {
  batch: number;
  /** All rows together, through `Engine.generate`, while all of them decode; the median of the runs. */
  tokensPerSecond: number;
  stepMs: number;
  /** The same through the runner alone, with two steps under way as the engine has them. */
  runnerTokensPerSecond: number;
  runnerStepUs: number;
  bytesPerStep: number;
  flopsPerStep: number;
  /** CPU: read over a buffer as large as a step's bytes. GPU: moved by a copy of 1 GiB. */
  readBytesPerSecond: number;
  /** Null on a GPU, whose floor is its memory's alone. */
  flopsPerSecond: number | null;
  floorMs: number;
  /** floorMs ÷ stepMs: 1 is the floor itself. */
  shareOfFloor: number;
  /** The same for the runner's steps. */
  runnerShareOfFloor: number;
  ffnExpertsPerToken: number;
  distinctExperts: number;
}

/** How much routing a run used, in one layer on average. */
interface RoutingUse {
  ffnExpertsPerToken: number;
  distinctExperts: number;
}

/** A model, with what is asked of it. */
interface Bench extends BenchModel {
  plan: DecodePlan;
  meter: CeilingMeter;
  signal: AbortSignal | undefined;
}

/**
 * Decodes batches of random prompts, end tokens ignored.
 *
 * @throws LongcatError as `Engine.load`, `openRandomModel` and `generate` do; `OPTION_INVALID` for a plan whose rows do not fit the context, or do
 * not run together
 */
export async function benchDecode(source: BenchSource, plan: DecodePlan, report: DecodeReport): Promise<void> {
  const largest = Math.max(...plan.batches);
  const { maxBatchTokens } = resolveOptions({ ...source.options, device: null, dtype: null });
  const contextLength = lengthOf(plan, largest, maxBatchTokens) + BLOCK_SIZE; // see checkPlan
  const meter = await CeilingMeter.of(source.device);
  const model = await openBenchModel(source, { maxSequences: largest, contextLength });
  const engine = Engine.fromParts(model.parts);
  try {
    checkPlan(plan, engine.info);
    report.loaded(model.facts());
    const bench = { ...model, plan, meter, signal: source.signal };
    for (const batch of plan.batches) {
      const { tokensPerSecond, rows } = await timeDecode(engine, bench, batch);
      const runnerTokensPerSecond = batch / (await timeRunner(bench, batch));
      const use = model.random ? await sampleRouting(bench, batch) : await routingUse(bench, rows);
      await report.measured(besideFloor(bench, { batch, tokensPerSecond, runnerTokensPerSecond, use }));
    }
  } finally {
    await engine.close();
  }
}

/** Tokens of a row of a batch, its prompt's and those counted that it gets while others' prompts still run. */
function lengthOf({ context, tokens }: DecodePlan, batch: number, maxBatchTokens: number): number {
  return context + leadSteps(batch, context, maxBatchTokens) + tokens;
}

/** What was not measured must not be reported: a row that would end early, a batch whose rows would wait for one another. */
function checkPlan(plan: DecodePlan, info: EngineInfo): void {
  const { contextLength, maxBatchTokens } = info;
  const { batches, tokens, context } = plan;
  const length = lengthOf(plan, Math.max(...batches), maxBatchTokens);
  // A step to time needs two tokens: the first comes from the prompt's own step.
  if (context + 2 > contextLength)
    throw new LongcatError(
      "OPTION_INVALID",
      `context: prompts of ${context} leave no room for tokens in a context of ${contextLength} (of the model, or what cacheBytes allows); at most ${contextLength - 2} are accepted`,
    );
  if (length > contextLength)
    throw new LongcatError(
      "OPTION_INVALID",
      `tokens: ${tokens} after a prompt of ${context} is more than the context of ${contextLength}; at most ${contextLength - (length - tokens)} are accepted`,
    );
  checkBatches(info, batches, length);
}

/** Different prompts, the same in each run of the program. */
function prompts(batch: number, length: number): { tokens: number[] }[] {
  const source = new TokenSource();
  return Array.from({ length: batch }, () => ({ tokens: source.take(length) }));
}

/** Tokens a second of the whole batch, and the token ids of its rows. The first run warms up and does not count. */
async function timeDecode(engine: Engine, { plan, signal }: Bench, batch: number) {
  const { tokens, runs, context } = plan;
  const batchPrompts = prompts(batch, context);
  const maxTokens = leadSteps(batch, context, engine.info.maxBatchTokens) + tokens;
  const speeds: number[] = [];
  let rows: number[][] = [];
  for (let run = 0; run <= runs; run++) {
    const steady = new SteadyMeter(batch);
    const results = await engine.generate(batchPrompts, { maxTokens, ignoreEos: true, temperature: 1, seed: 1, signal }, steady.onChunk);
    if (steady.tokensPerSecond === undefined) throw new LongcatError("INTERNAL", `no step had all ${batch} rows`);
    if (run > 0) speeds.push(steady.tokensPerSecond);
    rows = results.map((result, i) => [...(batchPrompts[i]?.tokens ?? []), ...result.tokens.slice(0, tokens)]);
  }
  return { tokensPerSecond: median(speeds), rows };
}

/** Seconds of a decode step of the runner, the engine standing still. The first run warms up and does not count. */
async function timeRunner({ runner, plan, signal }: Bench, batch: number): Promise<number> {
  await fillSlots(runner, prompts(batch, plan.context), plan.tokens);
  const steps = plan.tokens - 1;
  const seconds: number[] = [];
  for (let run = 0; run <= plan.runs; run++) {
    abortIfAsked(signal);
    await rewind(runner, batch, plan.context);
    const start = performance.now();
    let before: Promise<StepResult[]> | undefined;
    for (let i = 0; i < steps; i++) {
      await runner.room();
      const step = runner.launch(decodeStep(batch, plan.context + i));
      await before;
      before = step;
    }
    await before;
    if (run > 0) seconds.push((performance.now() - start) / 1000 / steps);
  }
  return median(seconds);
}

/** Lets the slots 0 … batch − 1 go on from one position. */
async function rewind(runner: Runner, batch: number, position: number): Promise<void> {
  for (let slot = 0; slot < batch; slot++) {
    await runner.room();
    runner.rewind(slot, position);
  }
}

/** A step of the slots 0 … batch − 1, all at one position. */
function decodeStep(batch: number, position: number) {
  return Array.from({ length: batch }, (_, slot) => ({ slot, position, tokens: null, sample: true }));
}

/** Steps that `sampleRouting` looks at. */
const ROUTING_STEPS = 4;

/** What the last layer chose in a few more steps of the slots that `timeRunner` left. */
async function sampleRouting({ runner, plan }: Bench, batch: number): Promise<RoutingUse> {
  const { program } = runner.decodeProgram(batch);
  const sum = { ffnExpertsPerToken: 0, distinctExperts: 0 };
  const steps = Math.min(ROUTING_STEPS, plan.tokens - 1);
  await rewind(runner, batch, plan.context);
  for (let i = 0; i < steps; i++) {
    await runner.step(decodeStep(batch, plan.context + i));
    const { ffnExpertsPerToken, distinctExperts } = await routingOf(runner.queue, program, batch);
    sum.ffnExpertsPerToken += ffnExpertsPerToken / steps;
    sum.distinctExperts += distinctExperts / steps;
  }
  return sum;
}

/** Runs the rows once more as prompts and counts the experts that their decode steps used, in every layer. */
async function routingUse({ runner, config, plan, signal }: Bench, rows: number[][]): Promise<RoutingUse> {
  // step and layer → experts used by any row
  const used = new Map<string, Set<number>>();
  let picks = 0;
  for (const row of rows) {
    abortIfAsked(signal);
    const { routing } = await trace(runner, row);
    for (const [layer, { ids }] of routing.entries())
      for (let position = plan.context; position < row.length - 1; position++) {
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
}

function besideFloor(
  { runner, config, cost, plan, meter }: Bench & { config: ModelConfig; cost: WeightCost },
  run: { batch: number; tokensPerSecond: number; runnerTokensPerSecond: number; use: RoutingUse },
): DecodeResult {
  const { batch, tokensPerSecond, runnerTokensPerSecond, use } = run;
  const { cacheDType, device } = runner;
  const step = decodeStepCost(config, cost, { batch, context: plan.context + plan.tokens / 2, cacheDType, ...use });
  const ceilings = meter.ceilings(device.threads, step.bytes);
  const floorMs = 1000 * floorSeconds(step, ceilings);
  const stepMs = (1000 * batch) / tokensPerSecond;
  const runnerStepUs = (1e6 * batch) / runnerTokensPerSecond;
  return {
    ...{ batch, tokensPerSecond, stepMs, runnerTokensPerSecond, runnerStepUs },
    ...{ bytesPerStep: Math.round(step.bytes), flopsPerStep: Math.round(step.flops) },
    ...{ readBytesPerSecond: ceilings.bytesPerSecond, flopsPerSecond: ceilings.flopsPerSecond },
    ...{ floorMs, shareOfFloor: floorMs / stepMs, runnerShareOfFloor: (1000 * floorMs) / runnerStepUs, ...use },
  };
}
