/**
 * Speculative decoding measured: how many drafts are accepted by their number, and how much faster tokens come, beside what the formula
 * makes of the shares of accepted drafts and of verification and drafting timed apart. What `longcat bench speculate` prints.
 * @module
 */

import { LongcatError } from "../errors.js";
import type { DraftingWeights } from "../model/mtp.js";
import { BLOCK_SIZE } from "../model/sizing.js";
import { abortIfAsked, median, TokenSource } from "./bench-device.js";
import { type DraftCosts, timeDraftCosts } from "./bench-draft-costs.js";
import { type BenchFacts, type BenchModel, type BenchSource, checkBatches, openBenchModel } from "./bench-model.js";
import { Engine, type EngineParts } from "./engine.js";
import { MOST_AUTO_DRAFTS, MOST_DRAFTS } from "./options.js";
import { speedup, stepLength } from "./speculation.js";
import type { Chunk, EngineInfo, EngineStats, Prompt } from "./types.js";

/** What to measure. */
export interface SpeculatePlan {
  /** Numbers of drafts. */
  drafts: readonly number[];
  batches: readonly number[];
  /** Tokens of each answer at most, and of each row whose speed is measured. */
  tokens: number;
  temperature: number;
  runs: number;
  /** Empty: built-in ones. */
  prompts: readonly string[];
}

/** Called as the measurement goes on. */
export interface SpeculateReport {
  loaded(facts: BenchFacts): void;
  measured(result: AcceptanceResult | SpeedResult): Promise<void>;
}

/** How drafts fared in whole answers. */
export interface AcceptanceResult {
  kind: "acceptance";
  drafts: number;
  /** Steps of a sequence that verified drafts, and tokens that such a step drew on average: one more than were accepted. */
  draftedSteps: number;
  acceptedLength: number;
  /** By place in a step: of the drafts behind accepted ones only, the share that was accepted. */
  shares: number[];
}

/** The speed of rows that decode together, all of them from their first token on until one ends. Medians of the runs. */
export interface SpeedResult {
  kind: "speed";
  batch: number;
  /** "off" is the measure of the others; "auto" chooses as it goes. "off, alone": without steps launched ahead. */
  drafts: number | "off" | "auto" | "off, alone";
  tokensPerSecond: number;
  /** Beside "off". */
  measuredSpeedup: number;
  /**
   * MagicDec's formula, of nothing that the speeds were taken from: Ω by the shares of whole answers, T_V and T_D timed apart. Null for what
   * is not a number of drafts.
   */
  predictedSpeedup: number | null;
  /** Timed apart: T_V, of "off" T_T; and γ·T_D. Null where the number of drafts is not one. */
  verifyUs: number | null;
  draftUs: number | null;
  stepUs: number;
  /** stepUs beside that of "off". */
  cost: number;
  acceptedLength: number;
  /** Time between steps, of all the time: the device had nothing to do. */
  idleShare: number;
}

type Variant = SpeedResult["drafts"];

/** One run of one variant. */
interface Run {
  tokensPerSecond: number;
  stepUs: number;
  acceptedLength: number;
  idleShare: number;
}

/** With each row's answer, as token ids. */
interface TimedRun extends Run {
  rows: number[][];
}

/**
 * Answers prompts with each number of drafts, then times rows of each batch size.
 *
 * @throws LongcatError as `Engine.load` and `generate` do; `OPTION_INVALID` for a checkpoint without a draft head, for rows that do not fit the
 * context, or do not run together
 */
export async function benchSpeculate(source: BenchSource, plan: SpeculatePlan, report: SpeculateReport): Promise<void> {
  const model = await openBenchModel(source, {
    maxSequences: Math.max(...plan.batches, ANSWERS_AT_ONCE),
    contextLength: boundOf(plan),
    drafts: Math.max(...plan.drafts, MOST_AUTO_DRAFTS),
    smallCache: true,
  });
  try {
    await checkRows(model.parts, plan);
    report.loaded(model.facts());
    const { signal } = source;
    /** Shares of accepted drafts, by their number. */
    const shares = new Map<number, number[]>();
    for (const count of plan.drafts) {
      const result = await accepted(model.parts, plan, count, signal);
      shares.set(count, result.shares);
      await report.measured(result);
    }
    for (const batch of plan.batches) for (const result of await speeds(model, plan, batch, shares, signal)) await report.measured(result);
  } finally {
    await model.parts.close();
  }
}

/** Prompts that are answered together where acceptance is measured, and what a built-in one takes at most. */
const ANSWERS_AT_ONCE = 16;
const MOST_BUILT_IN = 256;

/** Behind a row's last token: the drafts that were made of it, and the steps that are timed apart (ts/engine/bench-draft-costs.ts). */
const ROOM_BEHIND = 2 * (MOST_DRAFTS + 1);

