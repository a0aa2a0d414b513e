/**
 * Shapes of OpenAI's answers that chat and completions share.
 * @module
 */

import { randomBytes } from "node:crypto";
import type { TokenAlternative, TokenLogprob, Usage } from "../index.js";

/** What all frames of an answer have alike. */
export interface AnswerHead {
  id: string;
  created: number;
  model: string;
}

export function answerHead(prefix: string, model: string): AnswerHead {
  return { id: `${prefix}-${randomBytes(12).toString("hex")}`, created: Math.floor(Date.now() / 1000), model };
}

export function usageOf({ promptTokens, completionTokens, cachedTokens }: Usage): object {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: cachedTokens },
  };
}

export function addUsage(a: Usage, b: Usage): Usage {
  return {
    promptTokens: a.promptTokens + b.promptTokens,
    cachedTokens: a.cachedTokens + b.cachedTokens,
    completionTokens: a.completionTokens + b.completionTokens,
  };
}

export const NO_USAGE: Usage = { promptTokens: 0, cachedTokens: 0, completionTokens: 0 };

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** A token's text; one that is only part of a character as OpenAI writes it, `bytes:\xe4\xb8`. Without a tokenizer its id. */
export function tokenText({ token, bytes }: TokenAlternative): string {
  if (bytes.length === 0) return `token_id:${token}`;
  try {
    return strict.decode(Uint8Array.from(bytes));
  } catch {
    return `bytes:${bytes.map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("")}`;
  }
}

/** An entry of a chat's `logprobs.content`. */
export function chatLogprob(entry: TokenLogprob): object {
  const one = (alternative: TokenAlternative) => ({
    token: tokenText(alternative),
    logprob: alternative.logprob,
    bytes: alternative.bytes,
  });
  return { ...one(entry), top_logprobs: entry.top.map(one) };
}

/** Where each token's text begins in the text of a completion, in UTF-16 units as JavaScript counts. */
export class TextOffsets {
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  #length = 0;

  next({ bytes }: TokenAlternative): number {
    const start = this.#length;
    this.#length += this.#decoder.decode(Uint8Array.from(bytes), { stream: true }).length;
    return start;
  }
}

/** The alternatives of one token of a completion, by their text; the chosen token is always listed. */
export function alternatives(entry: TokenLogprob): Record<string, number> {
  const all: Record<string, number> = Object.create(null) as Record<string, number>;
  for (const one of [...entry.top, entry]) {
    const text = tokenText(one);
    all[text] = Math.max(all[text] ?? one.logprob, one.logprob);
  }
  return all;
}

/** The four arrays of a completion's `logprobs`. */
export function completionLogprobs(entries: readonly TokenLogprob[], offsets: TextOffsets): object {
  return {
    tokens: entries.map(tokenText),
    token_logprobs: entries.map(({ logprob }) => logprob),
    top_logprobs: entries.map((entry) => (entry.top.length > 0 ? alternatives(entry) : null)),
    text_offset: entries.map((entry) => offsets.next(entry)),
  };
}

const SLICE = 64;

/** A JSON array in pieces, so that a long one does not hold the event loop. */
export function* arrayPieces<T>(items: readonly T[], toJson: (item: T) => unknown): Generator<string> {
  yield "[";
  for (let i = 0; i < items.length; i += SLICE)
    yield (i > 0 ? "," : "") +
      items
        .slice(i, i + SLICE)
        .map((item) => JSON.stringify(toJson(item)))
        .join(",");
  yield "]";
}

/** The `routing` of a frame: FFN experts by token and layer, and how many experts a token picks. */
export function routingOf(ffnExperts: readonly number[][], topK: number): object {
  return { ffn_experts: ffnExperts, top_k: topK };
}

/** The same of a whole choice, in pieces. */
export function* routingPieces(ffnExperts: readonly number[][], topK: number): Generator<string> {
  yield '{"ffn_experts":';
  yield* arrayPieces(ffnExperts, (counts) => counts);
  yield `,"top_k":${topK}}`;
}

/** `{"a":1` … of an object to which fields will be added. */
export function openObject(value: object): string {
  return JSON.stringify(value).slice(0, -1);
}
