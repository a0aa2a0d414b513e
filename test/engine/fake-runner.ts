/**
 * A ModelRunner without a model: the next token is a function of all tokens before it. It keeps the cache as blocks of tokens, as the real
 * one keeps latents, and checks every step: a mistake of the scheduler is an error or another token. Its draft head foresees as many tokens
 * as a test wants, and what it has put behind a sequence is run and rolled back as on a device.
 */
import type { DrawnToken, ModelRunner, RunnerLimits, SlotSampling, StepResult, StepSequence } from "../../ts/model/runner-types.js";

export type NextToken = (history: readonly number[], sampling: SlotSampling) => number;

/** A token that depends on every token before it and on the seed where temperature is not 0. */
export const hashNext =
  (vocabulary: number): NextToken =>
  (history, sampling) => {
    let hash = sampling.temperature === 0 ? 17 : 17 + (sampling.seed % 1_000_003);
    for (const token of history) hash = (hash * 31 + token + 1) % 1_000_003;
    return hash % vocabulary;
  };

/** Whether the draft head foresees the token behind these. */
export type Foresees = (history: readonly number[]) => boolean;

/** A draft head that is right this often, whatever came before. */
export const rightShare =
  (share: number): Foresees =>
  (history) => {
    let hash = 7;
    for (const token of history) hash = (hash * 37 + token + 1) % 1_000_003;
    return hash / 1_000_003 < share;
  };

/** What stands behind a sequence where nobody has made a draft. */
const NO_DRAFT = -2;

/** Commands that a fake runner takes without `room()` being awaited. */
const RING = 100;

/** Steps that the engine has under way at most. */
const MOST_UNDER_WAY = 4;

export const FAKE_LIMITS: RunnerLimits = {
  maxSequences: 4,
  maxBatchTokens: 16,
  contextLength: 64,
  blockSize: 4,
  numBlocks: 32,
  vocabulary: 50,
  numLayers: 2,
  topK: 3,
  maxDrafts: 0,
};

interface Slot {
  sampling: SlotSampling | undefined;
  table: number[];
  /** Tokens by position, as the device keeps them. */
  history: number[];
  /** What the draft head has put behind them. */
  drafts: number[];
  /** Drawn tokens, as the device counts them. */
  counted: number[];
}

export class FakeRunner implements ModelRunner {
  readonly limits: RunnerLimits;
  /** Every step that was run. */
  readonly steps: StepSequence[][] = [];
  /** For its own checks, whatever is done to `limits`. */
  readonly #checked: RunnerLimits;
  readonly #next: NextToken;
  readonly #slots: Slot[];
  /** By block and row: twice the token, and one more if decoding made it. */
  readonly #cache: number[][];
  /** Steps under way, oldest first; each is over when the one before it is. */
  #underWay: Promise<unknown>[] = [];
  /** Calls that have set up slots since there was room; as a device's ring, it holds so many. */
  #commands = 0;
  /** The most of them that there were. */
  mostUnderWay = 0;
  closed = false;
  allowed: number[] | undefined;
  /** Whether latents of prompts must have been made by prompts (docs/numerics.md, 3). */
  pathsMatter = true;
  /** What the draft head foresees. */
  foresees: Foresees = rightShare(0.7);
  /** Throw this in the next step. */
  failWith: unknown;
  /** Called in each step before it is over. */
  during: (step: number) => void | Promise<void> = () => undefined;

