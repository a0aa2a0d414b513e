/**
 * From what a caller hands in to token ids and a parser for what comes out. All checks of prompts are here.
 * @module
 */

import { absent, invalid, isPlain, rejectUnknown, show } from "../checks.js";
import { LongcatError } from "../errors.js";
import type { Parameters, VocabularyFacts } from "../sampling/parameters.js";
import type { CallForm, ChatPrompt, EncodeResult, Tool, ToolChoice } from "../text/index.js";
import type { Grammars, NewGuide } from "../grammar/index.js";
import { SILENT_PARSER, type TokenParser } from "./choice.js";
import { type GuidedCall, guidesOf } from "./guided.js";
import type { Prompt, TokenPrompt } from "./types.js";

/** What the engine needs of a checkpoint's tokenizer and template; see text-tools.ts. */
export interface TextTools {
  readonly hasTemplate: boolean;
  /** Ids that the tokenizer has. */
  readonly allowedIds: readonly number[];
  readonly endTokenIds: readonly number[];
  /** `maxTokens`: a text that certainly has more may be refused before any work. */
  encode(text: string, options: { parseSpecial: boolean; maxTokens: number }): Promise<EncodeResult>;
  /** Checks, renders and encodes. `newParser` reads the answer of this chat: reasoning and tool calls as its template writes them. */
  encodeChat(chat: ChatPrompt, options: { maxTokens: number }): Promise<EncodeResult & EncodedAnswer>;
  /** Reads the continuation of raw text or ids: as it is, tags and special tokens written out, but no end token. */
  newParser(stop: readonly string[]): TokenParser;
  decode(ids: readonly number[]): string;
  tokenBytes(id: number): Uint8Array;
  /** Keeps answers to formats. */
  readonly grammars?: Grammars;
}

/** What a rendered chat says of the answer to come. */
export interface EncodedAnswer extends Pick<PreparedPrompt, "newParser"> {
  /** Tools that the prompt shows. */
  tools?: readonly Tool[];
  /** How the model writes calls. Default JSON. */
  callForm?: CallForm;
  /** Whether the prompt has opened reasoning. */
  startsInReasoning?: boolean | string;
}

/** A prompt ready to run. */
export interface PreparedPrompt {
  ids: readonly number[];
  /** A prompt of which another engine over this checkpoint makes the same: a chat, or ids. */
  source: ChatPrompt | TokenPrompt;
  newParser(stop: readonly string[]): TokenParser;
  /** Makes the guide of a choice; absent: its answer is free. */
  newGuide?: NewGuide;
}

/** Parameters that say how a prompt is read. */
export type PromptParameters = Pick<Parameters, "parseSpecial" | "toolChoice"> & Partial<Pick<Parameters, "responseFormat" | "ignoreEos">>;

/** What prompts are checked against. */
export interface PromptLimits {
  vocabulary: number;
  /** The model's context. */
  modelContext: number;
  /** What the cache holds of it. */
  contextLength: number;
}

/**
 * Encodes and checks one prompt.
 *
 * @throws LongcatError `PROMPT_INVALID`, `CONTEXT_OVERFLOW` (prompt longer than the model's context), `OUT_OF_MEMORY` (longer than what the
 * cache holds), `OPTION_INVALID` (parameters that do not fit this kind of prompt).
 */
export async function preparePrompt(
  prompt: Prompt,
  parameters: PromptParameters,
  limits: PromptLimits,
  text: TextTools | undefined,
): Promise<PreparedPrompt> {
  const { call, ...prepared } = await encodePrompt(prompt, parameters, limits, text);
  checkLength(prepared.ids.length, limits);
  const newGuide = await guidesOf({ parameters, inReasoning: false, ...call }, text);
  return newGuide === undefined ? prepared : { ...prepared, newGuide };
}

/** A prompt's ids, and of a chat what decides on the format of its answer. */
type Encoded = Omit<PreparedPrompt, "newGuide"> & { call?: Omit<GuidedCall, "parameters"> };

