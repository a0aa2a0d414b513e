/**
 * The tags of the LongCat formats, and finding them in text where a tokenizer has no token for them.
 * @module
 */
export const THINK_OPEN = "<longcat_think>";
export const THINK_CLOSE = "</longcat_think>";
export const CALL_OPEN = "<longcat_tool_call>";
export const CALL_CLOSE = "</longcat_tool_call>";
export const KEY_OPEN = "<longcat_arg_key>";
export const KEY_CLOSE = "</longcat_arg_key>";
export const VALUE_OPEN = "<longcat_arg_value>";
export const VALUE_CLOSE = "</longcat_arg_value>";

/** All tags that structure an answer. */
export const MARKERS = [THINK_OPEN, THINK_CLOSE, CALL_OPEN, CALL_CLOSE, KEY_OPEN, KEY_CLOSE, VALUE_OPEN, VALUE_CLOSE] as const;
export type Marker = (typeof MARKERS)[number];

/** A piece of an answer: a tag, or text that is none. */
export type Piece = { marker: Marker; text?: undefined } | { marker?: undefined; text: string };

/** Finds tags in text that arrives in any pieces; what may become a tag is held back. */
export class MarkerScanner {
  readonly #markers: readonly Marker[];
  readonly #pattern: RegExp;
  #held = "";

  constructor(markers: readonly Marker[] = MARKERS) {
    this.#markers = markers;
    this.#pattern = new RegExp(markers.join("|"), "g");
  }

  push(text: string): Piece[] {
    const all = this.#held + text;
    const pieces: Piece[] = [];
    let start = 0;
    for (const match of all.matchAll(this.#pattern)) {
      if (match.index > start) pieces.push({ text: all.slice(start, match.index) });
      pieces.push({ marker: match[0] as Marker });
      start = match.index + match[0].length;
    }
    const rest = all.slice(start);
    const kept = rest.length - this.#unfinished(rest);
    if (kept > 0) pieces.push({ text: rest.slice(0, kept) });
    this.#held = rest.slice(kept);
    return pieces;
  }

  /** What was held back and is no tag after all. */
  end(): Piece[] {
    const held = this.#held;
    this.#held = "";
    return held === "" ? [] : [{ text: held }];
  }

  /** How many units at the end of `text` are the beginning of a tag. */
  #unfinished(text: string): number {
    const at = text.lastIndexOf("<");
    if (at === -1) return 0;
    const tail = text.slice(at);
    return this.#markers.some((marker) => marker.startsWith(tail)) ? tail.length : 0;
  }
}
