/**
 * From what a caller hands in to token ids and a parser for what comes out. All checks of prompts are here.
 * @module
 */

import { absent, boolean, invalid, isPlain, record, rejectUnknown, show } from "../checks.js";
import { LongcatError } from "../errors.js";
import { checkToolChoice, type Parameters, type VocabularyFacts } from "../sampling/parameters.js";
import type { Message, Tool } from "../text/types.js";
import { SILENT_PARSER, type TokenParser } from "./choice.js";
import type { Prompt } from "./types.js";

/** A chat after the engine's checks; the template checks messages and tools. */
export interface ChatRequest {
  messages: readonly Message[];
  tools: readonly Tool[];
  enableThinking?: boolean;
  templateArgs?: Readonly<Record<string, unknown>>;
}

/** What the engine needs of a checkpoint's tokenizer and template; see text-tools.ts. */
export interface TextTools {
  readonly hasTemplate: boolean;
  /** Ids that the tokenizer has. */
  readonly allowedIds: readonly number[];
  readonly endTokenIds: readonly number[];
  encode(text: string, parseSpecial: boolean): Promise<readonly number[]>;
  /** `newParser` reads the answer of this chat: reasoning and tool calls as its template writes them. */
  encodeChat(chat: ChatRequest): Promise<{ ids: readonly number[]; newParser(stop: readonly string[]): TokenParser }>;
  /** Reads the continuation of raw text: no reasoning, no tool calls. */
  newParser(stop: readonly string[]): TokenParser;
  decode(ids: readonly number[]): string;
  tokenBytes(id: number): Uint8Array;
}

/** A prompt ready to run. */
export interface PreparedPrompt {
  ids: readonly number[];
  newParser(stop: readonly string[]): TokenParser;
}

/** What prompts are checked against. */
export interface PromptLimits {
  vocabulary: number;
  /** The model's context. */
  modelContext: number;
  /** What the cache holds of it. */
  contextLength: number;
}

const CHAT_KEYS = ["messages", "tools", "toolChoice", "enableThinking", "templateArgs"] as const;

/**
 * Encodes and checks one prompt.
 *
 * @throws LongcatError `PROMPT_INVALID`, `CONTEXT_OVERFLOW` (prompt longer than the model's context), `OUT_OF_MEMORY` (longer than what the
 * cache holds), `OPTION_INVALID` (parameters that do not fit this kind of prompt).
 */
export async function preparePrompt(
  prompt: Prompt,
  parameters: Pick<Parameters, "parseSpecial" | "toolChoice">,
  limits: PromptLimits,
  text: TextTools | undefined,
): Promise<PreparedPrompt> {
  const prepared = await encodePrompt(prompt, parameters, limits, text);
  checkLength(prepared.ids.length, limits);
  return prepared;
}

async function encodePrompt(
  prompt: unknown,
  parameters: Pick<Parameters, "parseSpecial" | "toolChoice">,
  limits: PromptLimits,
  text: TextTools | undefined,
): Promise<PreparedPrompt> {
  if (isPlain(prompt) && "messages" in prompt) return encodeChat(prompt, parameters, text);
  if (!absent(parameters.toolChoice)) throw new LongcatError("OPTION_INVALID", "toolChoice: needs a chat prompt ({ messages, tools })");
  if (typeof prompt === "string") {
    const ids = await tools(text, "a string prompt").encode(prompt, parameters.parseSpecial);
    return { ids, newParser: (stop) => tools(text, "text").newParser(stop) };
  }
  if (parameters.parseSpecial) throw new LongcatError("OPTION_INVALID", "parseSpecial: needs a string prompt");
  if (!isPlain(prompt) || !("tokens" in prompt))
    throw invalid("prompt", prompt, "a string, { messages } or { tokens }", "PROMPT_INVALID");
  rejectUnknown(prompt, ["tokens"], "field of a token prompt", "PROMPT_INVALID");
  const ids = checkIds(prompt["tokens"], "tokens", limits.vocabulary);
  return { ids, newParser: (stop) => text?.newParser(stop) ?? SILENT_PARSER };
}