async function encodePrompt(
  prompt: unknown,
  parameters: PromptParameters,
  limits: PromptLimits,
  text: TextTools | undefined,
): Promise<Encoded> {
  if (isPlain(prompt) && "messages" in prompt) return encodeChat(prompt, parameters, limits, text);
  if (!absent(parameters.toolChoice)) throw new LongcatError("OPTION_INVALID", "toolChoice: needs a chat prompt ({ messages, tools })");
  if (typeof prompt === "string") {
    const { parseSpecial } = parameters;
    const given = tools(text, "a string prompt");
    const encoded = await given.encode(prompt, { parseSpecial, maxTokens: limits.modelContext });
    const ids = idsOf(encoded, limits);
    return { ids, source: { tokens: ids }, newParser: (stop) => given.newParser(stop) };
  }
  if (parameters.parseSpecial) throw new LongcatError("OPTION_INVALID", "parseSpecial: needs a string prompt");
  if (!isPlain(prompt) || !("tokens" in prompt)) throw invalid("prompt", prompt, "a string, { messages } or { tokens }", "PROMPT_INVALID");
  rejectUnknown(prompt, ["tokens"], "field of a token prompt", "PROMPT_INVALID");
  checkNumber(prompt["tokens"], limits);
  const ids = checkIds(prompt["tokens"], "tokens", limits.vocabulary);
  return { ids, source: { tokens: ids }, newParser: (stop) => text?.newParser(stop) ?? SILENT_PARSER };
}

async function encodeChat(
  prompt: Record<string, unknown>,
  parameters: PromptParameters,
  limits: PromptLimits,
  text: TextTools | undefined,
): Promise<Encoded> {
  if (parameters.parseSpecial)
    throw new LongcatError("OPTION_INVALID", "parseSpecial: a chat's content never becomes special tokens; needs a string prompt");
  const given = tools(text, "a chat prompt");
  if (!given.hasTemplate)
    throw new LongcatError(
      "PROMPT_INVALID",
      "this checkpoint has no chat template: a chat prompt is not accepted; give a string or { tokens }",
    );
  const { messages } = prompt;
  if (Array.isArray(messages)) checkContext(messages.length, limits); // a message is a token at least: too many need no rendering
  const toolChoice = toolChoiceOf(prompt, parameters) as ToolChoice | undefined; // encodeChat checks it
  const chat = { ...prompt, toolChoice } as unknown as ChatPrompt;
  const encoded = await given.encodeChat(chat, { maxTokens: limits.modelContext });
  const { newParser, tools: shown = [], callForm, startsInReasoning = false } = encoded;
  const call = { ...(!absent(toolChoice) && { toolChoice }), tools: shown, callForm, inReasoning: startsInReasoning !== false };
  return { ids: idsOf(encoded, limits), source: chat, newParser, call };
}

function idsOf(encoded: EncodeResult, limits: PromptLimits): readonly number[] {
  if (!encoded.tooLong) return encoded.ids;
  throw new LongcatError("CONTEXT_OVERFLOW", `the prompt has at least ${encoded.atLeast} tokens; the context has ${limits.modelContext}`);
}

/** A tool choice may stand in the prompt or in the parameters; two that differ are refused. */
function toolChoiceOf(prompt: Record<string, unknown>, { toolChoice }: PromptParameters): unknown {
  const own = prompt["toolChoice"];
  if (absent(own) || absent(toolChoice)) return own ?? toolChoice;
  if (JSON.stringify(own) !== JSON.stringify(toolChoice))
    throw new LongcatError("OPTION_INVALID", `toolChoice: the prompt says ${show(own)} and the parameters ${show(toolChoice)}; give one`);
  return own;
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

/** Refuses too many ids before any of them is looked at. */
function checkNumber(tokens: unknown, limits: PromptLimits): void {
  if (Array.isArray(tokens) || tokens instanceof Int32Array || tokens instanceof Uint32Array) checkContext(tokens.length, limits);
}

function checkContext(length: number, limits: PromptLimits): void {
  if (length > limits.modelContext)
    throw new LongcatError("CONTEXT_OVERFLOW", `the prompt has ${length} tokens; the context has ${limits.modelContext}`);
}

function checkLength(length: number, limits: PromptLimits): void {
  if (length === 0) throw new LongcatError("PROMPT_INVALID", "the prompt is empty; give at least one token");
  checkContext(length, limits);
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
