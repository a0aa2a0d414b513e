/**
 * Forward passes in the order of their rounds, in which all ranks must enqueue them.
 * @module
 */

import { LongcatError } from "../errors.js";

/** Lets each in when those before it are through. */
export class Rounds {
  #next = 0;
  readonly #waiting = new Map<number, () => void>();

  /**
   * Runs `enter` in round `round`, and lets the next one in when what it gives has resolved.
   *
   * @throws LongcatError INTERNAL for a round that there was already
   */
  async enter<T>(round: number, enter: () => T | Promise<T>): Promise<T> {
    if (round < this.#next || this.#waiting.has(round))
      throw new LongcatError("INTERNAL", `there was a forward pass of round ${round} already`);
    if (round > this.#next) await new Promise<void>((resolve) => this.#waiting.set(round, resolve));
    try {
      return await enter();
    } finally {
      this.#next = round + 1;
      this.#waiting.get(this.#next)?.();
      this.#waiting.delete(this.#next);
    }
  }
}
