/**
 * The models of the benches of decoding and of prompts: a checkpoint, as the engine loads it, or random weights of a model's sizes.
 * @module
 */

import { LongcatError } from "../errors.js";
import { openCheckpoint } from "../model/checkpoint.js";
import type { ModelConfig } from "../model/config.js";
import { type WeightCost, weightCost } from "../model/cost.js";
import { estimateMemory } from "../model/estimate.js";
import { openRandomModel, RANDOM_DTYPES, type RandomDType } from "../model/random-weights.js";
import type { Runner } from "../model/runner.js";
import { SHAPES, type Shape, shapeConfig } from "../model/shapes.js";
import { DEFAULT_PARAMETERS } from "../sampling/parameters.js";
import type { EngineParts } from "./engine.js";
import { checkDirectory, loadParts } from "./load.js";
import { DEFAULT_OPTIONS, draftDemand, type EngineOptions, type ResolvedOptions, resolveOptions } from "./options.js";
import type { EngineInfo } from "./types.js";

export { RANDOM_DTYPES, SHAPES };

/** Random weights instead of a checkpoint. */
export interface RandomSource {
  shape: Shape;
  layers?: number | undefined;
  dtype: RandomDType;
  expertsHeld?: number | undefined;
}

/** Which model, and where. */
export interface BenchSource {
  device: string;
  /** Absent: the bundled checkpoint, or `random`. */
  directory?: string | undefined;
  random?: RandomSource | undefined;
  /** The engine's; some are refused with random weights. */
  options: EngineOptions;
  signal?: AbortSignal | undefined;
}

/** What the benches say of a model. */
export interface BenchFacts {
  /** The checkpoint's folder, or "random weights". */
  model: string;
  shape: Shape | null;
  layers: number;
  /** "as stored", what it was converted to, or what the random weights are. */
  dtype: string;
  expertsHeld: number;
  device: string;
  /** The GPU's name; null on the CPU. */
  gpu: string | null;
  threads: number;
  isa: string;
  activations: string;
  cacheDType: string;
  /** Bytes that the device's tensors hold; mapped files are not counted. */
  memoryBytes: number;
  notes: string[];
}

/** A model to measure. Closing its parts closes it. */
export interface BenchModel {
  parts: EngineParts;
  runner: Runner;
  config: ModelConfig;
  cost: WeightCost;
  random: boolean;
  facts(): BenchFacts;
}

/** What a bench needs room for. */
export interface BenchSizes {
  maxSequences: number;
  /** Tokens of a sequence. */
  contextLength: number;
  /** Drafts of a step at most, which need a draft head; absent: none. */
  drafts?: number;
  /** A cache for so many sequences of so many tokens, where the options name no size; absent: the engine's own choice. */
  smallCache?: boolean;
}

/** Opens a model; throws as `Engine.load` and `openRandomModel` do. */
export function openBenchModel(source: BenchSource, sizes: BenchSizes): Promise<BenchModel> {
  return source.random ? openRandom(source, source.random, sizes) : openStored(source, sizes);
}

/**
 * Refuses batches whose rows of so many tokens would wait for one another: what was not measured must not be reported.
 *
 * @throws LongcatError OPTION_INVALID
 */
export function checkBatches({ maxSequences, cache }: EngineInfo, batches: readonly number[], length: number): void {
  // A row begins where a block more is left for each of the others (ts/engine/scheduler.ts).
  const most = Math.min(maxSequences, Math.floor((cache.numBlocks + 1) / (Math.ceil(length / cache.blockSize) + 1)));
  const tooLarge = batches.find((batch) => batch > most);
  if (tooLarge !== undefined)
    throw new LongcatError(
      "OPTION_INVALID",
      `batch: ${tooLarge} rows of ${length} tokens do not run at once; maxSequences and cacheBytes allow at most ${most}`,
    );
}

