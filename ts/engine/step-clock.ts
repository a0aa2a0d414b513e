/**
 * How long steps take, and how long the device has nothing to do between them. A step begins when it is enqueued, or when the one before it
 * is over if that is later; it is over when the device's own thread has its results, which is noted there: this thread may be busy with
 * what the step before has drawn. Time between the end of a step and the launch of the next is the device's idle time. A step that was
 * launched before the one in front of it was over leaves none (on a GPU a few microseconds between two launches, which are not seen).
 * @module
 */

/** Weight of the newest step in what steps are thought to take. */
const WEIGHT = 1 / 32;

export class StepClock {
  /** When the last step was over; undefined where there was no work behind it. */
  #overMs: number | undefined;
  #busyMs = 0;
  #idleMs = 0;
  /** Of late: a step, and the time from a step's end to the launch of one that could not be launched before it. */
  #stepMs = 0;
  #hostMs = 0;

  /** Since the engine was loaded: time in which a step was under way, and time between steps although there was work. */
  get seconds(): { busy: number; idle: number } {
    return { busy: this.#busyMs / 1000, idle: this.#idleMs / 1000 };
  }

  /** There is nothing to do: the time from here to the next step is not counted. */
  rest(): void {
    this.#overMs = undefined;
  }

  /** A step is over; what it took, in milliseconds. Steps are told of in the order of their launches. */
  over(launchedMs: number, overMs: number): number {
    const begunMs = Math.max(launchedMs, this.#overMs ?? launchedMs);
    if (this.#overMs !== undefined && launchedMs > this.#overMs) {
      this.#idleMs += launchedMs - this.#overMs;
      this.#hostMs += (launchedMs - this.#overMs - this.#hostMs) * WEIGHT;
    }
    this.#busyMs += overMs - begunMs;
    this.#stepMs += (overMs - begunMs - this.#stepMs) * WEIGHT;
    this.#overMs = overMs;
    return overMs - begunMs;
  }

  /**
   * Whether the others of `all` sequences should go on while the host thinks about `guided` of them, which then have a part in every second
   * step only. Tokens a second with all in each step: N / (step + host); in turns: (N − G/2) / step.
   */
  othersGoOn(guided: number, all: number): boolean {
    return this.#hostMs * (all - guided / 2) > this.#stepMs * (guided / 2);
  }
}
