/**
 * Who runs next. First come, first served: a sequence waits until there is a slot and cache for its prompt, then takes part in steps until
 * it ends. Blocks are given out as sequences grow; when they run out, the youngest gives way: its latents go to host memory, and it comes
 * back before anybody who waits behind it. The oldest can always go on, so everybody ends. Six verbs: add, schedule, preempt, take, report,
 * abort.
 *
 * A step takes one token of everybody who decodes, with as many drafts behind it as pay (ts/engine/draft-policy.ts), and fills the rest of
 * its budget with prompts. While a step runs, those after it may be scheduled too (`scheduleAhead`; ts/engine/step-clock.ts says how many)
 * where they only decode: tokens lie on the device, and so do positions, of which the least and the most are known here. Blocks are reserved
 * for the most: with d drafts and n steps under way, for n (d + 1) positions beyond those that are known; when the first of them is over,
 * (n − 1) (d + 1) to (n − 1) (d + 1) + d of these are left. If somebody ends meanwhile, its part in the later steps was for nothing; its slot
 * and blocks can be given out at once all the same, since whatever the next owner does is enqueued behind those steps. A guided sequence,
 * whose next token the host has to see first, sits out one step while others go on, or holds them up, whichever costs less. A step with
 * prompts is scheduled when those before it are over, so that whoever has come by then has a part.
 *
 * A finished step's results are dealt with in two parts, so that the device need not wait for whoever listens: `take` writes down what the
 * next step depends on, `report` tells the requests.
 * @module
 */

import { LongcatError } from "../errors.js";
import type { RunnerLimits, StepResult, StepSequence } from "../model/runner-types.js";
import { BlockManager } from "./block-manager.js";
import { DraftPolicy } from "./draft-policy.js";
import type { PrefixCacheMode } from "./prefix-cache.js";
import type { Sequence } from "./sequence.js";
import { sharePromptTokens } from "./token-budget.js";

/**
 * A sequence that has just got its slot and blocks. `known`: positions whose tokens go into the slot's history, as they are in the cache
 * (or will be, once restored). `restore`: the first of its blocks that what was saved is to be written to. `fork`: what to copy from a sibling
 * that has run the prompt.
 */
export interface Admission {
  sequence: Sequence;
  known: number;
  restore?: { firstBlock: number };
  fork?: { fromSlot: number; length: number; copyBlock?: { from: number; to: number } };
}

/** A sequence that has given way. Its blocks belong to others from this step on: they are to be read before it is set up. */
export interface Eviction {
  sequence: Sequence;
  blocks: readonly number[];
}

/** Blocks that a sequence has got while it runs. */
export interface Growth {
  sequence: Sequence;
  firstBlock: number;
  blocks: readonly number[];
}

/** A sequence's part in a step. `made`, from its beginning on: drafts that it verifies and that the step before it has made; others are rejected. */
export interface BatchEntry {
  sequence: Sequence;
  step: StepSequence;
  made: number;
}

/** One step: who gives way, who starts and who grows, in this order; then what to run, prompt chunks before decode tokens. */
export interface Batch {
  evicted: Eviction[];
  admitted: Admission[];
  grown: Growth[];
  entries: BatchEntry[];
}

/** Sums since the engine was loaded. */
export interface SchedulerCounters {
  /** Prompt tokens that steps ran. */
  promptTokens: number;
  /** Tokens of prompts that were looked for in the prefix cache, and those of them that were found. */
  prefixQueryTokens: number;
  prefixHitTokens: number;
  /** Times that a sequence gave way. */
  preemptions: number;
}

/** Whether the rest of `all` sequences should go on in a step without `guided` ones, which the host has to look at between steps. */
export type OthersGoOn = (guided: number, all: number) => boolean;

export class Scheduler {
  readonly #limits: RunnerLimits;
  readonly #mode: PrefixCacheMode;
  readonly #policy: DraftPolicy;
  readonly #othersGoOn: OthersGoOn;
  readonly #counters: SchedulerCounters = { promptTokens: 0, prefixQueryTokens: 0, prefixHitTokens: 0, preemptions: 0 };
  #blocks: BlockManager;
  #freeSlots: number[];
  /** Both in order of arrival. */
  #waiting: Sequence[] = [];
  #running: Sequence[] = [];
  #arrivals = 0;
  #steps = 0;
  #promptsLast = false;
  /** Whether it is worth looking at who waits: somebody came or left since the last look. */
  #changed = false;

