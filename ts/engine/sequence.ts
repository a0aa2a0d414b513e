/**
 * One sequence on its way through the model: a prompt and what is generated after it. A request has one, or one for each of its n choices.
 * @module
 */

import { LongcatError } from "../errors.js";
import type { DrawnToken, SlotSampling, StepResult, StepSequence } from "../model/runner-types.js";
import { CHAIN_START, chainDigest } from "./prefix-cache.js";
import type { DraftUse } from "./types.js";

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
  /** Tokens that end it whatever `onToken` says: so much is known before it is asked. */
  endTokens?: ReadonlySet<number>;
  /** Report the log-probability of each prompt token. Needs maxNewTokens 0. */
  score?: boolean;
  /** The choices of one request; they share the prompt. Absent: the sequence is alone. */
  siblings?: Sequence[];
  /** Says before each draw which ids may be drawn. */
  guide?: { mask(): Int32Array };
  /** Called after each chunk of the prompt that draws nothing; true ends the sequence. Like `onToken` not called once it has ended. */
  onPrompt(step: StepSequence, result: StepResult): boolean;
  /** Called with each token drawn, and the FFN experts that the row which drew it used in each layer; true ends the sequence. */
  onToken(drawn: DrawnToken, ffnExperts: Uint8Array): boolean;
  /** Called when its step, or the handling of its result, failed. */
  onError(error: unknown): void;
}

/** Where a sequence stands: in the queue (new, or after it gave way), in a slot, or at its end. */
export type SequenceState = "waiting" | "running" | "ended";

export class Sequence {
  readonly prompt: readonly number[];
  readonly maxNewTokens: number;
  readonly sampling: SlotSampling;
  readonly endTokens: ReadonlySet<number> | undefined;
  readonly score: boolean;
  readonly siblings: Sequence[] | undefined;
  readonly guide: SequenceRequest["guide"];
  readonly #onPrompt: SequenceRequest["onPrompt"];
  readonly #onToken: SequenceRequest["onToken"];
  readonly #onError: SequenceRequest["onError"];

  state: SequenceState = "waiting";
  /** Its place in the order in which sequences came. */
  arrival = 0;
  slot = -1;
  /** Its part of the cache, in order of position. */
  blocks: number[] = [];
  /** Positions that are in the cache, or were when it gave way. */
  computed = 0;
  /** The same once the steps under way are over: at least, and at most, if all of their drafts are accepted. */
  scheduled = 0;
  mostScheduled = 0;
  /** Drafts that the step that was launched last with a part of it makes for the next one. */
  drafted = 0;
  /** Drafts of its that were verified, and those that were accepted. */
  draftTokens = 0;
  acceptedTokens = 0;
  /** Tokens drawn so far. */
  readonly tokens: number[] = [];
  /** The step it last had a part in. */
  lastStep = 0;
  /** Prompt tokens that were found in the prefix cache when it started. */
  cachedTokens = 0;
  /** Leading blocks that the prefix cache knows, or knows others for. */
  numStored = 0;
  /** What its blocks held when it gave way, each block's bytes; until it has them back. */
  saved: Promise<Uint8Array[]> | undefined;
  /**
   * FFN experts that each position used, over all layers: the prompt's part may come from the prefix cache, or from a sibling. As many as
   * positions that its request was told of.
   */
  experts: number[] = [];
  readonly #digests: string[] = [];

  constructor(request: SequenceRequest) {
    this.prompt = request.prompt;
    this.maxNewTokens = request.maxNewTokens;
    this.sampling = request.sampling;
    this.endTokens = request.endTokens;
    this.score = request.score ?? false;
    this.siblings = request.siblings;
    this.guide = request.guide;
    this.#onPrompt = request.onPrompt;
    this.#onToken = request.onToken;
    this.#onError = request.onError;
  }

  /** Positions that it may come to fill. */
  get maxPositions(): number {
    return this.prompt.length + this.maxNewTokens;
  }

  get generated(): number {
    return this.tokens.length;
  }

  get inPrompt(): boolean {
    return this.computed < this.prompt.length;
  }

  /**
   * The prompt without its last token: what choices share, and what the prefix cache may give. Each sequence runs the last token itself, and
   * so has its own first draw.
   */
  get sharedLength(): number {
    return this.prompt.length - 1;
  }

  /** FFN experts over all tokens of this sequence that went through the model, whoever ran them. */
  get routing(): RoutingSum {
    return { tokens: this.experts.length, experts: this.experts.reduce((sum, count) => sum + count, 0) };
  }

  /** What became of its drafts; undefined if none were verified. */
  get drafts(): DraftUse | undefined {
    const [verified, accepted] = [this.draftTokens, this.acceptedTokens];
    return verified === 0 ? undefined : { verified, accepted, share: accepted / verified };
  }

  /** Prompt and generated tokens at positions [from, to). */
  tokensAt(from: number, to: number): number[] {
    const { length } = this.prompt;
    if (to <= length) return this.prompt.slice(from, to);
    return [...this.prompt.slice(from), ...this.tokens.slice(Math.max(0, from - length), to - length)];
  }

