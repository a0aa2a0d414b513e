/**
 * From what a caller hands in to token ids, and from these to what reads the answer. All checks of prompts are here. What lies between is plain data: a
 * prompt is rendered, encoded and checked once, in the process that the call came to; the one that runs it makes parser and guides.
 * @module
 */

import { absent, invalid, isPlain, rejectUnknown, show } from "../checks.js";
import { LongcatError } from "../errors.js";
import type { Parameters, VocabularyFacts } from "../sampling/parameters.js";
import type { ChatAnswer, ChatPrompt, EncodeResult, ToolChoice } from "../text/index.js";
import type { AnswerFormat, Grammars, NewGuide } from "../grammar/index.js";
import { SILENT_PARSER, type TokenParser } from "./choice.js";
import { answerFormat } from "./guided.js";
import type { Prompt } from "./types.js";

/** What the engine needs of a checkpoint's tokenizer and template; see text-tools.ts. */
export interface TextTools {
  readonly hasTemplate: boolean;
  /** Ids that the tokenizer has. */
  readonly allowedIds: readonly number[];
  readonly endTokenIds: readonly number[];
  /** `maxTokens`: a text that certainly has more may be refused before any work. */
  encode(text: string, options: { parseSpecial: boolean; maxTokens: number }): Promise<EncodeResult>;
  /** Checks, renders and encodes. */
  encodeChat(chat: ChatPrompt, options: { maxTokens: number }): Promise<EncodeResult & ChatAnswer>;
  /**
   * Reads the answer to a chat: reasoning and tool calls as its template writes them; or the continuation of raw text or ids: as it is, tags and special
   * tokens written out, but no end token.
   */
  newParser(stop: readonly string[], chat: ChatAnswer | undefined): TokenParser;
  decode(ids: readonly number[]): string;
  tokenBytes(id: number): Uint8Array;
  /** Whether an id is a special token. */
  isSpecial(id: number): boolean;
  /** Keeps answers to formats. */
  readonly grammars?: Grammars;
}

/** A prompt that is checked, and how its answer is read: plain data, which runs the same on every engine over its checkpoint. */
export interface EncodedPrompt {
  ids: readonly number[];
  /** Of a chat. */
  chat?: ChatAnswer;
  /** What the answer is kept to; absent: it is free. */
  format?: AnswerFormat;
}

/** What reads the choices of a prompt's answer. */
export interface AnswerReader {
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
 * Encodes and checks one prompt, the format of its answer too.
 *
 * @throws LongcatError `PROMPT_INVALID`, `CONTEXT_OVERFLOW` (prompt longer than the model's context), `OUT_OF_MEMORY` (longer than what the
 * cache holds), `OPTION_INVALID` (parameters that do not fit this kind of prompt).
 */
export async function encodePrompt(
  prompt: Prompt,
  parameters: PromptParameters,
  limits: PromptLimits,
  text: TextTools | undefined,
): Promise<EncodedPrompt> {
  const { toolChoice, ...encoded } = await encode(prompt, parameters, limits, text);
  checkLength(encoded.ids.length, limits);
  const format = await answerFormat({ parameters, toolChoice, chat: encoded.chat }, text);
  return format === undefined ? encoded : { ...encoded, format };
}

/** What reads the answer to a prompt. */
export async function answerReader({ chat, format }: EncodedPrompt, text: TextTools | undefined): Promise<AnswerReader> {
  const newParser = (stop: readonly string[]): TokenParser => text?.newParser(stop, chat) ?? SILENT_PARSER;
  const newGuide = format && (await text?.grammars?.guides(format));
  return { newParser, ...(newGuide && { newGuide }) };
}

/** A prompt's ids, and of a chat what decides on its answer. */
interface Encoded extends Pick<EncodedPrompt, "ids" | "chat"> {
  toolChoice?: ToolChoice;
}

async function encode(prompt: unknown, parameters: PromptParameters, limits: PromptLimits, text: TextTools | undefined): Promise<Encoded> {
  if (isPlain(prompt) && "messages" in prompt) return encodeChat(prompt, parameters, limits, text);
  if (!absent(parameters.toolChoice)) throw new LongcatError("OPTION_INVALID", "toolChoice: needs a chat prompt ({ messages, tools })");
  if (typeof prompt === "string") {
    const { parseSpecial } = parameters;
    const encoded = await tools(text, "a string prompt").encode(prompt, { parseSpecial, maxTokens: limits.modelContext });
    return { ids: idsOf(encoded, limits) };
  }
  if (parameters.parseSpecial) throw new LongcatError("OPTION_INVALID", "parseSpecial: needs a string prompt");
  if (!isPlain(prompt) || !("tokens" in prompt)) throw invalid("prompt", prompt, "a string, { messages } or { tokens }", "PROMPT_INVALID");
  rejectUnknown(prompt, ["tokens"], "field of a token prompt", "PROMPT_INVALID");
  checkNumber(prompt["tokens"], limits);
  return { ids: checkIds(prompt["tokens"], "tokens", limits.vocabulary) };
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
  const encoded = await given.encodeChat({ ...prompt, toolChoice } as unknown as ChatPrompt, { maxTokens: limits.modelContext });
  const { tools: shown, callForm, startsInReasoning } = encoded;
  const ids = idsOf(encoded, limits);
  return { ids, chat: { tools: shown, callForm, startsInReasoning }, ...(!absent(toolChoice) && { toolChoice }) };
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
