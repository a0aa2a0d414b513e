/**
 * Quality filters: a document stays if its text passes all that the source asks for.
 * @module
 */

/** Bounds; what is absent is not asked for. */
export interface FilterOptions {
  /** UTF-16 units of the text. */
  minLength?: number;
  maxLength?: number;
  /** Share of runs of three words that stood in the document before, at most. */
  maxRepeated?: number;
  /** Share of letters and digits among what is not white space, at least. */
  minLetters?: number;
  /** Share of control characters and U+FFFD (bytes that were no text), at most. */
  maxBroken?: number;
}

/** The bounds by name: those of lengths, and those of shares. */
export const LENGTH_BOUNDS = ["minLength", "maxLength"] as const;
export const SHARE_BOUNDS = ["maxRepeated", "minLetters", "maxBroken"] as const;

/** Whether a text passes. */
export function passes(text: string, filter: FilterOptions): boolean {
  const { minLength = 0, maxLength = Number.POSITIVE_INFINITY, maxRepeated = 1, minLetters = 0, maxBroken = 1 } = filter;
  return (
    text.length >= minLength &&
    text.length <= maxLength &&
    repeatedShare(text) <= maxRepeated &&
    shareOf(text, /[\p{L}\p{N}]/gu, /\S/gu) >= minLetters &&
    shareOf(text, /(?![\t\n\r])[\p{Cc}\uFFFD]/gu, /./gsu) <= maxBroken
  );
}

/** Share of a document's runs of three words that it had before; 0 for fewer than three words. */
function repeatedShare(text: string): number {
  const words = text.toLowerCase().match(/\S+/g) ?? [];
  const runs = words.slice(2).map((word, i) => `${words[i]} ${words[i + 1]} ${word}`);
  return runs.length === 0 ? 0 : 1 - new Set(runs).size / runs.length;
}

function shareOf(text: string, some: RegExp, all: RegExp): number {
  const count = text.match(all)?.length ?? 0;
  return count === 0 ? 0 : (text.match(some)?.length ?? 0) / count;
}
