/**
 * One choice while it is generated: tokens in, chunks out, and the finished answer. Decides when a generation ends.
 * @module
 */

import { LongcatError } from "../errors.js";
import type { Guide } from "../grammar/index.js";
import type { DrawnToken } from "../model/runner-types.js";
import type { TextDelta, ToolCall } from "../text/types.js";
import type { RoutingSum } from "./sequence.js";
import type { Choice, Chunk, DraftUse, FinishReason, Routing, Timings, TokenAlternative, TokenLogprob } from "./types.js";

/** What log-probabilities of −∞ are written as, since JSON has no infinity. */
const LOGPROB_FLOOR = -9999;

/** Turns generated tokens into text, reasoning and tool calls; see OutputParser. */
export interface TokenParser {
  push(token: number): TextDelta;
  end(): TextDelta;
  /** Everything so far; `reasoning` is there if the answer had any, even if it is empty. */
  result(): { text: string; reasoning?: string; toolCalls?: readonly ToolCall[] };
}

/** What a choice needs to know of its request. */
export interface ChoiceRules {
  index: number;
  promptTokens: number;
  maxNewTokens: number;
  /** Model's end tokens; empty with ignoreEos. */
  endTokens: ReadonlySet<number>;
  stopTokens: ReadonlySet<number>;
  /** −1: none. */
  logprobs: number;
  parser: TokenParser;
  /** Keeps the choice to a format, and knows when its answer is whole. */
  guide?: Guide;
  tokenBytes(id: number): Uint8Array | readonly number[];
  /** Milliseconds from the call to the end of the step that drew what is pushed: a busy host tells several steps at once. */
  stepOverMs(): number;
  /** Milliseconds since the call. */
  elapsedMs(): number;
}

/** What a choice's sequence knows of itself. */
export interface SequenceFacts {
  routing: RoutingSum;
  cachedTokens: number;
  /** Undefined: no drafts were verified. */
  drafts: DraftUse | undefined;
}

const NO_DELTA: TextDelta = { text: "", reasoning: "", toolCalls: [], stopped: false };

export class ChoiceOutput {
  readonly #rules: ChoiceRules;
  readonly #tokens: number[] = [];
  readonly #logprobs: TokenLogprob[] = [];
  /** The ends of the first step that drew, how many tokens that one drew, and of the last. */
  #firstMs: number | undefined;
  #firstTokens = 0;
  #lastMs = 0;
  #finish: FinishReason | undefined;

  constructor(rules: ChoiceRules) {
    this.#rules = rules;
  }

  get finished(): boolean {
    return this.#finish !== undefined;
  }

  get numTokens(): number {
    return this.#tokens.length;
  }