async function openStored({ device, directory, options, signal }: BenchSource, sizes: BenchSizes): Promise<BenchModel> {
  const dir = checkDirectory(directory);
  const resolved = resolveOptions({ ...options, device: device as EngineOptions["device"], signal });
  if (options.maxSequences === undefined || options.maxSequences === null) resolved.maxSequences = sizes.maxSequences;
  resolved.speculative = sizes.drafts === undefined ? "off" : { drafts: sizes.drafts };
  // The benches write to the runner's cache behind the engine's back, and each run is to be a whole one.
  resolved.prefixCache = false;
  // A row is looked at as one prompt (ts/model/trace.ts). More than the context is refused later.
  resolved.maxBatchTokens = Math.max(resolved.maxBatchTokens, Math.min(sizes.contextLength, MOST_TRACED));
  const { config, cost, hasMtp } = await costOf(dir, resolved);
  if (sizes.drafts !== undefined && !hasMtp)
    throw new LongcatError("OPTION_INVALID", `${dir}: this checkpoint has no draft head (no tensors model.mtp.*): no drafts to measure`);
  if (sizes.smallCache && resolved.cacheBytes === "auto") resolved.cacheBytes = await cacheFor(dir, resolved, sizes.contextLength, config);
  const parts = await loadParts(dir, resolved);
  const { info } = parts;
  const { threads, isa, activations, cacheDType, dtype, numLayers, numExperts } = info;
  const runner = parts.runner as Runner;
  const facts = () => ({
    ...{
      model: info.directory,
      shape: null,
      layers: numLayers,
      dtype,
      expertsHeld: numExperts,
      device: info.device,
      gpu: runner.device.gpu?.name ?? null,
      threads,
      isa,
      activations,
      cacheDType,
    },
    ...{ memoryBytes: runner.device.allocatedBytes, notes: [] },
  });
  return { parts, runner, config, cost, random: false, facts };
}

/** Bytes of a cache for all sequences at once, each with so many tokens, or as many as the context has. */
async function cacheFor(dir: string, options: ResolvedOptions, tokens: number, config: ModelConfig): Promise<number> {
  const { device, dtype, cacheDType, maxBatchTokens, allowUnknownTensors, maxSequences: batch } = options;
  const context = Math.min(tokens, config.maxPositionEmbeddings);
  const sizes = { device, dtype, cacheDType, maxBatchTokens, allowUnknownTensors, context, batch, ...draftDemand(options) };
  return (await estimateMemory(dir, sizes)).cacheBytes;
}

const MOST_TRACED = 65536;

async function costOf(
  directory: string,
  { allowUnknownTensors, dtype }: { allowUnknownTensors: boolean; dtype: "auto" | "float32" | "bfloat16" },
): Promise<{ config: ModelConfig; cost: WeightCost; hasMtp: boolean }> {
  const checkpoint = await openCheckpoint(directory, { allowUnknownTensors });
  try {
    return { config: checkpoint.config, cost: weightCost(checkpoint, dtype), hasMtp: checkpoint.hasMtp };
  } finally {
    checkpoint.close();
  }
}

/** Options that mean nothing to a model with random weights, whose caches have the size of the bench's plan. */
const NOT_FOR_RANDOM = ["cacheBytes", "allowUnknownTensors", "debug", "ngram"] as const;

/** Nothing is ignored silently. */
function refuseForRandom(options: ResolvedOptions): void {
  const demanded = NOT_FOR_RANDOM.find((name) => options[name] !== DEFAULT_OPTIONS[name]);
  if (demanded === undefined) return;
  const [value, accepted] = [options[demanded], DEFAULT_OPTIONS[demanded]].map((one) => JSON.stringify(one));
  throw new LongcatError("OPTION_INVALID", `${demanded}: ${value} does not go with random weights; give ${accepted}`);
}

