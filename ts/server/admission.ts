/**
 * A bounded queue: so many choices may run or wait, more are told to come back.
 * @module
 */

import { overloaded } from "./errors.js";

const LONGEST_RETRY_SECONDS = 60;
/** Weight of the newest answer in the mean of their durations. */
const NEWEST = 0.1;

export class Admission {
  readonly #running: number;
  readonly #most: number;
  #active = 0;
  #meanSeconds = 1;

  /** @param running Choices that run at once. @param waiting Choices that may wait beyond these. */
  constructor(running: number, waiting: number) {
    this.#running = running;
    this.#most = running + waiting;
  }

  /**
   * Takes a request of so many choices in; the function that lets it out again. One that is larger than the queue enters when nothing else
   * is there.
   *
   * @throws HttpError 429 with Retry-After.
   */
  enter(numChoices: number): () => void {
    if (this.#active > 0 && this.#active + numChoices > this.#most)
      throw overloaded(`the queue is full: ${this.#active} answers run or wait, ${this.#most} may`, this.#retrySeconds());
    this.#active += numChoices;
    const enteredMs = performance.now();
    let inside = true;
    return () => {
      if (!inside) return;
      inside = false;
      this.#active -= numChoices;
      this.#meanSeconds += NEWEST * ((performance.now() - enteredMs) / 1000 - this.#meanSeconds);
    };
  }

  /** When the queue will have moved on by one round, at the pace of late. */
  #retrySeconds(): number {
    const rounds = Math.max(1, (this.#active - this.#running) / this.#running);
    return Math.min(LONGEST_RETRY_SECONDS, Math.max(1, Math.ceil(rounds * this.#meanSeconds)));
  }
}
