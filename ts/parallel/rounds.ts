/**
 * When a forward pass begins, and what it is: every rank has a part in each, with rows of its own or without. A round is decided once somebody
 * wants one and everybody else either wants one too or has nothing to do. A rank that works and does not ask is waited for a little: it is
 * late, since the end of the same pass set off all of them.
 * @module
 */

import { agreeOn, type Forward, type Round } from "../model/lockstep.js";

/** How long a round waits for ranks that work and do not ask. They then take part without rows, and in the next one with them. */
export const LATE_MS = 5;

/** What is decided: the round, and which ranks have rows in it. */
export type Decide = (round: Round, withRows: ReadonlySet<number>) => void;

/** Called after so many milliseconds, unless what it returns is called before. */
export type StartTimer = (ms: number, then: () => void) => () => void;

/** Rounds of a group, in the coordinator. */
export class Rounds {
  readonly #decide: Decide;
  readonly #startTimer: StartTimer;
  readonly #working = new Set<number>();
  readonly #wants = new Map<number, Forward>();
  #next = 0;
  #isStopped = false;
  #stopWaiting: (() => void) | undefined;

  constructor(decide: Decide, startTimer: StartTimer = realTimer) {
    this.#decide = decide;
    this.#startTimer = startTimer;
  }

  /** A rank begins to work, or has nothing left to do. */
  works(rank: number, working: boolean): void {
    if (working) this.#working.add(rank);
    else this.#working.delete(rank);
    this.#decideIfAllAreThere();
  }

  /** A rank wants a forward pass. It asks for one at a time. */
  want(rank: number, forward: Forward): void {
    this.#wants.set(rank, forward);
    this.#decideIfAllAreThere();
  }

  /** No round begins any more. */
  stop(): void {
    this.#isStopped = true;
    this.#settle();
  }

  #decideIfAllAreThere(): void {
    if (this.#wants.size === 0 || this.#isStopped) return;
    let late = false;
    for (const rank of this.#working) late ||= !this.#wants.has(rank);
    if (!late) this.#begin();
    else this.#stopWaiting ??= this.#startTimer(LATE_MS, () => this.#begin());
  }

  #begin(): void {
    this.#settle();
    const withRows = new Set(this.#wants.keys());
    const forward = agreeOn([...this.#wants.values()]);
    this.#wants.clear();
    this.#decide({ ...forward, round: this.#next++ }, withRows);
  }

  #settle(): void {
    this.#stopWaiting?.();
    this.#stopWaiting = undefined;
  }
}

function realTimer(ms: number, then: () => void): () => void {
  const timer = setTimeout(then, ms);
  return () => clearTimeout(timer);
}
