/**
 * Token ids to text while they arrive: never half a character, never half a surrogate pair.
 * @module
 */
import { unfinishedTail } from "./byte-level.js";
import type { Tokenizer } from "./tokenizer.js";

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
const NONE = new Uint8Array(0);

/** Which special tokens show in the text: all, none, or those that a function picks. */
export type ShowSpecial = boolean | ((id: number) => boolean);

/**
 * Decodes a stream of tokens. The pieces joined are the decoding of all ids at once.
 *
 * @example
 * const detokenizer = new Detokenizer(tokenizer);
 * for (const id of ids) process.stdout.write(detokenizer.push([id]));
 * process.stdout.write(detokenizer.end());
 */
export class Detokenizer {
  readonly #tokenizer: Tokenizer;
  readonly #showSpecial: ShowSpecial;
  /** The bytes of an unfinished character, at most 3. */
  #pending: Uint8Array = NONE;

  /** `options.showSpecial`: which special tokens are written out. Default: none. */
  constructor(tokenizer: Tokenizer, options: { showSpecial?: ShowSpecial } = {}) {
    this.#tokenizer = tokenizer;
    this.#showSpecial = options.showSpecial ?? false;
  }

  /** The characters that these tokens complete. */
  push(ids: readonly number[]): string {
    let text = "";
    for (const id of ids) {
      const added = this.#tokenizer.addedToken(id);
      if (added === undefined)
        text += (this.#pending.length === 0 ? this.#tokenizer.wholeText(id) : undefined) ?? this.#pushBytes(this.#tokenizer.tokenBytes(id));
      else if (!added.special || this.#shows(id)) text += this.end() + added.content;
    }
    return text;
  }

  /** Ends the text: an unfinished character becomes one U+FFFD. The detokenizer may then be used anew. */
  end(): string {
    const text = utf8.decode(this.#pending);
    this.#pending = NONE;
    return text;
  }

  #shows(id: number): boolean {
    return typeof this.#showSpecial === "function" ? this.#showSpecial(id) : this.#showSpecial;
  }

  #pushBytes(bytes: Uint8Array): string {
    const all = this.#pending.length === 0 ? bytes : concat(this.#pending, bytes);
    const whole = all.length - unfinishedTail(all);
    this.#pending = whole === all.length ? NONE : all.slice(whole);
    return whole === 0 ? "" : utf8.decode(all.subarray(0, whole));
  }
}

/** The text of all ids at once. */
export function decodeTokens(tokenizer: Tokenizer, ids: readonly number[], skipSpecial: boolean): string {
  const detokenizer = new Detokenizer(tokenizer, { showSpecial: !skipSpecial });
  return detokenizer.push(ids) + detokenizer.end();
}

function concat(a: Uint8Array, b: Uint8Array): Uint8Array {
  const joined = new Uint8Array(a.length + b.length);
  joined.set(a);
  joined.set(b, a.length);
  return joined;
}
