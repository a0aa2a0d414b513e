/**
 * Looks at JSON as it arrives, before anything parses it: how deep and in how many pieces. What passes is parsed in some milliseconds.
 * @module
 */

import { HttpError } from "./errors.js";

/** Deepest nesting of a body. */
export const MAX_DEPTH = 256;
/** Most values of a body: a prompt of token ids is the largest that anybody needs. */
export const MAX_VALUES = 200_000;
/** Most members of objects of a body; a member costs a parser some ten times what a number does. */
export const MAX_MEMBERS = 20_000;
/** Most strings of a body, names of members included. */
export const MAX_STRINGS = 50_000;

const QUOTE = 0x22;
const COMMA = 0x2c;
const COLON = 0x3a;
const OPEN_ARRAY = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE_ARRAY = 0x5d;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;

/** Counts what structure a JSON text has. It does not say whether the text is JSON: the parser does. */
export class JsonGuard {
  #depth = 0;
  #values = 0;
  #members = 0;
  #strings = 0;
  #inString = false;
  #escaped = false;

  /** Takes the next bytes. Throws a 400 when a limit is passed. */
  push(bytes: Uint8Array): void {
    for (let i = 0; i < bytes.length; i++) {
      const byte = bytes[i] as number;
      if (this.#inString) {
        if (this.#escaped) this.#escaped = false;
        else if (byte === BACKSLASH) this.#escaped = true;
        else if (byte === QUOTE) this.#inString = false;
      } else if (byte === QUOTE) {
        this.#inString = true;
        this.#strings += 1;
      } else if (byte === COMMA) this.#values += 1;
      else if (byte === COLON) this.#members += 1;
      else if (byte === OPEN_ARRAY || byte === OPEN_OBJECT) {
        this.#values += 1;
        this.#depth += 1;
        if (this.#depth > MAX_DEPTH) throw tooMuch(`is nested deeper than ${MAX_DEPTH}`);
      } else if (byte === CLOSE_ARRAY || byte === CLOSE_OBJECT) this.#depth -= 1;
    }
    if (this.#values > MAX_VALUES) throw tooMuch(`has more than ${MAX_VALUES} values`);
    if (this.#members > MAX_MEMBERS) throw tooMuch(`has more than ${MAX_MEMBERS} members of objects`);
    if (this.#strings > MAX_STRINGS) throw tooMuch(`has more than ${MAX_STRINGS} strings`);
  }
}

function tooMuch(what: string): HttpError {
  return new HttpError(400, "invalid_json", `the body ${what}`, { close: true });
}
