/**
 * How long steps take, and how long the device has nothing to do between them. A step begins when it is enqueued, or when the one before it
 * is over if that is later; it is over when the device's own thread has its results, which is noted there: this thread may be busy with
 * what the step before has drawn. Time between the end of a step and the launch of the next is the device's idle time. A step that was
 * launched before the one in front of it was over leaves none (on a GPU a few microseconds between two launches, which are not seen).
 * @module
 */

/** Steps that are timed before the number of steps ahead is chosen by it; and how many there are at most. */
const STEPS_TIMED = 64;
const MOST_STEPS_AHEAD = 3;

/** Of the host's lags, the share that the steps ahead should last for; and the weight of the newest, beside a step. */
const LAG_SHARE = 0.98;
const LAG_WEIGHT = 0.1;

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
  #steps = 0;
  /** From a step's end to the launch of the one for which that made room: seldom longer. */
  #lagMs = 0;

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
    this.#steps += 1;
    this.#overMs = overMs;
    return overMs - begunMs;
  }

  /** The host has launched a step so long after the end of the one that made room for it. */
  lagged(ms: number): void {
    this.#lagMs += this.#stepMs * LAG_WEIGHT * (ms > this.#lagMs ? LAG_SHARE : LAG_SHARE - 1);
  }

  /** Steps to launch before the one that runs is over: as many as last while the host deals with what that one has drawn. */
  get stepsAhead(): number {
    if (this.#steps < STEPS_TIMED) return 1;
    return Math.min(MOST_STEPS_AHEAD, Math.max(1, Math.ceil(this.#lagMs / this.#stepMs)));
  }

  /**
   * Whether the others of `all` sequences should go on while the host thinks about `guided` of them, which then have a part in every second
   * step only. Tokens a second with all in each step: N / (step + host); in turns: (N − G/2) / step.
   */
  othersGoOn(guided: number, all: number): boolean {
    return this.#hostMs * (all - guided / 2) > this.#stepMs * (guided / 2);
  }
}