async function openRandom(source: BenchSource, random: RandomSource, sizes: BenchSizes): Promise<BenchModel> {
  const { device, options, signal } = source;
  const { shape, layers, dtype, expertsHeld } = random;
  const resolved = resolveOptions({ ...options, device: null, dtype: null, signal });
  refuseForRandom(resolved);
  const { threads, maxSequences, maxBatchTokens, cacheDType, fp8Activations, batchInvariant } = resolved;
  const model = await openRandomModel(
    { config: shapeConfig(shape, layers), dtype, expertsHeld },
    {
      ...{ device, threads, cacheDType, fp8Activations, batchInvariant, signal, maxBatchTokens, contextLength: sizes.contextLength },
      maxSequences: options.maxSequences === undefined || options.maxSequences === null ? sizes.maxSequences : maxSequences,
    },
  );
  const { runner, config } = model;
  const info = infoOf(runner, { dtype, fp8Activations, batchInvariant });
  const parts = { runner, info, modelContext: config.maxPositionEmbeddings, defaults: {}, close: () => model.close() };
  const facts = () => ({
    ...{ model: info.directory, shape, layers: config.numLayers, dtype, expertsHeld: expertsHeld ?? config.numExperts },
    ...{ device: info.device, gpu: runner.device.gpu?.name ?? null, threads: info.threads, isa: info.isa, activations: info.activations },
    cacheDType: info.cacheDType,
    ...{ memoryBytes: runner.device.allocatedBytes, notes: model.notes },
  });
  return { parts, runner, config, cost: weightCost(model.headers), random: true, facts };
}

/** Gives each prompt a slot and its blocks, with room for `tokens` more, and runs it. */
export async function fillSlots(runner: Runner, rows: readonly { tokens: number[] }[], tokens: number, temperature = 1): Promise<void> {
  const { maxBatchTokens } = runner.limits;
  for (const [slot, row] of rows.entries()) {
    await takeSlot(runner, slot, row.tokens.length + tokens, temperature);
    for (let position = 0; position < row.tokens.length; position += maxBatchTokens) {
      const chunk = row.tokens.slice(position, position + maxBatchTokens);
      await runner.step([{ slot, position, tokens: chunk, sample: position + chunk.length === row.tokens.length }]);
    }
  }
}

/** Gives slot `slot` the blocks from `slot` times as many on, for `length` tokens, and plain sampling. */
export async function takeSlot(runner: Runner, slot: number, length: number, temperature = 1): Promise<void> {
  const blocks = Math.ceil(length / runner.limits.blockSize);
  await runner.room();
  runner.setSampling(slot, {
    ...{ temperature, topP: 1, topK: 0, minP: 0, repetitionPenalty: 1, presencePenalty: 0, frequencyPenalty: 0 },
    ...{ seed: slot, logprobs: -1, logitBias: new Map<number, number>(), promptTokens: [] },
  });
  runner.setBlocks(
    slot,
    0,
    Array.from({ length: blocks }, (_, i) => slot * blocks + i),
  );
}

/** What an engine over random weights says of itself. */
function infoOf(
  { config, device, limits, activationDType, cacheDType }: Runner,
  choices: Pick<EngineInfo, "fp8Activations" | "batchInvariant"> & { dtype: RandomDType },
): EngineInfo {
  const { temperature, topP, topK, minP, repetitionPenalty } = DEFAULT_PARAMETERS;
  const { contextLength, maxBatchTokens, maxSequences, blockSize, numBlocks } = limits;
  return {
    ...{ directory: "random weights", modelType: config.modelType, numLayers: config.numLayers, vocabularySize: config.vocabSize },
    ...{ numExperts: config.numExperts, numZeroExperts: config.numZeroExperts, topK: config.topK, contextLength },
    ...{ device: device.kind, threads: device.threads, isa: device.isa, maxBatchTokens, maxSequences, cache: { blockSize, numBlocks } },
    ...{ hasTokenizer: false, hasChatTemplate: false, endTokens: config.eosTokenIds },
    defaults: { temperature, topP, topK, minP, repetitionPenalty },
    ...{ ...choices, activations: activationDType, cacheDType, batchInvariant: device.kind === "cpu" || choices.batchInvariant },
    ...{ prefixCache: "off", speculative: "off", parallel: { expert: 1, rank: 0, exchange: "none" } },
    ngram: config.ngram ? "host" : "none",
  };
}
