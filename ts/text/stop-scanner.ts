/**
 * Stop strings in text that arrives in pieces: never shown, not even in part.
 * @module
 */
import { LongcatError } from "../errors.js";

interface Pattern {
  text: string;
  /** `fallback[i]`: length of the longest proper prefix that is also a suffix of the first i + 1 units. */
  fallback: Int32Array;
  /** How many units of the pattern the text seen so far ends with. */
  matched: number;
}

/**
 * Looks for several stop strings at once, unit by unit, so that the result does not depend on how the text is cut.
 * The stop string that ends first wins; of several that end together, the longest.
 */
export class StopScanner {
  readonly #patterns: Pattern[];
  #held = "";
  /** A stop string was found; nothing more comes out. */
  stopped = false;

  constructor(stops: readonly string[]) {
    if (stops.some((stop) => stop === "")) throw new LongcatError("OPTION_INVALID", "stop: a stop string must not be empty");
    this.#patterns = stops.map((text) => ({ text, fallback: fallbacks(text), matched: 0 }));
  }

  /** The text that is certainly before any stop string. */
  push(text: string): string {
    if (this.stopped) return "";
    if (this.#patterns.length === 0 || text === "") return text;
    const all = this.#held + text;
    for (let at = 0; at < text.length; at++) {
      const found = this.#step(text.charCodeAt(at));
      if (found > 0) {
        this.stopped = true;
        this.#held = "";
        return all.slice(0, this.#lengthUpTo(all, text, at) - found);
      }
    }
    const kept = Math.max(...this.#patterns.map((pattern) => pattern.matched));
    this.#held = all.slice(all.length - kept);
    return all.slice(0, all.length - kept);
  }

  /** What was held back, when the text ends without a stop string. */
  end(): string {
    const held = this.#held;
    this.#held = "";
    for (const pattern of this.#patterns) pattern.matched = 0;
    return held;
  }

  #lengthUpTo(all: string, text: string, at: number): number {
    return all.length - text.length + at + 1;
  }

  /** Takes one unit; the length of the longest stop string that ends here, or 0. */
  #step(unit: number): number {
    let longest = 0;
    for (const pattern of this.#patterns) {
      let matched = pattern.matched;
      while (matched > 0 && pattern.text.charCodeAt(matched) !== unit) matched = pattern.fallback[matched - 1] as number;
      if (pattern.text.charCodeAt(matched) === unit) matched++;
      pattern.matched = matched;
      if (matched === pattern.text.length) longest = Math.max(longest, matched);
    }
    return longest;
  }
}

function fallbacks(text: string): Int32Array {
  const table = new Int32Array(text.length);
  for (let at = 1, length = 0; at < text.length; at++) {
    while (length > 0 && text.charCodeAt(at) !== text.charCodeAt(length)) length = table[length - 1] as number;
    if (text.charCodeAt(at) === text.charCodeAt(length)) length++;
    table[at] = length;
  }
  return table;
}