/** Tokens of a row at most, before there is a tokenizer: no token is shorter than a byte. A block more, see `checkBatches`. */
function boundOf({ prompts, tokens }: SpeculatePlan): number {
  return Math.max(MOST_BUILT_IN, ...prompts.map((text) => Buffer.byteLength(text))) + tokens + ROOM_BEHIND + BLOCK_SIZE;
}

/** Refuses rows that end early for want of context, or do not run at once. */
async function checkRows(parts: EngineParts, { prompts, tokens, batches }: SpeculatePlan): Promise<void> {
  const engine = variantOf(parts, "off");
  const texts = timedTexts(engine.info, prompts, Math.max(...batches));
  const longest = Math.max(...(await Promise.all(texts.map((text) => engine.tokenize(text)))).map(({ length }) => length));
  const { contextLength } = engine.info;
  const length = longest + tokens + ROOM_BEHIND;
  if (length > contextLength)
    throw new LongcatError(
      "OPTION_INVALID",
      `tokens: ${tokens} after a prompt of ${longest} is more than the context of ${contextLength} (of the model, or what cacheBytes allows); at most ${contextLength - longest - ROOM_BEHIND} are accepted`,
    );
  checkBatches(engine.info, batches, length);
}

/** Runs in which "auto" learns and that do not count. */
const AUTO_RUNS = 4;

/** The same model with another choice of drafts; the parts' owner closes it. */
function variantOf(parts: EngineParts, variant: Variant): Engine {
  const speculative = typeof variant === "number" ? { drafts: variant } : variant === "auto" ? variant : "off";
  return Engine.fromParts({ ...parts, info: { ...parts.info, speculative }, ...(variant === "off, alone" && { stepsAhead: 0 }) });
}

/** How drafts fare in answers that end where they end. */
async function accepted(
  parts: EngineParts,
  { tokens, temperature, prompts }: SpeculatePlan,
  drafts: number,
  signal: AbortSignal | undefined,
): Promise<AcceptanceResult> {
  const engine = variantOf(parts, drafts);
  const all = prompts.length > 0 ? prompts : [...builtInTasks(parts.info), ...builtInTexts(parts.info, ANSWERS_AT_ONCE)];
  for (let i = 0; i < all.length; i += ANSWERS_AT_ONCE) {
    abortIfAsked(signal);
    await engine.generate(all.slice(i, i + ANSWERS_AT_ONCE), { maxTokens: tokens, temperature, seed: 1, signal });
  }
  const { draftedSteps, acceptedTokens, acceptedByPlace } = engine.stats.speculation;
  const reached = [draftedSteps, ...acceptedByPlace];
  return {
    ...{ kind: "acceptance", drafts, draftedSteps, acceptedLength: 1 + acceptedTokens / Math.max(1, draftedSteps) },
    shares: Array.from({ length: drafts }, (_, place) => (reached[place + 1] ?? 0) / Math.max(1, reached[place] ?? 0)),
  };
}

/** All variants of a batch, which take turns, so that what the machine does beside them falls on all alike. */
async function speeds(
  { parts, runner }: BenchModel,
  plan: SpeculatePlan,
  batch: number,
  shares: ReadonlyMap<number, number[]>,
  signal: AbortSignal | undefined,
): Promise<SpeedResult[]> {
  const variants: Variant[] = ["off", ...plan.drafts, "auto", "off, alone"];
  const engines = variants.map((variant) => variantOf(parts, variant));
  const runs = variants.map((): TimedRun[] => []);
  const auto = engines[variants.indexOf("auto")] as Engine;
  for (let run = 0; run < AUTO_RUNS; run++) await timeRows(auto, plan, batch, signal); // it has to learn first
  let rows: number[][] = [];
  for (let run = 0; run <= plan.runs; run++)
    for (const [i, engine] of engines.entries()) {
      abortIfAsked(signal);
      const one = await timeRows(engine, plan, batch, signal);
      if (run > 0) runs[i]?.push(one);
      rows = one.rows;
    }
  const { temperature, runs: samples } = plan;
  const timed = { rows: rows.map((tokens) => ({ tokens })), temperature, drafts: [0, ...plan.drafts], samples, signal };
  // Drafts were asked for, so the model has a draft head.
  const costs = await timeDraftCosts(runner, runner.weights as DraftingWeights, timed);
  const medians = runs.map(medianRun);
  const off = medians[0] as Run;
  const plain = costs[0] as DraftCosts;
  return variants.map((variant, i): SpeedResult => {
    const run = medians[i] as Run;
    const { verifyUs, draftUs } = costs[i] ?? { verifyUs: null, draftUs: null }; // "off" and numbers come first
    const predict = (drafts: number, us: number): number => speedup(stepLength(shares.get(drafts) ?? [], drafts), us / plain.verifyUs);
    return {
      ...{ kind: "speed", batch, drafts: variant, ...run, cost: run.stepUs / off.stepUs },
      measuredSpeedup: run.tokensPerSecond / off.tokensPerSecond,
      predictedSpeedup: typeof variant === "number" && verifyUs !== null ? predict(variant, verifyUs + draftUs) : null,
      ...{ verifyUs, draftUs },
    };
  });
}

