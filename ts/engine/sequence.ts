/**
 * One sequence on its way through the model: a prompt and what is generated after it. A request has one, or one for each of its n choices.
 * @module
 */

import type { SlotSampling, StepResult, StepSequence } from "../model/runner-types.js";

/** Sums of FFN experts over some tokens: `experts` counts over all layers. */
export interface RoutingSum {
  tokens: number;
  experts: number;
}

/** What a sequence is asked to do. */
export interface SequenceRequest {
  prompt: readonly number[];
  /** Most tokens to generate; 0: run the prompt only. prompt + maxNewTokens fits in the context. */
  maxNewTokens: number;
  sampling: SlotSampling;
  /** Report the log-probability of each prompt token. Needs maxNewTokens 0. */
  score?: boolean;
  /** The choices of one request; they share the prompt. Absent: the sequence is alone. */
  siblings?: Sequence[];
  /** Called after each step the sequence had a part in; true ends it. Not called once it has ended. */
  onStep(step: StepSequence, result: StepResult): boolean;
  /** Called when its step, or the handling of its result, failed. */
  onError(error: unknown): void;
}

/** Where a sequence stands: in the queue, in a slot, or at its end. */
export type SequenceState = "waiting" | "running" | "ended";

export class Sequence {
  readonly prompt: readonly number[];
  readonly maxNewTokens: number;
  readonly sampling: SlotSampling;
  readonly score: boolean;
  readonly siblings: Sequence[] | undefined;
  readonly #onStep: SequenceRequest["onStep"];
  readonly #onError: SequenceRequest["onError"];

  state: SequenceState = "waiting";
  slot = -1;
  /** Its part of the cache, in order of position. */
  blocks: number[] = [];
  /** Positions that are in the cache. */
  computed = 0;
  generated = 0;
  /** Steps under way that it has a part in. */
  stepsInFlight = 0;
  /** The step it last had a part in. */
  lastStep = 0;
  /** Routing of the prompt but its last token, and of all after that. */
  promptRouting: RoutingSum = { tokens: 0, experts: 0 };
  ownRouting: RoutingSum = { tokens: 0, experts: 0 };

  constructor(request: SequenceRequest) {
    this.prompt = request.prompt;
    this.maxNewTokens = request.maxNewTokens;
    this.sampling = request.sampling;
    this.score = request.score ?? false;
    this.siblings = request.siblings;
    this.#onStep = request.onStep;
    this.#onError = request.onError;
  }

  /** Positions that it may come to fill. */
  get maxPositions(): number {
    return this.prompt.length + this.maxNewTokens;
  }

  get inPrompt(): boolean {
    return this.computed < this.prompt.length;
  }

  /** The prompt without its last token: what choices share. Each runs the last token itself, and so has its own first draw. */
  get sharedLength(): number {
    return this.prompt.length - 1;
  }

  /** FFN experts over all tokens that the model ran for this sequence, shared prompt included. */
  get routing(): RoutingSum {
    return {
      tokens: this.promptRouting.tokens + this.ownRouting.tokens,
      experts: this.promptRouting.experts + this.ownRouting.experts,
    };
  }

  /** The next prompt chunk of at most `budget` tokens. A choice stops before the prompt's last token, so that the others can join. */
  nextChunk(budget: number): StepSequence {
    const from = this.computed;
    const whole = this.siblings !== undefined && from < this.sharedLength ? this.sharedLength : this.prompt.length;
    const to = Math.min(whole, from + budget);
    const step: StepSequence = {
      slot: this.slot,
      position: from,
      tokens: this.prompt.slice(from, to),
      sample: to === this.prompt.length && this.maxNewTokens > 0,
    };
    if (this.score) step.scoreTargets = Array.from({ length: to - from }, (_, i) => this.prompt[from + i + 1] ?? -1);
    return step;
  }

  /** Its next decode token: the one drawn last, at the position it has; beyond the steps under way, each of which is one token. */
  nextToken(): StepSequence {
    return { slot: this.slot, position: this.computed + this.stepsInFlight, tokens: null, sample: true };
  }

  /** Whether a decode step may follow those under way: they leave it tokens to generate. */
  get goesOn(): boolean {
    return this.state === "running" && !this.inPrompt && this.generated + this.stepsInFlight < this.maxNewTokens;
  }

  /** Takes a step's result; true when the sequence is at its end. */
  advance(step: StepSequence, result: StepResult): boolean {
    const first = this.computed;
    this.computed += step.tokens?.length ?? 1;
    result.ffnExperts.forEach((row, i) => {
      const sum = first + i < this.sharedLength ? this.promptRouting : this.ownRouting;
      sum.tokens += 1;
      for (const count of row) sum.experts += count;
    });
    if (step.sample) this.generated += 1;
    try {
      const ended = this.#onStep(step, result);
      return ended || (!this.inPrompt && this.generated >= this.maxNewTokens);
    } catch (error) {
      this.fail(error);
      return true;
    }
  }

  /** Tells its request that it cannot go on. */
  fail(error: unknown): void {
    this.#onError(error);
  }
}