async function encodeChat(
  prompt: Record<string, unknown>,
  parameters: Pick<Parameters, "parseSpecial" | "toolChoice">,
  text: TextTools | undefined,
): Promise<PreparedPrompt> {
  rejectUnknown(prompt, CHAT_KEYS, "field of a chat prompt", "PROMPT_INVALID");
  if (parameters.parseSpecial)
    throw new LongcatError("OPTION_INVALID", "parseSpecial: a chat's content never becomes special tokens; needs a string prompt");
  const given = tools(text, "a chat prompt");
  if (!given.hasTemplate)
    throw new LongcatError("PROMPT_INVALID", "this checkpoint has no chat template: a chat prompt is not accepted; give a string or { tokens }");
  const { messages, tools: toolList } = prompt;
  if (!Array.isArray(messages) || messages.length === 0)
    throw invalid("messages", messages, "an array of at least one message", "PROMPT_INVALID");
  if (!absent(toolList) && !Array.isArray(toolList)) throw invalid("tools", toolList, "an array of tools", "PROMPT_INVALID");
  const chat: ChatRequest = {
    messages: messages as Message[],
    tools: toolChoiceOf(prompt, parameters) === "none" ? [] : ((toolList ?? []) as Tool[]),
  };
  if (!absent(prompt["enableThinking"])) chat.enableThinking = boolean(prompt["enableThinking"], "enableThinking");
  if (!absent(prompt["templateArgs"])) chat.templateArgs = record(prompt["templateArgs"], "templateArgs", "PROMPT_INVALID");
  return given.encodeChat(chat);
}

/** A tool choice may stand in the prompt or in the parameters; two that differ are refused. */
function toolChoiceOf(prompt: Record<string, unknown>, parameters: Pick<Parameters, "toolChoice">): "auto" | "none" {
  const own = absent(prompt["toolChoice"]) ? undefined : checkToolChoice(prompt["toolChoice"], "prompt.toolChoice");
  const other = parameters.toolChoice;
  if (own !== undefined && other !== undefined && own !== other)
    throw new LongcatError("OPTION_INVALID", `toolChoice: the prompt says ${show(own)} and the parameters ${show(other)}; give one`);
  return own ?? other ?? "auto";
}

function tools(text: TextTools | undefined, what: string): TextTools {
  if (text === undefined)
    throw new LongcatError("PROMPT_INVALID", `this checkpoint has no tokenizer: ${what} is not accepted; give { tokens: [...] }`);
  return text;
}

/** Token ids within the vocabulary, as an array. */
export function checkIds(value: unknown, field: string, vocabulary: number): readonly number[] {
  const ids = value instanceof Int32Array || value instanceof Uint32Array ? Array.from(value) : value;
  if (!Array.isArray(ids)) throw invalid(field, value, "an array of token ids", "PROMPT_INVALID");
  for (let i = 0; i < ids.length; i++) {
    const id: unknown = ids[i];
    if (typeof id !== "number" || !Number.isInteger(id) || id < 0 || id >= vocabulary)
      throw invalid(`${field}[${i}]`, id, `a token id from 0 to ${vocabulary - 1}`, "PROMPT_INVALID");
  }
  return [...(ids as number[])];
}

function checkLength(length: number, limits: PromptLimits): void {
  if (length === 0) throw new LongcatError("PROMPT_INVALID", "the prompt is empty; give at least one token");
  if (length > limits.modelContext)
    throw new LongcatError("CONTEXT_OVERFLOW", `the prompt has ${length} tokens; the context has ${limits.modelContext}`);
  if (length > limits.contextLength)
    throw new LongcatError(
      "OUT_OF_MEMORY",
      `the prompt has ${length} tokens; there is cache for ${limits.contextLength}: give a shorter prompt, or more cacheBytes at load`,
    );
}

/** The facts that parameters are checked against. */
export function vocabularyFacts(size: number, text: TextTools | undefined): VocabularyFacts {
  const allowed = text === undefined ? undefined : new Set(text.allowedIds);
  return { size, has: (id) => allowed?.has(id) ?? true, hasTokenizer: text !== undefined };
}
