/**
 * A run as its JSON file describes it, checked.
 * @module
 */

import { absent, integer, invalid, number, oneOf, record, rejectUnknownFields } from "../checks.js";
import { LongcatError } from "../errors.js";
import { type ModelConfig, parseConfig } from "../model/config.js";
import type { BudgetOptions } from "./budget.js";
import type { BalanceOptions } from "./layer.js";
import { initialSpread, type InitialSpread, PARAMETER_GROUPS, type ParameterGroup } from "./parameters.js";
import type { Schedule } from "./schedule.js";
import { type TaskOptions, taskLength, taskVocabulary } from "./tasks.js";

/** AdamW's numbers; betas, decay and clipping are not in the report, ε is. */
export interface AdamOptions {
  beta1: number;
  beta2: number;
  epsilon: number;
  /** Weight decay; norms and biases have none. */
  decay: number;
  /** The longest that all gradients together may be; 0: any length. */
  clip: number;
}

/** A whole run. */
export interface Run {
  /** config.json of the model, as it is written into checkpoints. */
  model: Record<string, unknown>;
  config: ModelConfig;
  seed: number;
  steps: number;
  /** Sequences of a batch, and batches of a step. */
  sequences: number;
  accumulate: number;
  task: TaskOptions;
  /** Different sequences that there are to train on, which come again and again; null: every one is new. */
  distinct: number | null;
  /** Peak rate of each group. */
  rate: Record<ParameterGroup, number>;
  schedule: Schedule;
  adam: AdamOptions;
  spread: InitialSpread;
  budget: BudgetOptions | null;
  balance: BalanceOptions | null;
  /** λ of the hidden z-loss. */
  zLoss: number;
  /** Steps between two checkpoints, and between two looks at held-out sequences; both also happen at the end. null: only then. */
  saveEvery: number | null;
  evaluateEvery: number | null;
}

const MOST = Number.MAX_SAFE_INTEGER;
const positive = (value: unknown, field: string) => number(value, field, { min: 0, max: 1e6, openMin: true, accepted: "a number above 0" });
const share = (value: unknown, field: string) => number(value, field, { min: 0, max: 1, accepted: "a number from 0 to 1" });
const notNegative = (value: unknown, field: string) => number(value, field, { min: 0, max: 1e6, accepted: "a number of at least 0" });

/**
 * Reads a parsed run file.
 *
 * @throws LongcatError OPTION_INVALID naming the field, its value and what would be accepted; what a wrong `model` throws (CONFIG_INVALID …)
 */
export function parseRun(json: unknown): Run {
  const run = record(json, "run");
  const known = [
    "model",
    "seed",
    "steps",
    "sequences",
    "accumulate",
    "task",
    "distinct",
    "rate",
    "schedule",
    "adam",
    "spread",
    "budget",
    "balance",
    "zLoss",
    "saveEvery",
    "evaluateEvery",
  ];
  rejectUnknownFields(run, known, "run");
  const model = record(run["model"], "model");
  const config = parseConfig(model, "model");
  const task = parseTask(run["task"]);
  checkTogether(config, task);
  const steps = integer(run["steps"], "steps", 1, MOST);
  return {
    ...{ model, config, task, steps },
    seed: absent(run["seed"]) ? 0 : integer(run["seed"], "seed", 0, MOST),
    sequences: integer(run["sequences"], "sequences", 1, 1 << 16),
    accumulate: absent(run["accumulate"]) ? 1 : integer(run["accumulate"], "accumulate", 1, 1 << 16),
    distinct: absent(run["distinct"]) ? null : integer(run["distinct"], "distinct", 1, MOST),
    rate: parseRate(run["rate"]),
    schedule: parseSchedule(run["schedule"]),
    adam: parseAdam(run["adam"]),
    spread: parseSpread(run["spread"], config),
    budget: parseBudget(run["budget"], config),
    balance: parseBalance(run["balance"], config),
    zLoss: absent(run["zLoss"]) ? 0 : notNegative(run["zLoss"], "zLoss"),
    saveEvery: absent(run["saveEvery"]) ? null : integer(run["saveEvery"], "saveEvery", 1, MOST),
    evaluateEvery: absent(run["evaluateEvery"]) ? null : integer(run["evaluateEvery"], "evaluateEvery", 1, MOST),
  };
}

function parseTask(value: unknown): TaskOptions {
  const task = record(value, "task");
  const kind = oneOf(task["kind"], "task.kind", ["copy", "sums", "recall"]);
  const size = (name: string, min: number, most: number) => integer(task[name], `task.${name}`, min, most);
  if (kind === "sums") {
    rejectUnknownFields(task, ["kind", "digits"], "task");
    return { kind, digits: size("digits", 1, 15) };
  }
  const other = kind === "copy" ? "length" : "pairs";
  rejectUnknownFields(task, ["kind", "symbols", other], "task");
  const symbols = size("symbols", 1, 1 << 20);
  return kind === "copy" ? { kind, symbols, length: size("length", 1, 1 << 16) } : { kind, symbols, pairs: size("pairs", 1, symbols) };
}

