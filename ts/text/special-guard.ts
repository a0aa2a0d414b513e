/**
 * Keeps the text of special tokens inside message content apart from the special tokens that a chat template writes.
 *
 * Before rendering, a mark (a private-use character that occurs nowhere else) is put into each stretch of content that
 * is, begins or ends like a special token. In the rendered text only the template's own tokens are then unbroken; the
 * marks are taken out of the plain text between them.
 * @module
 */
import { LongcatError } from "../errors.js";
import type { Json } from "./messages.js";

const FIRST_MARK = 0xe000;
const LAST_MARK = 0xf8ff;

/** Guards the content of one prompt. */
export class SpecialGuard {
  readonly #specials: readonly string[];
  readonly #mark: string;
  readonly #marks: RegExp;
  /** The proper beginnings and the proper ends of all special tokens. */
  readonly #heads = new Set<string>();
  readonly #tails = new Set<string>();
  readonly #longest: number;
  /** Whether any content had to be marked. */
  marked = false;

  /**
   * @param specials The texts of the tokenizer's added tokens.
   * @param texts All that goes into the rendering, the template included; the mark occurs in none.
   */
  constructor(specials: readonly string[], texts: readonly string[]) {
    this.#specials = specials;
    this.#longest = Math.max(0, ...specials.map((special) => special.length - 1));
    for (const special of specials) {
      for (let at = 1; at < special.length; at++) {
        this.#heads.add(special.slice(0, at));
        this.#tails.add(special.slice(at));
      }
    }
    const code = unusedMark(texts);
    this.#mark = String.fromCharCode(code);
    // A template may print JSON with everything beyond ASCII escaped, the mark too.
    this.#marks = new RegExp(`${this.#mark}|\\\\u${code.toString(16)}`, "g");
  }

  /** A value whose strings and keys can no longer become special tokens. `keepKeys`: keys are known names. */
  guard(value: Json, keepKeys = false): Json {
    if (typeof value === "string") return this.#guardText(value);
    if (Array.isArray(value)) return value.map((item) => this.guard(item, keepKeys));
    if (typeof value === "object" && value !== null) {
      const entries = Object.entries(value);
      return Object.fromEntries(entries.map(([key, item]) => [keepKeys ? key : this.#guardText(key), this.guard(item, keepKeys)]));
    }
    return value;
  }

  /** The text without the marks. */
  clean(text: string): string {
    return this.marked ? text.replace(this.#marks, "") : text;
  }

  #guardText(text: string): string {
    if (!this.#suspect(text)) return text;
    let guarded = text;
    for (const special of this.#specials) guarded = this.#guardAgainst(guarded, special);
    this.marked = true;
    return guarded;
  }

  /** Whether a text holds a special token, or could be a part of one together with what stands beside it. */
  #suspect(text: string): boolean {
    if (text === "" || this.#specials.length === 0) return false;
    const longest = Math.min(text.length, this.#longest);
    for (let length = 1; length <= longest; length++) {
      if (this.#tails.has(text.slice(0, length)) || this.#heads.has(text.slice(text.length - length))) return true;
    }
    return this.#specials.some((special) => text.includes(special) || special.includes(text));
  }

  #guardAgainst(text: string, special: string): string {
    let guarded = text.replaceAll(special, special.slice(0, 1) + this.#mark + special.slice(1));
    // The rest of a token may stand in the template or in the content beside it.
    for (let length = Math.min(special.length - 1, guarded.length); length > 0; length--) {
      if (!guarded.endsWith(special.slice(0, length))) continue;
      guarded = guarded.slice(0, guarded.length - length + 1) + this.#mark + guarded.slice(guarded.length - length + 1);
      break;
    }
    const begins = Array.from({ length: special.length - 1 }, (_, at) => special.slice(at + 1)).some((tail) => guarded.startsWith(tail));
    return begins || special.includes(guarded) ? this.#mark + guarded : guarded;
  }
}

function unusedMark(texts: readonly string[]): number {
  for (let code = FIRST_MARK; code <= LAST_MARK; code++) {
    const mark = String.fromCharCode(code);
    const escaped = `\\u${code.toString(16)}`;
    if (!texts.some((text) => text.includes(mark) || text.includes(escaped))) return code;
  }
  throw new LongcatError("PROMPT_INVALID", "the prompt holds every private-use character from U+E000 to U+F8FF; one must be left free");
}
