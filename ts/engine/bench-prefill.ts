/**
 * Prompts measured: tokens a second of their processing, through the runner. What `longcat bench prefill` prints.
 * @module
 */

import { LongcatError } from "../errors.js";
import type { ModelConfig } from "../model/config.js";
import { decodeStepCost, type WeightCost } from "../model/cost.js";
import type { Runner } from "../model/runner.js";
import { abortIfAsked, median, TokenSource } from "./bench-device.js";
import { type BenchFacts, type BenchSource, openBenchModel, takeSlot } from "./bench-model.js";

/** What to measure. */
export interface PrefillPlan {
  /** Lengths of prompts. */
  tokens: readonly number[];
  /** Runs, of which the median counts. */
  runs: number;
}

/** One length. */
export interface PrefillResult {
  tokens: number;
  /** Steps that it takes: prompts longer than a step's tokens run in chunks. */
  chunks: number;
  /** From the first step's launch until the next token is there. */
  ms: number;
  tokensPerSecond: number;
  /** Of matrices and attention; one row goes through the head. */
  flops: number;
  teraflops: number;
  ffnExpertsPerToken: number;
}

export interface PrefillReport {
  loaded(facts: BenchFacts & { maxBatchTokens: number }): void;
  measured(result: PrefillResult): Promise<void>;
}

/**
 * Runs one prompt of random tokens after another.
 *
 * @throws LongcatError as `Engine.load` and `openRandomModel` do; OPTION_INVALID for a prompt that is longer than the context; ABORTED
 */
export async function benchPrefill(source: BenchSource, plan: PrefillPlan, report: PrefillReport): Promise<void> {
  const longest = Math.max(...plan.tokens);
  const model = await openBenchModel(source, { maxSequences: 1, contextLength: longest });
  const { runner, config, cost, parts } = model;
  try {
    const { contextLength, maxBatchTokens } = runner.limits;
    if (longest > contextLength)
      throw new LongcatError("OPTION_INVALID", `tokens: ${longest} is more than the context of ${contextLength}`);
    report.loaded({ ...model.facts(), maxBatchTokens });
    for (const tokens of plan.tokens) {
      const { seconds, experts } = await timePrompt(runner, tokens, plan.runs, source.signal);
      const flops = prefillFlops(config, cost, tokens, experts);
      await report.measured({
        ...{ tokens, chunks: Math.ceil(tokens / maxBatchTokens), ms: 1000 * seconds, tokensPerSecond: tokens / seconds },
        ...{ flops: Math.round(flops), teraflops: flops / seconds / 1e12, ffnExpertsPerToken: experts },
      });
    }
  } finally {
    await parts.close();
  }
}

/** Seconds of a prompt, and how many FFN experts a token used in a layer. The first run warms up and does not count. */
async function timePrompt(runner: Runner, length: number, runs: number, signal: AbortSignal | undefined) {
  const { maxBatchTokens } = runner.limits;
  const tokens = new TokenSource().take(length);
  await takeSlot(runner, 0, length);
  const seconds: number[] = [];
  let picks = 0;
  for (let run = 0; run <= runs; run++) {
    abortIfAsked(signal);
    picks = 0;
    const start = performance.now();
    for (let position = 0; position < length; position += maxBatchTokens) {
      const chunk = tokens.slice(position, position + maxBatchTokens);
      const [result] = await runner.step([{ slot: 0, position, tokens: chunk, sample: position + chunk.length === length }]);
      for (const layers of result?.ffnExperts ?? []) for (const count of layers) picks += count;
    }
    if (run > 0) seconds.push((performance.now() - start) / 1000);
  }
  return { seconds: median(seconds), experts: picks / length / runner.config.numLayers };
}

/** As a decode step of so many rows would cost without attention; causal attention over keys and values that are expanded once. */
function prefillFlops(config: ModelConfig, cost: WeightCost, tokens: number, ffnExpertsPerToken: number): number {
  const { flops } = decodeStepCost(config, cost, { batch: tokens, context: 0, ffnExpertsPerToken, distinctExperts: config.numExperts });
  const head = 2 * (tokens - 1) * config.vocabSize * config.hiddenSize;
  const pairs = (tokens * (tokens + 1)) / 2;
  const widths = config.qkNopeHeadDim + config.qkRopeHeadDim + config.vHeadDim;
  return flops - head + 2 * config.numLayers * 2 * config.numHeads * pairs * widths;
}
