/**
 * Settings of an AI SDK call as parameters of a generation.
 * @module
 */

import { InvalidArgumentError, type LanguageModelV3CallOptions } from "@ai-sdk/provider";
import type { ChatPrompt, GenerateParams, ResponseFormat, ToolChoice } from "../index.js";

/** What a call may ask of the engine beyond the SDK's own settings: `providerOptions: { longcat: { … } }`. */
export interface LongcatProviderOptions extends Pick<GenerateParams, GenerateOption> {
  /** Whether the model thinks before it answers. */
  enableThinking?: boolean | null;
  /** Further variables of the chat template; only names that it reads. */
  templateArgs?: Record<string, unknown> | null;
}

const GENERATE_OPTIONS = ["minP", "repetitionPenalty", "logitBias", "stopTokens", "ignoreEos", "logprobs"] as const;
const CHAT_OPTIONS = ["enableThinking", "templateArgs"] as const;
type GenerateOption = (typeof GENERATE_OPTIONS)[number];

/** Names of {@link LongcatProviderOptions}. */
export const OPTION_NAMES: readonly string[] = [...GENERATE_OPTIONS, ...CHAT_OPTIONS];

/** A call's own options over the defaults, and which part of the engine's call they belong to. */
export function longcatOptions(
  defaults: LongcatProviderOptions,
  { providerOptions }: LanguageModelV3CallOptions,
): { params: Pick<GenerateParams, GenerateOption>; chat: Pick<ChatPrompt, "enableThinking" | "templateArgs"> } {
  const options: Record<string, unknown> = { ...defaults, ...providerOptions?.["longcat"] };
  for (const name of Object.keys(options)) {
    if (OPTION_NAMES.includes(name)) continue;
    const argument = `providerOptions.longcat.${name}`;
    throw new InvalidArgumentError({ argument, message: `${argument} is not known; known are ${OPTION_NAMES.join(", ")}` });
  }
  const pick = (names: readonly string[]) =>
    Object.fromEntries(names.filter((name) => name in options).map((name) => [name, options[name]]));
  return { params: pick(GENERATE_OPTIONS), chat: pick(CHAT_OPTIONS) };
}

/** The SDK's own settings. */
export function generateParams(options: LanguageModelV3CallOptions): GenerateParams {
  const { maxOutputTokens, stopSequences, temperature, topP, topK, presencePenalty, frequencyPenalty, seed } = options;
  return {
    ...{ maxTokens: maxOutputTokens, stop: stopSequences, temperature, topP, topK, presencePenalty, frequencyPenalty, seed },
    responseFormat: responseFormat(options.responseFormat),
  };
}

/** Which tool is to be called; absent where there are no tools. */
export function toolChoice(choice: LanguageModelV3CallOptions["toolChoice"]): ToolChoice | undefined {
  if (choice === undefined) return undefined;
  return choice.type === "tool" ? { type: "function", function: { name: choice.toolName } } : choice.type;
}

function responseFormat(format: LanguageModelV3CallOptions["responseFormat"]): ResponseFormat | undefined {
  if (format === undefined || format.type === "text") return undefined;
  if (format.schema === undefined) return { type: "json_object" };
  return { type: "json_schema", json_schema: { name: format.name ?? "answer", schema: format.schema } };
}
