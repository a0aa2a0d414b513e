/**
 * How fast a batch decodes through the engine while all of its rows do: prompts end one after another, rows too, and what a row gets before
 * the last prompt has ended or after the first row has says little of decoding.
 * @module
 */

import type { Chunk } from "./types.js";

/**
 * Steps from the first row's first token to the last one's, about: the prompts' steps behind the first. The rows need so many tokens more, if
 * all of them are to decode at once.
 */
export function leadSteps(batch: number, context: number, maxBatchTokens: number): number {
  const promptTokens = Math.max(1, maxBatchTokens - batch);
  return Math.ceil((batch * context) / promptTokens) - Math.ceil(context / promptTokens);
}

/** Watches the chunks of rows that start and end at different times. Between the last start and the first end, every row gets a token a step. */
export class SteadyMeter {
  readonly #rows: number;
  readonly #now: () => number;
  readonly #started = new Set<number>();
  /** The row that started last, whose tokens are the steps that count. */
  #last: number | undefined;
  #ended = false;
  #steps = 0;
  #startMs = 0;
  #endMs = 0;

  constructor(rows: number, now = () => performance.now()) {
    this.#rows = rows;
    this.#now = now;
  }

  /** For `Engine.generate`. */
  readonly onChunk = ({ index, tokens, finishReason }: Chunk): void => {
    if (tokens.length > 0) this.#token(index);
    this.#ended ||= finishReason !== undefined;
  };

  #token(row: number): void {
    if (this.#ended) return;
    if (row === this.#last) {
      this.#steps += 1;
      this.#endMs = this.#now();
    } else if (this.#last === undefined && this.#started.add(row).size === this.#rows) {
      this.#last = row;
      this.#startMs = this.#now();
    }
  }

  /** Tokens a second of all rows together; undefined if there was no step of them all. */
  get tokensPerSecond(): number | undefined {
    return this.#steps === 0 ? undefined : (1000 * this.#rows * this.#steps) / (this.#endMs - this.#startMs);
  }
}