  /** Takes a drawn token, and the FFN experts that the token before it used; its chunks (the last of them with finishReason once the choice has ended). */
  push(drawn: DrawnToken, ffnExperts: Uint8Array | undefined): Chunk[] {
    this.#lastMs = this.#rules.stepOverMs();
    this.#firstMs ??= this.#lastMs;
    if (this.#lastMs === this.#firstMs) this.#firstTokens += 1;
    this.#tokens.push(drawn.token);
    const { delta, finish } = this.#read(drawn.token);
    this.#finish = finish;
    const chunks = this.#chunks(delta, [drawn.token]);
    (chunks[0] as Chunk).routing = { ffnExperts: [numbersOf(ffnExperts)] };
    if (this.#rules.logprobs >= 0) {
      const entry = this.#logprobOf(drawn);
      this.#logprobs.push(entry);
      (chunks[0] as Chunk).logprobs = [entry];
    }
    return chunks;
  }

  /** Ends a choice that has not ended by a token; releases held text. */
  end(reason: "length" | "abort"): Chunk[] {
    if (this.#finish !== undefined) return [];
    this.#finish = reason;
    if (this.#tokens.length === 0) this.#lastMs = this.#rules.elapsedMs();
    return this.#chunks(this.#rules.parser.end(), []);
  }

  /** The answer so far, given what its sequence knows. */
  result({ routing, cachedTokens, drafts }: SequenceFacts, shape: { numLayers: number; topK: number }): Choice {
    const { promptTokens, logprobs, parser } = this.#rules;
    const { text, reasoning, toolCalls = [] } = parser.result();
    return {
      text,
      tokens: [...this.#tokens],
      finishReason: this.#finish ?? "abort",
      usage: { promptTokens, cachedTokens, completionTokens: this.#tokens.length },
      timings: { ...this.#timings(), ...(drafts && { drafts }) },
      routing: averageRouting(routing, shape),
      ...(toolCalls.length > 0 && { toolCalls: [...toolCalls] }),
      ...(reasoning !== undefined && { reasoning }),
      ...(logprobs >= 0 && { logprobs: [...this.#logprobs] }),
    };
  }

  /** What a token adds, and whether it ends the choice: an end token, else a stop string, else the end of its format, else the limit. */
  #read(token: number): { delta: TextDelta; finish: FinishReason | undefined } {
    const { endTokens, stopTokens, maxNewTokens, parser, guide } = this.#rules;
    guide?.accept(token);
    if (endTokens.has(token) || stopTokens.has(token)) return this.#whole(parser.end());
    const delta = parser.push(token);
    if (delta.stopped) return { delta, finish: "stop" };
    if (guide?.isComplete) return this.#whole(join(delta, parser.end()));
    if (this.#tokens.length < maxNewTokens) return { delta, finish: undefined };
    return { delta: join(delta, parser.end()), finish: "length" };
  }

  /** The end of an answer that is whole. */
  #whole(delta: TextDelta): { delta: TextDelta; finish: FinishReason } {
    const called = (this.#rules.parser.result().toolCalls ?? []).length > 0;
    return { delta, finish: called ? "tool_calls" : "stop" };
  }

  #chunks(delta: TextDelta, tokens: number[]): Chunk[] {
    const { index } = this.#rules;
    const chunk: Chunk = { index, text: delta.text, tokens };
    if (delta.reasoning !== "") chunk.reasoning = delta.reasoning;
    const chunks = [chunk];
    delta.toolCalls.forEach((toolCallDelta, i) => {
      if (i === 0) chunk.toolCallDelta = toolCallDelta;
      else chunks.push({ index, text: "", tokens: [], toolCallDelta });
    });
    if (this.#finish !== undefined) this.#endWith(chunks.at(-1) as Chunk, this.#finish);
    return chunks;
  }

  /** The last chunk says how the choice ended, and which of its calls are whole. */
  #endWith(last: Chunk, reason: FinishReason): void {
    last.finishReason = reason;
    const { toolCalls = [] } = this.#rules.parser.result();
    if (toolCalls.length > 0) last.toolCalls = [...toolCalls];
  }

  #logprobOf(drawn: DrawnToken): TokenLogprob {
    const top = drawn.top.map(({ token, logprob }) => this.#alternative(token, logprob));
    return { ...this.#alternative(drawn.token, drawn.logprob), top };
  }

  #alternative(token: number, logprob: number): TokenAlternative {
    return { token, bytes: Array.from(this.#rules.tokenBytes(token)), logprob: finiteLogprob(logprob) };
  }

  #timings(): Timings {
    const first = this.#firstMs ?? this.#lastMs;
    const later = this.#tokens.length - this.#firstTokens;
    return { ttftMs: first, tokensPerSecond: later > 0 ? (1000 * later) / (this.#lastMs - first) : 0 };
  }
}

/** Bytes as plain numbers. A loop: `Array.from` goes through an iterator, which costs more than all else that a token takes here. */
function numbersOf(bytes: Uint8Array = new Uint8Array()): number[] {
  const numbers: number[] = [];
  for (let i = 0; i < bytes.length; i++) numbers.push(bytes[i] as number);
  return numbers;
}

/** A log-probability that JSON can carry. */
export function finiteLogprob(logprob: number): number {
  if (Number.isNaN(logprob)) throw new LongcatError("INTERNAL", "a log-probability is not a number");
  return Math.max(logprob, LOGPROB_FLOOR);
}

/** Averages over tokens and layers; no token at all gives zeros. */
export function averageRouting(sum: RoutingSum, shape: { numLayers: number; topK: number }): Routing {
  const rows = sum.tokens * shape.numLayers;
  const ffnExpertsPerToken = rows > 0 ? sum.experts / rows : 0;
  return { ffnExpertsPerToken, zeroExpertShare: rows > 0 ? 1 - ffnExpertsPerToken / shape.topK : 0 };
}

function join(a: TextDelta, b: TextDelta): TextDelta {
  return {
    text: a.text + b.text,
    reasoning: a.reasoning + b.reasoning,
    toolCalls: [...a.toolCalls, ...b.toolCalls],
    stopped: a.stopped || b.stopped,
  };
}

/** The parser of a checkpoint without a tokenizer: no text. */
export const SILENT_PARSER: TokenParser = {
  push: () => NO_DELTA,
  end: () => NO_DELTA,
  result: () => ({ text: "" }),
};
