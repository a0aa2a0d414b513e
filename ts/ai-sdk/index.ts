/**
 * `longcat-node/ai-sdk`: an engine in this process as a language model of the AI SDK (the package `ai`, 6 or 7). No server, no key.
 * @module
 */

import { type LanguageModelV3, NoSuchModelError, type ProviderV3 } from "@ai-sdk/provider";
import { type LongcatEngine, LongcatLanguageModel } from "./model.js";
import { type LongcatProviderSettings, resolveSettings } from "./settings.js";

export type { LongcatEngine } from "./model.js";
export type { LongcatProviderOptions } from "./parameters.js";
export type { LongcatProviderSettings } from "./settings.js";

/** A provider with one language model: the engine's. */
export interface LongcatProvider extends ProviderV3 {
  /** The engine's model; an id other than its own is a `NoSuchModelError`. */
  (modelId?: string): LanguageModelV3;
  languageModel(modelId?: string): LanguageModelV3;
}

/**
 * Makes an engine the model of AI SDK calls. The engine stays the caller's: to share, and to close.
 *
 * Settings of the SDK are taken where the engine has them; what it has beyond them is in `providerOptions.longcat`
 * ({@link LongcatProviderOptions}), and what a result says beyond the SDK's fields is in `providerMetadata.longcat`
 * (`routing`, `timings`, `logprobs`). Errors of the engine arrive as the SDK's where it has one (wrong options `InvalidArgumentError`, prompts
 * `InvalidPromptError`, a full queue a retryable `APICallError`, aborts `AbortError`), with the `LongcatError` as `cause`.
 *
 * @param engine A loaded engine.
 * @throws LongcatError `OPTION_INVALID`: no engine, or a setting that is not known. The provider throws a NoSuchModelError for another
 * model's id.
 *
 * @example
 * import { generateText } from "ai";
 * import { Engine } from "longcat-node";
 * import { createLongcat } from "longcat-node/ai-sdk";
 *
 * const engine = await Engine.load();
 * const longcat = createLongcat(engine);
 * const { text } = await generateText({ model: longcat(), prompt: "Compute 56 + 80.", temperature: 0 });
 * await engine.close();
 */
export function createLongcat(engine: LongcatEngine, settings?: LongcatProviderSettings | null): LongcatProvider {
  const { modelId: id, defaults } = resolveSettings(engine, settings);
  const model = new LongcatLanguageModel(engine, id, defaults);
  const languageModel = (modelId?: string): LanguageModelV3 => {
    if (modelId !== undefined && modelId !== id) throw new NoSuchModelError({ modelId, modelType: "languageModel" });
    return model;
  };
  return Object.assign((modelId?: string) => languageModel(modelId), {
    specificationVersion: "v3" as const,
    languageModel,
    embeddingModel: (modelId: string): never => {
      throw new NoSuchModelError({ modelId, modelType: "embeddingModel" });
    },
    imageModel: (modelId: string): never => {
      throw new NoSuchModelError({ modelId, modelType: "imageModel" });
    },
  });
}
