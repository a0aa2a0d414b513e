/**
 * From a checkpoint folder to the parts of an engine.
 * @module
 */

import { fileURLToPath } from "node:url";
import { absent, invalid } from "../checks.js";
import { LongcatError } from "../errors.js";
import type { ModelParallel } from "../model/exchange.js";
import type { GenerationConfig } from "../model/generation-config.js";
import { type OpenedModel, openModel } from "../model/open.js";
import type { Runner } from "../model/runner.js";
import { DEFAULT_PARAMETERS, type SamplingDefaults } from "../sampling/parameters.js";
import type { EngineParts } from "./engine.js";
import { draftDemand, type ResolvedOptions } from "./options.js";
import type { PrefixCacheMode } from "./prefix-cache.js";
import type { TextTools } from "./prompt.js";
import { loadTextTools } from "./text-tools.js";
import type { EngineInfo } from "./types.js";

/** What a load makes. */
export interface LoadedParts extends EngineParts {
  runner: Runner;
}

/** The folder of the checkpoint that ships with the package. */
function bundledCheckpoint(): string {
  return fileURLToPath(new URL("../../models/mini", import.meta.url));
}

/** The folder that a caller means: the one given, or the bundled one. */
export function checkDirectory(directory: unknown): string {
  if (absent(directory)) return bundledCheckpoint();
  if (typeof directory !== "string" || directory === "")
    throw invalid("directory", directory, "the path of a checkpoint folder, or nothing for the bundled one");
  return directory;
}

/**
 * Opens model, tokenizer and template in this process; closes what is open if one of them fails. `parallel`: as one rank of several; absent: whole,
 * whatever the options say.
 */
export async function loadParts(dir: string, options: ResolvedOptions, parallel?: ModelParallel): Promise<LoadedParts> {
  let model: OpenedModel | undefined;
  let text: (TextTools & { close(): void }) | undefined;
  try {
    options.signal?.throwIfAborted();
    const onProgress = (doneBytes: number, totalBytes: number): void => options.onProgress?.({ doneBytes, totalBytes });
    const { parallel: _, ...others } = options;
    model = await openModel(dir, { ...others, ...(parallel && { parallel }), onProgress, ...draftDemand(options) });
    text = await loadTextTools(dir, model.checkpoint.config.vocabSize);
    options.signal?.throwIfAborted();
    warnOfNoEffect(model, options);
    return assemble(dir, model, text, options);
  } catch (error) {
    text?.close();
    await model?.close();
    if (options.signal?.aborted) throw new LongcatError("ABORTED", "the load was aborted", { cause: options.signal.reason });
    throw error;
  }
}

/** Tells of what was demanded and changes nothing for this model; of what changes nothing on this device, opening it told. */
function warnOfNoEffect({ ngram }: OpenedModel, options: ResolvedOptions): void {
  if (ngram === null && options.ngram !== "auto")
    options.onWarning(`ngram: "${options.ngram}" has no effect on this model: it has no n-gram tables`);
}

function assemble(
  dir: string,
  model: OpenedModel,
  text: (TextTools & { close(): void }) | undefined,
  options: ResolvedOptions,
): LoadedParts {
  const { config, generationConfig } = model.checkpoint;
  const defaults = samplingDefaults(generationConfig, config.vocabSize);
  return {
    runner: model.runner,
    ...(text && { text }),
    info: describe(dir, model, text, options, defaults),
    modelContext: config.maxPositionEmbeddings,
    defaults,
    close: async () => {
      text?.close();
      await model.close();
    },
  };
}

function describe(
  dir: string,
  { runner, checkpoint, ngram }: OpenedModel,
  text: TextTools | undefined,
  options: ResolvedOptions,
  defaults: SamplingDefaults,
): EngineInfo {
  const { config, generationConfig } = checkpoint;
  const { limits, device } = runner;
  const { temperature, topP, topK, minP, repetitionPenalty } = { ...DEFAULT_PARAMETERS, ...defaults };
  return {
    directory: dir,
    modelType: config.modelType,
    numLayers: config.numLayers,
    vocabularySize: config.vocabSize,
    numExperts: config.numExperts,
    numZeroExperts: config.numZeroExperts,
    topK: config.topK,
    contextLength: limits.contextLength,
    device: device.kind,
    threads: device.threads,
    isa: device.isa,
    maxBatchTokens: limits.maxBatchTokens,
    maxSequences: limits.maxSequences,
    cache: { blockSize: limits.blockSize, numBlocks: limits.numBlocks },
    hasTokenizer: text !== undefined,
    hasChatTemplate: text?.hasTemplate ?? false,
    endTokens: unionOf(config.eosTokenIds, generationConfig.eosTokenIds, text?.endTokenIds ?? []),
    defaults: { temperature, topP, topK, minP, repetitionPenalty },
    dtype: options.dtype === "auto" ? "as stored" : options.dtype,
    activations: runner.activationDType,
    cacheDType: runner.cacheDType,
    fp8Activations: options.fp8Activations,
    batchInvariant: device.kind === "cpu" || options.batchInvariant,
    prefixCache: prefixCacheMode(options.prefixCache),
    speculative: limits.maxDrafts > 0 ? options.speculative : "off",
    parallel: parallelInfo(runner),
    ngram: ngram ?? "none",
  };
}

function parallelInfo({ exchange }: Runner): EngineInfo["parallel"] {
  if (exchange === undefined) return { expert: 1, rank: 0, exchange: "none" };
  return { expert: exchange.ranks, rank: exchange.rank, exchange: exchange.nccl ? "nccl" : "peer" };
}

function prefixCacheMode(option: ResolvedOptions["prefixCache"]): PrefixCacheMode {
  if (option === "all") return option;
  return option ? "on" : "off";
}

function unionOf(...lists: (readonly number[])[]): number[] {
  return [...new Set(lists.flat())].sort((a, b) => a - b);
}

/** What generation_config.json sets; `do_sample: false` means greedy. */
function samplingDefaults(config: GenerationConfig, vocabularySize: number): SamplingDefaults {
  const { doSample, topP, minP, repetitionPenalty } = config;
  const temperature = doSample === false ? 0 : config.temperature;
  const topK = config.topK !== undefined && config.topK >= vocabularySize ? 0 : config.topK;
  const values = Object.entries({ temperature, topP, topK, minP, repetitionPenalty });
  return Object.fromEntries(values.filter(([, value]) => value !== undefined)) as SamplingDefaults;
}