/** One rate for all groups, or one for each. */
function parseRate(value: unknown): Run["rate"] {
  if (typeof value === "number") {
    const rate = positive(value, "rate");
    return { embedding: rate, hidden: rate, head: rate, norm: rate };
  }
  const rates = record(value, "rate");
  rejectUnknownFields(rates, PARAMETER_GROUPS, "rate");
  const of = (group: ParameterGroup) => notNegative(rates[group], `rate.${group}`);
  return { embedding: of("embedding"), hidden: of("hidden"), head: of("head"), norm: of("norm") };
}

function parseSchedule(value: unknown): Schedule {
  const schedule = record(value, "schedule");
  const kind = absent(schedule["kind"]) ? "cosine" : oneOf(schedule["kind"], "schedule.kind", ["cosine", "wsd"]);
  rejectUnknownFields(schedule, kind === "wsd" ? ["kind", "warmup", "decay", "final"] : ["kind", "warmup", "final"], "schedule");
  const warmup = absent(schedule["warmup"]) ? 0 : integer(schedule["warmup"], "schedule.warmup", 0, MOST);
  const final = absent(schedule["final"]) ? 0.1 : share(schedule["final"], "schedule.final");
  return kind === "cosine"
    ? { kind, warmup, final }
    : { kind, warmup, final, decay: integer(schedule["decay"], "schedule.decay", 1, MOST) };
}

function parseAdam(value: unknown): AdamOptions {
  const adam = record(value, "adam");
  rejectUnknownFields(adam, ["beta1", "beta2", "epsilon", "decay", "clip"], "adam");
  const beta = (name: string, fallback: number) => {
    if (absent(adam[name])) return fallback;
    const parsed = share(adam[name], `adam.${name}`);
    if (parsed === 1) throw invalid(`adam.${name}`, parsed, "a number from 0 to below 1");
    return parsed;
  };
  const other = (name: string, fallback: number) => (absent(adam[name]) ? fallback : notNegative(adam[name], `adam.${name}`));
  return {
    ...{ beta1: beta("beta1", 0.9), beta2: beta("beta2", 0.95) },
    ...{ epsilon: other("epsilon", 1e-16), decay: other("decay", 0.1), clip: other("clip", 1) },
  };
}

function parseSpread(value: unknown, config: ModelConfig): InitialSpread {
  const spread = record(value, "spread");
  rejectUnknownFields(spread, ["embedding", "hidden", "head"], "spread");
  const usual = initialSpread(config);
  const of = (group: keyof InitialSpread) => (absent(spread[group]) ? usual[group] : notNegative(spread[group], `spread.${group}`));
  return { embedding: of("embedding"), hidden: of("hidden"), head: of("head") };
}

/** K_e where it is not given: what even use of all experts would make it, K · N / (N + Z). */
function meanExpertsOf(value: unknown, field: string, { topK, numExperts, numZeroExperts }: ModelConfig): number {
  const mean = absent(value) ? (topK * numExperts) / (numExperts + numZeroExperts) : positive(value, field);
  if (numZeroExperts > 0 ? mean >= topK : mean > topK)
    throw invalid(field, mean, `a number ${numZeroExperts > 0 ? "below" : "up to"} the ${topK} experts that a token chooses`);
  return mean;
}

function parseBudget(value: unknown, config: ModelConfig): BudgetOptions | null {
  if (absent(value)) return null;
  const budget = record(value, "budget");
  rejectUnknownFields(budget, ["meanExperts", "mu"], "budget");
  return { meanExperts: meanExpertsOf(budget["meanExperts"], "budget.meanExperts", config), mu: positive(budget["mu"], "budget.mu") };
}

function parseBalance(value: unknown, config: ModelConfig): BalanceOptions | null {
  if (absent(value)) return null;
  const balance = record(value, "balance");
  rejectUnknownFields(balance, ["alpha", "groups", "meanExperts"], "balance");
  const groups = integer(balance["groups"], "balance.groups", 1, config.numExperts);
  if (config.numExperts % groups !== 0)
    throw invalid("balance.groups", groups, `a number that cuts ${config.numExperts} experts in equal groups`);
  const meanExperts = meanExpertsOf(balance["meanExperts"], "balance.meanExperts", config);
  return { alpha: notNegative(balance["alpha"], "balance.alpha"), groups, meanExperts };
}

function checkTogether(config: ModelConfig, task: TaskOptions): void {
  const [ids, length] = [taskVocabulary(task), taskLength(task)];
  if (config.vocabSize < ids) throw invalid("model.vocab_size", config.vocabSize, `at least the ${ids} ids of the task`);
  if (config.maxPositionEmbeddings < length)
    throw invalid("model.max_position_embeddings", config.maxPositionEmbeddings, `at least the ${length} tokens of the task's sequences`);
  if (config.quantization)
    throw new LongcatError("OPTION_INVALID", "model.quantization_config: float32 weights are trained; give a config without it");
}