  constructor(
    limits: RunnerLimits,
    mode: PrefixCacheMode = "on",
    policy = new DraftPolicy(0, false),
    othersGoOn: OthersGoOn = () => false,
  ) {
    this.#limits = limits;
    this.#mode = mode;
    this.#policy = policy;
    this.#othersGoOn = othersGoOn;
    this.#blocks = new BlockManager(limits.numBlocks, limits.blockSize);
    this.#freeSlots = slots(limits);
  }

  /** Who owns which block. */
  get blocks(): BlockManager {
    return this.#blocks;
  }

  get numWaiting(): number {
    return this.#waiting.length;
  }

  get numRunning(): number {
    return this.#running.length;
  }

  get counters(): Readonly<SchedulerCounters> {
    return this.#counters;
  }

  get hasWork(): boolean {
    return this.#waiting.length + this.#running.length > 0;
  }

  /** Every sequence that has not ended. */
  get unfinished(): readonly Sequence[] {
    return [...this.#running, ...this.#waiting];
  }

  /**
   * Puts a sequence at the end of the queue.
   * @throws LongcatError `OUT_OF_MEMORY` if it could never run, even alone.
   */
  add(sequence: Sequence): void {
    const there = this.#limits.numBlocks * this.#limits.blockSize;
    if (this.blocks.blocksFor(sequence.maxPositions) > this.#limits.numBlocks)
      throw new LongcatError("OUT_OF_MEMORY", `the request needs cache for ${sequence.maxPositions} tokens; there is cache for ${there}`);
    sequence.arrival = this.#arrivals++;
    this.#waiting.push(sequence);
    this.#changed = true;
  }

  /** The next step, when none is under way and all are reported. */
  schedule(): Batch {
    const admitted = this.#admit();
    const who = this.#whoDecodes();
    const prompts = this.#running.filter(({ restOfPrompt }) => restOfPrompt > 0);
    const drafts = this.#policy.drafts(prompts.length > 0 ? this.#running.length : who.length);
    const { decodes, grown, evicted } = this.#grow(who, this.#fittingDrafts(drafts, who.length));
    const rows = decodes.reduce((sum, { step }) => sum + (step.drafts ?? 0) + 1, 0);
    const chunks = this.#chunks(prompts.filter(running), this.#limits.maxBatchTokens - rows, drafts);
    this.#promptsLast = chunks.length > 0;
    return this.#mark({ evicted, admitted, grown, entries: [...chunks, ...decodes] });
  }

  /**
   * The step after `batch`, the last one under way; undefined if it is not known yet, or would not only decode: somebody may start, has prompt
   * left to run or would have to give way, or nobody goes on for certain. May be called between `take` and `report`.
   */
  scheduleAhead(batch: Batch): Batch | undefined {
    // Whoever waits may do so for what a prompt under way leaves in the prefix cache, or for its sibling.
    if (this.#waiting.length > 0 && (this.#changed || batch.entries.some(({ step }) => step.tokens !== null))) return undefined;
    if (this.#running.some(({ restOfPrompt }) => restOfPrompt > 0)) return undefined;
    // What a guided sequence may draw depends on the token before, which the host has to see.
    const unseen = this.#running.filter((sequence) => sequence.guide !== undefined && !sequence.isSettled);
    if (unseen.length > 0 && !this.#mayPass(unseen, batch)) return undefined;
    const going = this.#whoDecodes().filter((sequence) => !unseen.includes(sequence));
    if (going.length === 0 || going.filter((sequence) => this.#needsBlocks(sequence, 0) > 0).length > this.blocks.numFree) return undefined;
    const { grown, decodes } = this.#grow(going, this.#fittingDrafts(this.#policy.drafts(going.length), going.length));
    return this.#mark({ evicted: [], admitted: [], grown, entries: decodes });
  }

  /** Whether others go on in a step without guided sequences whose tokens the host has yet to see: in one, not in a second behind it. */
  #mayPass(unseen: readonly Sequence[], batch: Batch): boolean {
    return batch.entries.some(({ sequence }) => unseen.includes(sequence)) && this.#othersGoOn(unseen.length, this.#running.length);
  }

  /** Takes slot and blocks from a sequence that no step under way has a part in, and puts it back among those who wait. */
  preempt(sequence: Sequence): Eviction {
    if (sequence.mostScheduled > sequence.computed) throw new LongcatError("INTERNAL", "a sequence cannot give way while it is in a step");
    const blocks = sequence.blocks.slice(0, this.blocks.blocksFor(sequence.computed));
    this.#giveBack(sequence);
    sequence.moveTo(sequence.computed);
    sequence.state = "waiting";
    this.#running = this.#running.filter((other) => other !== sequence);
    insert(this.#waiting, sequence);
    this.#counters.preemptions += 1;
    return { sequence, blocks };
  }

  /**
   * Takes those out of a step that have ended since it was scheduled, and writes down which drafts are made: as many as any of the rest asks
   * for. To be called right before it is launched.
   */
  begin(batch: Batch): void {
    batch.entries = batch.entries.filter(({ sequence }) => sequence.state !== "ended");
    const drafted = batch.entries.reduce((most, { step }) => Math.max(most, step.drafts ?? 0), 0);
    for (const entry of batch.entries) {
      const { sequence, step } = entry;
      if (step.tokens === null) entry.made = Math.min(step.drafts ?? 0, sequence.drafted);
      sequence.drafted = drafted;
    }
  }

  /** Writes down what a step that is over has computed and drawn: of those under way, the oldest. */
  take(batch: Batch, results: readonly StepResult[]): void {
    for (const [i, { sequence, step, made }] of batch.entries.entries()) {
      if (sequence.state === "ended") continue;
      const { verified, accepted } = sequence.take(step, results[i] as StepResult, made);
      this.#policy.count(verified, accepted);
      if (sequence.atEnd) this.#changed = true;
    }
  }

  /** Hands results that were taken to their sequences; those at their end give back slot and blocks. */
  report(batch: Batch, results: readonly StepResult[]): void {
    for (const [i, { sequence, step }] of batch.entries.entries()) {
      if (sequence.state === "ended") continue;
      const result = results[i] as StepResult;
      this.#counters.promptTokens += step.tokens?.length ?? 0;
      if (sequence.report(step, result, () => this.#store(sequence))) this.#end(sequence);
    }
  }

  /** Ends all sequences of a step that failed, and those whose latents it should have saved. */
  abandon(batch: Batch): void {
    for (const { sequence } of batch.entries) this.#end(sequence);
    for (const { sequence } of batch.admitted) this.#end(sequence);
    for (const { sequence } of batch.evicted) if (sequence.computed > 0 && sequence.saved === undefined) this.#end(sequence);
  }

  /** Ends everything and starts anew, whatever state it was left in: an error of the scheduler's own. */
  reset(): void {
    for (const sequence of this.unfinished) leave(sequence);
    this.#waiting = [];
    this.#running = [];
    this.#blocks = new BlockManager(this.#limits.numBlocks, this.#limits.blockSize);
    this.#freeSlots = slots(this.#limits);
  }

  /** Ends a sequence wherever it is. What a step under way still makes of it is left alone. */
  abort(sequence: Sequence): void {
    this.#end(sequence);
  }

  #mark(batch: Batch): Batch {
    this.#steps += 1;
    for (const { sequence, step } of batch.entries) {
      sequence.enter(step);
      sequence.lastStep = this.#steps;
    }
    return batch;
  }

  #end(sequence: Sequence): void {
    this.#giveBack(sequence);
    leave(sequence);
    this.#running = this.#running.filter((other) => other !== sequence);
    this.#waiting = this.#waiting.filter((other) => other !== sequence);
    this.#changed = true;
  }

  #giveBack(sequence: Sequence): void {
    if (sequence.slot >= 0) this.#freeSlots.push(sequence.slot);
    const { blocks } = sequence;
    sequence.slot = -1;
    sequence.blocks = [];
    this.blocks.release(blocks);
  }

  /** Starts those who have waited longest. Who waits for a prompt that a sibling, or somebody who begins alike, runs just now lets others pass. */
  #admit(): Admission[] {
    const admitted: Admission[] = [];
    for (const sequence of [...this.#waiting]) {
      const source = sequence.computed > 0 ? undefined : sequence.siblings?.find(({ state }) => state === "running");
      if (source !== undefined && source.computed < source.sharedLength) continue;
      if (this.#freeSlots.length === 0) break;
      if (source === undefined && this.#awaitsPrefix(sequence)) continue;
      const admission = this.#place(sequence, source);
      if (admission === undefined) break;
      this.#waiting = this.#waiting.filter((other) => other !== sequence);
      insert(this.#running, sequence);
      admitted.push(admission);
    }
    this.#changed = false;
    return admitted;
  }

  /** Gives a sequence its slot and blocks; undefined if it has to wait. */
  #place(sequence: Sequence, source: Sequence | undefined): Admission | undefined {
    const { blockSize } = this.blocks;
    const shared =
      source === undefined ? this.#cachedBlocks(sequence) : source.blocks.slice(0, Math.floor(sequence.sharedLength / blockSize));
    const own = this.#allocateBeside(
      shared,
      this.blocks.blocksFor(Math.max(sequence.prompt.length, sequence.computed + 1)) - shared.length,
    );
    if (own === undefined) return undefined;
    sequence.blocks = [...shared, ...own];
    sequence.slot = this.#freeSlots.pop() as number;
    sequence.state = "running";
    sequence.numStored = shared.length;
    if (source !== undefined) return this.#fork(sequence, source);
    if (sequence.saved !== undefined) return { sequence, known: sequence.computed, restore: { firstBlock: shared.length } };
    sequence.moveTo(shared.length * blockSize);
    sequence.cachedTokens = sequence.computed;
    sequence.experts = shared.flatMap((block) => [...this.blocks.cache.expertsOf(block)]);
    if (this.#looksUp(sequence)) this.#counters.prefixQueryTokens += sequence.prompt.length;
    this.#counters.prefixHitTokens += sequence.computed;
    return { sequence, known: sequence.computed };
  }

  #fork(sequence: Sequence, source: Sequence): Admission {
    const length = sequence.sharedLength;
    sequence.moveTo(length);
    sequence.experts = source.experts.slice(0, length);
    const last = sequence.numStored;
    const copyBlock = { from: source.blocks[last] as number, to: sequence.blocks[last] as number };
    const partial = length % this.blocks.blockSize > 0;
    return { sequence, known: 0, fork: { fromSlot: source.slot, length, ...(partial && { copyBlock }) } };
  }

  /**
   * Shares `shared` and allocates `count` blocks more; neither where that would leave those who run without a block each to grow by: who
   * starts should not have to give way at once.
   */
  #allocateBeside(shared: readonly number[], count: number): number[] | undefined {
    const idle = shared.filter((block) => this.blocks.cache.isIdle(block)).length;
    if (count + idle + this.#running.length > this.blocks.numFree) return undefined;
    this.blocks.share(shared);
    return this.blocks.allocate(count);
  }

  /** What is scored has to be run; and who comes back has been looked up before. */
  #looksUp(sequence: Sequence): boolean {
    return this.#mode !== "off" && !sequence.score;
  }

  /** Leading blocks that the prefix cache has for a sequence: of its prompt, or of all that it had when it gave way. */
  #cachedBlocks(sequence: Sequence): number[] {
    const blocks: number[] = [];
    if (!this.#looksUp(sequence)) return blocks;
    const { blockSize, cache } = this.blocks;
    const most = Math.floor((sequence.saved === undefined ? sequence.sharedLength : this.#reusable(sequence)) / blockSize);
    for (let i = 0; i < most; i++) {
      const block = cache.find(sequence.digest(i, blockSize));
      if (block === undefined) break;
      blocks.push(block);
    }
    return blocks;
  }

  /**
   * Whether blocks that a sequence would look for are being run just now, so many of them that it is better to wait than to run them a second
   * time: many questions that come at once behind one system prompt. Only those are waited for who are served before it: the oldest of the
   * prompts, and shorter ones.
   */
  #awaitsPrefix(sequence: Sequence): boolean {
    if (!this.#looksUp(sequence) || sequence.computed > 0) return false;
    const { blockSize } = this.blocks;
    const found = this.#cachedBlocks(sequence).length;
    const last = found + LEAST_AWAITED_BLOCKS - 1;
    const end = (last + 1) * blockSize;
    if (end > sequence.sharedLength) return false;
    const rest = sequence.prompt.length - found * blockSize;
    return this.#running
      .filter(({ inPrompt }) => inPrompt)
      .filter((other, i) => (i === 0 || other.restOfPrompt <= rest) && other.prompt.length >= end)
      .some((other) => other.digest(last, blockSize) === sequence.digest(last, blockSize));
  }

  /** Positions whose blocks may be shared with others: the prompt's alone, unless decode-made ones are wanted as well. */
  #reusable({ experts, prompt }: Sequence): number {
    return this.#mode === "all" ? experts.length : Math.min(experts.length, prompt.length);
  }

  /** Tells the prefix cache of blocks that have become full. */
  #store(sequence: Sequence): void {
    if (this.#mode === "off") return;
    const { blockSize, cache } = this.blocks;
    for (const full = Math.floor(this.#reusable(sequence) / blockSize); sequence.numStored < full; sequence.numStored++) {
      const i = sequence.numStored;
      const experts = sequence.experts.slice(i * blockSize, (i + 1) * blockSize);
      cache.store(sequence.digest(i, blockSize), sequence.blocks[i] as number, experts);
    }
  }

  /** Everybody who decodes; where not all fit beside the prompts' share, those that have waited longest. */
  #whoDecodes(): Sequence[] {
    const decodes = this.#running.filter((sequence) => sequence.decodes);
    const room = this.#roomForDecodes();
    if (decodes.length <= room) return decodes;
    return [...decodes].sort((a, b) => a.lastStep - b.lastStep).slice(0, room);
  }

  /** Rows of a step that are left beside the prompts' share. */
  #roomForDecodes(): number {
    const { maxBatchTokens } = this.#limits;
    const promptShare = this.#running.some(({ restOfPrompt }) => restOfPrompt > 0) ? Math.ceil(maxBatchTokens * LEAST_PROMPT_SHARE) : 0;
    // A budget of one token goes to prompts and decodes in turn.
    return promptShare < maxBatchTokens ? maxBatchTokens - promptShare : this.#promptsLast ? maxBatchTokens : 0;
  }

  /** Drafts that each of so many sequences may have in a step beside the prompts' share. */
  #fittingDrafts(drafts: number, decodes: number): number {
    return decodes === 0 ? 0 : Math.min(drafts, Math.floor(this.#roomForDecodes() / decodes) - 1);
  }

  /** Blocks that a sequence lacks for its next token and the drafts behind it, wherever the steps under way leave it. */
  #needsBlocks(sequence: Sequence, drafts: number): number {
    return this.blocks.blocksFor(sequence.mostScheduled + drafts + 1) - sequence.blocks.length;
  }

  /**
   * Sees that each has a block for its next token, the oldest first; the youngest of all give way where there is none. For drafts nobody
   * gives way: there are fewer of them where blocks are short.
   */
  #grow(sequences: readonly Sequence[], drafts: number): { decodes: BatchEntry[]; grown: Growth[]; evicted: Eviction[] } {
    const [grown, evicted]: [Growth[], Eviction[]] = [[], []];
    const extend = (sequence: Sequence, count: number): boolean => {
      const blocks = this.blocks.allocate(count);
      if (blocks === undefined) return false;
      grown.push({ sequence, firstBlock: sequence.blocks.length, blocks });
      sequence.blocks.push(...blocks);
      return true;
    };
    for (const sequence of sequences.filter((one) => this.#needsBlocks(one, 0) > 0).sort((a, b) => a.arrival - b.arrival))
      while (running(sequence) && this.#needsBlocks(sequence, 0) > 0)
        if (!extend(sequence, 1)) evicted.push(this.preempt(this.#running.at(-1) as Sequence));
    const decodes = (evicted.length === 0 ? sequences : sequences.filter(running)).map((sequence) => {
      let own = sequence.guide === undefined ? Math.min(drafts, sequence.roomForDrafts) : 0;
      for (let lacks = this.#needsBlocks(sequence, own); lacks > 0 && !extend(sequence, lacks); lacks = this.#needsBlocks(sequence, own))
        own--;
      return { sequence, step: sequence.nextToken(own), made: 0 };
    });
    return { decodes, grown, evicted };
  }

  #chunks(prompts: readonly Sequence[], room: number, drafts: number): BatchEntry[] {
    const shares = sharePromptTokens(
      prompts.map(({ restOfPrompt }) => restOfPrompt),
      room,
    );
    return prompts.flatMap((sequence, i) => {
      const share = shares[i] as number;
      return share === 0 ? [] : [{ sequence, step: sequence.nextChunk(share, drafts), made: 0 }];
    });
  }
}

/** Share of a step's tokens that prompts get at least, however many sequences decode. */
const LEAST_PROMPT_SHARE = 1 / 4;

/** Blocks of a prompt that are worth waiting for, at least a step, rather than to run them beside another that runs the same. */
const LEAST_AWAITED_BLOCKS = 4;

function running({ state }: Sequence): boolean {
  return state === "running";
}

/** Takes a sequence out of its place. */
function leave(sequence: Sequence): void {
  sequence.slot = -1;
  sequence.blocks = [];
  sequence.saved = undefined;
  sequence.state = "ended";
}

/** Puts a sequence where its arrival says. */
function insert(list: Sequence[], sequence: Sequence): void {
  const at = list.findIndex(({ arrival }) => arrival > sequence.arrival);
  list.splice(at < 0 ? list.length : at, 0, sequence);
}

/** All slots, the first last: they are taken from the end. */
function slots({ maxSequences }: RunnerLimits): number[] {
  return Array.from({ length: maxSequences }, (_, i) => maxSequences - 1 - i);
}