  /** The digest of its block `index`, whose tokens are all known (ts/engine/prefix-cache.ts). */
  digest(index: number, blockSize: number): string {
    for (let i = this.#digests.length; i <= index; i++)
      this.#digests.push(chainDigest(this.#digests[i - 1] ?? CHAIN_START, this.tokensAt(i * blockSize, (i + 1) * blockSize)));
    return this.#digests[index] as string;
  }

  /**
   * Prompt tokens that the next step runs at most; 0 once all are scheduled. A choice stops before the prompt's last token, so that the others
   * can join.
   */
  get restOfPrompt(): number {
    const whole = this.siblings !== undefined && this.scheduled < this.sharedLength ? this.sharedLength : this.prompt.length;
    return Math.max(0, whole - this.scheduled);
  }

  /** The next prompt chunk of at most `budget` tokens; the last one asks for `drafts` drafts behind the first token. */
  nextChunk(budget: number, drafts: number): StepSequence {
    const from = this.scheduled;
    const to = from + Math.min(this.restOfPrompt, budget);
    const sample = to === this.prompt.length && this.maxNewTokens > 0;
    const step: StepSequence = {
      slot: this.slot,
      position: from,
      tokens: this.prompt.slice(from, to),
      sample,
      ...(sample && drafts > 0 && { drafts }),
      ...(to < this.prompt.length && { following: this.prompt[to]! }),
    };
    if (this.score) step.scoreTargets = Array.from({ length: to - from }, (_, i) => this.prompt[from + i + 1] ?? -1);
    return step;
  }

  /** Its next decode token, the one drawn last, and as many drafts behind it. */
  nextToken(drafts: number): StepSequence {
    return { slot: this.slot, position: this.scheduled, tokens: null, sample: true, drafts };
  }

  /** Enters a step that is to be launched. */
  enter({ tokens, drafts = 0 }: StepSequence): void {
    this.scheduled += tokens?.length ?? 1;
    this.mostScheduled += tokens?.length ?? drafts + 1;
  }

  /** Puts it at a position: so much is in the cache, and no step is under way. */
  moveTo(position: number): void {
    this.computed = this.scheduled = this.mostScheduled = position;
    this.drafted = 0;
  }

  /**
   * Whether its next step decodes: its prompt is scheduled, and whatever the steps under way draw leaves it tokens to generate. With drafts
   * under way that is not known for the last few tokens, which then wait for them: nothing is run beyond the sequence's end.
   */
  get decodes(): boolean {
    return this.state === "running" && this.restOfPrompt === 0 && this.roomForDrafts >= 0 && !this.atEnd;
  }

  /** Drafts that may follow the next token: as many as could still be accepted and drawn behind. Negative: not even that token is certain. */
  get roomForDrafts(): number {
    return this.maxPositions - 2 - this.mostScheduled;
  }

  /** Whether its request was told of all that steps have computed: none is under way. */
  get isSettled(): boolean {
    return this.experts.length === this.mostScheduled;
  }

  /** Whether what it has drawn ends it, as far as its request need not be asked. */
  get atEnd(): boolean {
    const last = this.tokens.at(-1);
    return (!this.inPrompt && this.generated >= this.maxNewTokens) || (last !== undefined && this.endTokens?.has(last) === true);
  }

  /**
   * Takes a step's result; `made`: how many of its drafts the step before it had made. What was drawn behind an end token, or behind the last
   * token of all, is dropped from the result. Gives the drafts that counted: how many were verified, and how many accepted.
   */
  take(step: StepSequence, result: StepResult, made: number): { verified: number; accepted: number } {
    const { drawn } = result;
    if (step.tokens === null) this.#settle(step.drafts ?? 0, drawn.length);
    const all = drawn.length;
    for (const [i, { token }] of drawn.entries()) {
      this.tokens.push(token);
      if (this.atEnd) drawn.length = i + 1;
    }
    this.computed += step.tokens?.length ?? drawn.length;
    // Nothing was gained by drafts from the sequence's last token on.
    const verified = drawn.length < all ? Math.min(made, drawn.length - 1) : made;
    const accepted = Math.min(verified, Math.max(0, drawn.length - 1));
    this.draftTokens += verified;
    this.acceptedTokens += accepted;
    return { verified, accepted };
  }

  /** What was not known of a decode step: how many of its drafts were accepted. */
  #settle(drafts: number, drawn: number): void {
    if (drawn === 0) throw new LongcatError("INTERNAL", "a decode step drew nothing");
    this.scheduled += drawn - 1;
    this.mostScheduled -= drafts + 1 - drawn;
  }

  /**
   * Hands a result that was taken to its request, token by token; true when the sequence is at its end. `counted` is called whenever more
   * positions have their experts counted, before the request is told.
   */
  report(step: StepSequence, result: StepResult, counted: () => void): boolean {
    try {
      return this.#tell(step, result, counted) || this.atEnd;
    } catch (error) {
      this.fail(error);
      return true;
    }
  }

  #tell(step: StepSequence, result: StepResult, counted: () => void): boolean {
    const { drawn, ffnExperts } = result;
    // The rows before those that have drawn: all of a prompt's, but for the last where it draws.
    const first = step.tokens === null ? 0 : ffnExperts.length - drawn.length;
    this.#countExperts(ffnExperts.slice(0, first));
    if (drawn.length === 0) {
      counted();
      return this.#onPrompt(step, result);
    }
    for (const [i, token] of drawn.entries()) {
      const row = ffnExperts[first + i] as Uint8Array;
      this.#countExperts([row]);
      counted();
      if (this.#onToken(token, row) || this.state === "ended") return true;
    }
    return false;
  }

  #countExperts(rows: readonly Uint8Array[]): void {
    for (const row of rows) {
      let sum = 0;
      for (const count of row) sum += count;
      this.experts.push(sum);
    }
  }

  /** Tells its request that it cannot go on. */
  fail(error: unknown): void {
    this.#onError(error);
  }
}