function medianRun(runs: readonly TimedRun[]): Run {
  const of = (key: keyof Run): number => median(runs.map((run) => run[key]));
  return {
    ...{ tokensPerSecond: of("tokensPerSecond"), stepUs: of("stepUs"), acceptedLength: of("acceptedLength"), idleShare: of("idleShare") },
  };
}

/** Rows that decode together, from the time when all have their first token until one has its last. */
async function timeRows(
  engine: Engine,
  { tokens, temperature, prompts }: SpeculatePlan,
  batch: number,
  signal: AbortSignal | undefined,
): Promise<TimedRun> {
  const texts = timedTexts(engine.info, prompts, batch);
  const rows = Array.from({ length: batch }, (_, i) => texts[i % texts.length] as Prompt);
  const begun = new Set<number>();
  let from: { ms: number; stats: EngineStats } | undefined;
  let to: typeof from;
  let drawn = 0;
  const onChunk = ({ index, tokens: some, finishReason }: Chunk): void => {
    if (from !== undefined && to === undefined) drawn += some.length;
    begun.add(index);
    if (begun.size === batch) from ??= { ms: performance.now(), stats: engine.stats };
    if (finishReason !== undefined) to ??= { ms: performance.now(), stats: engine.stats };
  };
  const results = await engine.generate(rows, { maxTokens: tokens, temperature, seed: 1, ignoreEos: true, signal }, onChunk);
  if (from === undefined || to === undefined || from.stats.steps >= to.stats.steps)
    throw new LongcatError("OPTION_INVALID", `tokens: ${tokens} are too few to time ${batch} rows; give more, or fewer rows`);
  return { ...runOf(from.stats, to.stats, drawn, to.ms - from.ms), rows: results.map((result) => result.tokens) };
}

function runOf(from: EngineStats, to: EngineStats, drawn: number, ms: number): Run {
  const busy = to.stepSeconds - from.stepSeconds;
  const idle = to.idleSeconds - from.idleSeconds;
  const draftedSteps = to.speculation.draftedSteps - from.speculation.draftedSteps;
  const acceptedTokens = to.speculation.acceptedTokens - from.speculation.acceptedTokens;
  return {
    tokensPerSecond: (1000 * drawn) / ms,
    stepUs: (1e6 * busy) / (to.steps - from.steps),
    acceptedLength: draftedSteps === 0 ? 1 : 1 + acceptedTokens / draftedSteps,
    idleShare: idle / (busy + idle),
  };
}

const PLACES = ["lake", "bridge", "hill", "market", "castle", "barn", "river", "garden"];
const WHO = ["cat", "dog", "frog", "fox", "owl", "mouse", "goat", "pony"];

/** What rows continue. */
function timedTexts(info: EngineInfo, prompts: readonly string[], count: number): readonly Prompt[] {
  return prompts.length > 0 ? prompts : builtInTexts(info, count);
}

/** Beginnings of stories, all different up to 64 of them; without a tokenizer random ids. */
function builtInTexts({ hasTokenizer }: EngineInfo, count: number): Prompt[] {
  const random = new TokenSource();
  return Array.from({ length: count }, (_, i) => {
    if (!hasTokenizer) return { tokens: random.take(32) };
    const who = WHO[i % WHO.length] as string;
    const place = PLACES[Math.floor(i / WHO.length) % PLACES.length] as string;
    return i % 2 === 0
      ? `In a village by the ${place}, there lived a curious ${who}`
      : `One morning by the ${place}, a clever ${who} called`;
  });
}

/** Short tasks, as a chat. */
function builtInTasks({ hasChatTemplate }: EngineInfo): Prompt[] {
  if (!hasChatTemplate) return [];
  const tasks = [
    ...["Compute 56 + 80.", "What is 82 - 24?", "Sort these words: coin, shell, pear.", "How many words are here: boat, rabbit, fox?"],
    ...["Make a list of these words as JSON: ball, key, pony, boat.", "Reverse these words: scarf, bread, soup, map.", "Tell me a story."],
    ...["Ben has a white coin. Tom has an orange key. Who has the key?", "Can you tell me a story?"],
  ];
  const plain = tasks.map((content): Prompt => ({ messages: [{ role: "user", content }] }));
  const thought = ["What is 879 + 904?", "What is 369 + 873?"].map(
    (content): Prompt => ({ messages: [{ role: "user", content }], enableThinking: true }),
  );
  return [...plain, ...thought];
}
