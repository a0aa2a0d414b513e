/**
 * The language model that the AI SDK calls: one engine, through `generate` and `stream`.
 * @module
 */

import type {
  LanguageModelV3,
  LanguageModelV3CallOptions,
  LanguageModelV3GenerateResult,
  LanguageModelV3StreamPart,
  LanguageModelV3StreamResult,
  SharedV3Warning,
} from "@ai-sdk/provider";
import type { ChatPrompt, Engine, GenerateParams } from "../index.js";
import { sdkError } from "./errors.js";
import { generateParams, type LongcatProviderOptions, longcatOptions, toolChoice } from "./parameters.js";
import { chatMessages, chatTools } from "./prompt.js";
import { resultContent, resultMetadata, sdkFinishReason, sdkUsage } from "./result.js";
import { StreamParts } from "./stream-parts.js";

/** What of an engine is used. */
export type LongcatEngine = Pick<Engine, "info" | "generate" | "stream">;

/** A call as the engine takes it. */
interface EngineCall {
  prompt: ChatPrompt;
  params: GenerateParams;
  warnings: SharedV3Warning[];
}

/** A language model of the AI SDK (specification v3) over an engine. */
export class LongcatLanguageModel implements LanguageModelV3 {
  readonly specificationVersion = "v3";
  readonly provider = "longcat";
  readonly modelId: string;
  /** The model reads text alone. */
  readonly supportedUrls: Record<string, RegExp[]> = {};
  readonly #engine: LongcatEngine;
  readonly #defaults: LongcatProviderOptions;

  constructor(engine: LongcatEngine, modelId: string, defaults: LongcatProviderOptions) {
    this.#engine = engine;
    this.modelId = modelId;
    this.#defaults = defaults;
  }

  /** One answer, whole. */
  async doGenerate(options: LanguageModelV3CallOptions): Promise<LanguageModelV3GenerateResult> {
    const { prompt, params, warnings } = this.#call(options);
    try {
      const result = await this.#engine.generate(prompt, { ...params, signal: options.abortSignal });
      return {
        content: resultContent(result),
        finishReason: sdkFinishReason(result.finishReason),
        usage: sdkUsage(result.usage),
        providerMetadata: resultMetadata(result),
        response: { modelId: this.modelId, timestamp: new Date() },
        warnings,
      };
    } catch (error) {
      throw sdkError(error, options.prompt, options.abortSignal);
    }
  }

  /** One answer as it comes. What is refused is refused here; a failure on the way is the stream's last part. */
  async doStream(options: LanguageModelV3CallOptions): Promise<LanguageModelV3StreamResult> {
    const { prompt, params, warnings } = this.#call(options);
    const { abortSignal } = options;
    // Its own signal: whoever cancels the stream ends the work, even while it waits for its turn.
    const work = new AbortController();
    const forward = () => work.abort(abortSignal?.reason);
    if (abortSignal?.aborted) forward();
    else abortSignal?.addEventListener("abort", forward, { once: true });
    const over = () => abortSignal?.removeEventListener("abort", forward);

    const chunks = this.#engine.stream(prompt, { ...params, signal: work.signal });
    const parts = new StreamParts({ warnings, modelId: this.modelId, raw: options.includeRawChunks === true });
    let cancelled = false;
    let next = chunks.next();
    try {
      await next;
    } catch (error) {
      over();
      throw sdkError(error, options.prompt, abortSignal);
    }
    // The parts of the next chunk that has any: a pull that gives nothing is not followed by another.
    const pull = async (): Promise<LanguageModelV3StreamPart[] | undefined> => {
      for (;;) {
        const { done, value } = await next;
        if (done) return undefined;
        next = chunks.next();
        next.catch(() => undefined); // told where it is awaited
        const some = parts.of(value);
        if (some.length > 0) return some;
      }
    };
    const stream = new ReadableStream<LanguageModelV3StreamPart>({
      start: (controller) => {
        for (const part of parts.start()) controller.enqueue(part);
      },
      pull: async (controller) => {
        let [some, open]: [LanguageModelV3StreamPart[], boolean] = [[], false];
        try {
          const pulled = await pull();
          [some, open] = [pulled ?? parts.end(), pulled !== undefined];
        } catch (error) {
          some = [{ type: "error", error: sdkError(error, options.prompt, abortSignal) }];
        }
        if (cancelled) return;
        for (const part of some) controller.enqueue(part);
        if (open) return;
        over();
        controller.close();
      },
      cancel: async () => {
        cancelled = true;
        over();
        work.abort();
        await chunks.return(undefined).catch(() => undefined);
      },
    });
    return { stream };
  }

  #call(options: LanguageModelV3CallOptions): EngineCall {
    const own = longcatOptions(this.#defaults, options);
    const { tools, warnings } = chatTools(options.tools);
    const choice = tools.length > 0 ? toolChoice(options.toolChoice) : undefined;
    return {
      prompt: { messages: chatMessages(options.prompt), ...(tools.length > 0 && { tools }), ...own.chat },
      params: { ...generateParams(options), ...own.params, ...(choice !== undefined && { toolChoice: choice }) },
      warnings,
    };
  }
}