  constructor(limits: Partial<RunnerLimits> = {}, next?: NextToken) {
    this.limits = { ...FAKE_LIMITS, ...limits };
    this.#checked = { ...this.limits };
    this.#next = next ?? hashNext(this.limits.vocabulary);
    this.#slots = Array.from({ length: this.limits.maxSequences }, () => ({
      sampling: undefined,
      table: [],
      history: [],
      drafts: [],
      counted: [],
    }));
    this.#cache = Array.from({ length: this.limits.numBlocks }, () => new Array<number>(this.limits.blockSize).fill(-1));
  }

  async room(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    this.#commands = 0;
  }

  setSampling(slot: number, sampling: SlotSampling, generated: readonly number[] = []): void {
    this.#command();
    const state = this.#slot(slot);
    state.sampling = sampling;
    state.table = [];
    state.history = [];
    state.drafts = [];
    state.counted = [...generated];
  }

  setHistory(slot: number, tokens: readonly number[]): void {
    this.#command();
    this.#slot(slot).history = [...tokens];
  }

  async readBlock(block: number): Promise<Uint8Array> {
    this.#command();
    const bytes = new Uint8Array(Int32Array.from(this.#cache[block] as number[]).buffer);
    await new Promise((resolve) => setImmediate(resolve));
    return bytes;
  }

  writeBlock(block: number, bytes: Uint8Array): void {
    this.#command();
    this.#cache[block] = [...new Int32Array(bytes.slice().buffer)];
  }

  setBlocks(slot: number, first: number, blocks: readonly number[]): void {
    this.#enqueued();
    const { table } = this.#slot(slot);
    blocks.forEach((block, i) => {
      if (!this.#cache[block]) throw new Error(`block ${block} does not exist`);
      table[first + i] = block;
    });
  }

  setAllowed(ids: Iterable<number>): void {
    this.allowed = [...ids];
  }

  copyBlock(from: number, to: number): void {
    this.#command();
    this.#cache[to] = [...(this.#cache[from] as number[])];
  }

  copyHistory(from: number, to: number, length: number): void {
    this.#command();
    const source = this.#slot(from).history;
    if (source.length < length) throw new Error(`slot ${from} has a history of ${source.length}, not ${length}`);
    this.#slot(to).history = source.slice(0, length);
  }

  step(sequences: readonly StepSequence[]): Promise<StepResult[]> {
    return this.launch(sequences);
  }

  /** As on a device: the work is done in the order of the launches; a step that fails takes those with it that follow it. */
  launch(sequences: readonly StepSequence[], onOver: (ms: number) => void = () => undefined): Promise<StepResult[]> {
    const results = this.#finish(sequences, this.#underWay.at(-1), this.steps.length + 1).then((there) => {
      onOver(performance.now());
      return there;
    });
    this.#underWay.push(results);
    this.mostUnderWay = Math.max(this.mostUnderWay, this.#underWay.length);
    const over = () => void this.#underWay.shift();
    results.then(over, over);
    return results;
  }

  async #finish(sequences: readonly StepSequence[], before: Promise<unknown> | undefined, number: number): Promise<StepResult[]> {
    if (this.closed) throw new Error("the runner is closed");
    if (this.#underWay.length >= MOST_UNDER_WAY) throw new Error("too many steps under way");
    this.#commands = 0;
    this.steps.push(structuredClone(sequences) as StepSequence[]);
    this.#check(sequences);
    const drafted = Math.max(...sequences.map(({ drafts = 0 }) => drafts));
    const results = sequences.map((sequence) => this.#run(sequence, drafted));
    await new Promise((resolve) => setImmediate(resolve));
    await before;
    await this.during(number);
    if (this.failWith !== undefined) {
      const error = this.failWith;
      this.failWith = undefined;
      throw error;
    }
    return results;
  }

  async close(): Promise<void> {
    this.#idle();
    this.closed = true;
  }

  /** Runs a sequence's rows, and puts `drafted` drafts behind what they have drawn. */
  #run(step: StepSequence, drafted: number): StepResult {
    const state = this.#slot(step.slot);
    const result = step.tokens === null ? this.#decode(state, step) : this.#prefill(state, step, step.tokens);
    if (result.drawn.length > 0) this.#draft(state, drafted);
    return result;
  }

  #prefill(state: Slot, { slot, position, sample, scoreTargets }: StepSequence, tokens: readonly number[]): StepResult {
    for (const [i, token] of tokens.entries()) state.history[position + i] = token;
    const length = position + tokens.length;
    for (let p = position; p < length; p++) this.#write(state, p, state.history[p] as number, false);
    this.#checkCache(slot, state, length);
    const result: StepResult = { drawn: sample ? [this.#draw(slot, state)] : [], ffnExperts: this.#experts(position, tokens.length) };
    if (scoreTargets) result.scores = Float32Array.from(scoreTargets, (target) => (target < 0 ? 0 : -target));
    return result;
  }

  /** The newest token and the drafts behind it, all of which go into the cache; tokens are drawn as long as the drafts are right. */
  #decode(state: Slot, { slot, drafts = 0 }: StepSequence): StepResult {
    const position = state.history.length - 1;
    const behind = Array.from({ length: drafts }, (_, i) => state.drafts[i] ?? NO_DRAFT);
    for (const [i, token] of [state.history[position] as number, ...behind].entries()) this.#write(state, position + i, token, true);
    const drawn: DrawnToken[] = [];
    do {
      this.#checkCache(slot, state, state.history.length);
      drawn.push(this.#draw(slot, state));
    } while (drawn.length <= drafts && behind[drawn.length - 1] === drawn.at(-1)?.token);
    return { drawn, ffnExperts: this.#experts(position, drawn.length) };
  }

  #draw(slot: number, state: Slot): DrawnToken {
    const sampling = state.sampling as SlotSampling;
    if (String(state.counted) !== String(state.history.slice(sampling.promptTokens.length)))
      throw new Error(`slot ${slot}: ${state.counted.length} tokens are counted, which are not those generated`);
    const token = this.#next(state.history, sampling);
    state.history.push(token);
    state.counted.push(token);
    const top = Array.from({ length: Math.max(0, sampling.logprobs) }, (_, i) => ({ token: i, logprob: -1 - i }));
    return { token, logprob: sampling.logprobs >= 0 ? -0.5 : 0, top };
  }

  #draft(state: Slot, count: number): void {
    const history = [...state.history];
    while (history.length < state.history.length + count) {
      const next = this.#next(history, state.sampling as SlotSampling);
      history.push(this.foresees(history) ? next : (next + 1) % this.limits.vocabulary);
    }
    state.drafts = history.slice(state.history.length);
  }

  #checkCache(slot: number, state: Slot, length: number): void {
    for (let p = 0; p < length; p++) {
      const there = this.#cache[state.table[Math.floor(p / this.limits.blockSize)] as number]?.[p % this.limits.blockSize];
      if (there === undefined || there >> 1 !== state.history[p])
        throw new Error(`slot ${slot}: the cache holds ${there} / 2 at ${p}, not ${state.history[p]}`);
      const decoded = p >= (state.sampling as SlotSampling).promptTokens.length;
      if (this.pathsMatter && (there & 1) !== Number(decoded)) throw new Error(`slot ${slot}: the wrong path made position ${p}`);
    }
  }

  #experts(position: number, count: number): Uint8Array[] {
    return Array.from({ length: count }, (_, i) =>
      Uint8Array.from({ length: this.limits.numLayers }, (_, layer) => (position + i + layer) % (this.limits.topK + 1)),
    );
  }

  #write(state: Slot, position: number, token: number, decoded: boolean): void {
    const block = this.#cache[state.table[Math.floor(position / this.limits.blockSize)] as number];
    if (!block) throw new Error(`no block for position ${position}`);
    block[position % this.limits.blockSize] = 2 * token + Number(decoded);
  }

  #check(sequences: readonly StepSequence[]): void {
    const { maxSequences, maxBatchTokens, contextLength, maxDrafts } = this.#checked;
    if (sequences.length === 0) throw new Error("an empty step");
    if (sequences.length > maxSequences) throw new Error(`${sequences.length} sequences in a step`);
    const numTokens = sequences.reduce((sum, { tokens, drafts = 0 }) => sum + (tokens?.length ?? drafts + 1), 0);
    if (numTokens > maxBatchTokens) throw new Error(`${numTokens} tokens in a step`);
    if (new Set(sequences.map(({ slot }) => slot)).size !== sequences.length) throw new Error("a slot twice in a step");
    const firstDecode = sequences.findIndex(({ tokens }) => tokens === null);
    if (firstDecode >= 0 && sequences.slice(firstDecode).some(({ tokens }) => tokens !== null)) throw new Error("a prompt behind a decode");
    for (const { slot, position, tokens, drafts = 0 } of sequences) {
      if (tokens?.length === 0) throw new Error("an empty chunk");
      if (drafts > maxDrafts) throw new Error(`slot ${slot}: ${drafts} drafts`);
      const state = this.#slot(slot);
      if (state.sampling === undefined) throw new Error(`slot ${slot} was not set up`);
      const known = state.history.length - (tokens === null ? 1 : 0);
      // Of a step that was scheduled before the drafts in front of it were verified, the host knew the least position only.
      const exact = tokens !== null || maxDrafts === 0;
      if (exact ? position !== known : position > known)
        throw new Error(`slot ${slot}: position ${position}, but ${known} are in the cache`);
      if (known + (tokens?.length ?? drafts + 1) > contextLength) throw new Error(`slot ${slot}: beyond the context`);
    }
  }

  #slot(slot: number): Slot {
    const state = this.#slots[slot];
    if (!state) throw new Error(`slot ${slot} does not exist`);
    return state;
  }

  #command(): void {
    this.#idle();
    this.#enqueued();
  }

  #enqueued(): void {
    if (this.closed) throw new Error("the runner is closed");
    this.#commands += 1;
    if (this.#commands > RING) throw new Error("the ring is full");
  }

  #idle(): void {
    if (this.#underWay.length > 0) throw new Error("a step is under way");
    if (this.closed) throw new Error("the runner is closed");
  }
}
