/**
 * What the engine answers in the AI SDK's words.
 * @module
 */

import type {
  JSONObject,
  LanguageModelV3Content,
  LanguageModelV3FinishReason,
  LanguageModelV3Usage,
  SharedV3ProviderMetadata,
} from "@ai-sdk/provider";
import type { FinishReason, GenerateResult, Usage } from "../index.js";

/** Thoughts, answer and calls, in this order. */
export function resultContent({ reasoning, text, toolCalls = [] }: GenerateResult): LanguageModelV3Content[] {
  return [
    ...(reasoning === undefined || reasoning === "" ? [] : [{ type: "reasoning" as const, text: reasoning }]),
    ...(text === "" ? [] : [{ type: "text" as const, text }]),
    ...toolCalls.map(({ id, name, arguments: input }) => ({ type: "tool-call" as const, toolCallId: id, toolName: name, input })),
  ];
}

/** What a result says beyond the SDK's fields. */
export function resultMetadata({ routing, timings, logprobs }: GenerateResult): SharedV3ProviderMetadata {
  const longcat = { routing, timings, ...(logprobs !== undefined && { logprobs }) };
  return { longcat: longcat as unknown as JSONObject };
}

const FINISH_REASONS = { stop: "stop", length: "length", tool_calls: "tool-calls", abort: "other" } as const;

/** Why it ended; `raw` is the engine's word. */
export function sdkFinishReason(reason: FinishReason): LanguageModelV3FinishReason {
  return { unified: FINISH_REASONS[reason], raw: reason };
}

/** Counts of tokens; thoughts and answer are not counted apart. */
export function sdkUsage(usage: Usage): LanguageModelV3Usage {
  const { promptTokens, cachedTokens, completionTokens } = usage;
  return {
    inputTokens: { total: promptTokens, noCache: promptTokens - cachedTokens, cacheRead: cachedTokens, cacheWrite: undefined },
    outputTokens: { total: completionTokens, text: undefined, reasoning: undefined },
    raw: { ...usage },
  };
}
