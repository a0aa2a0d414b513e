/**
 * Who runs next. First come, first served: a sequence waits until a slot and all blocks that it may come to need are free, so that nothing
 * runs out on the way; then it takes part in steps until it ends. Four verbs: add, schedule, postprocess, abort.
 *
 * While a step runs, the one after it may be scheduled too (`scheduleAhead`), as long as it decodes the same sequences: their positions
 * are known, their tokens lie on the device. If one of them ends meanwhile, its part in the second step was for nothing; its slot and
 * blocks can be given out at once all the same, since whatever the next owner does is enqueued behind that step.
 * @module
 */

import { LongcatError } from "../errors.js";
import type { RunnerLimits, StepResult, StepSequence } from "../model/runner-types.js";
import { BlockManager } from "./block-manager.js";
import type { Sequence } from "./sequence.js";

/** A sequence that has just got its slot and blocks; with `fork`, what to copy from a sibling that has run the prompt. */
export interface Admission {
  sequence: Sequence;
  fork?: { fromSlot: number; length: number; copyBlock?: { from: number; to: number } };
}

/** One step: first what to set up, then what to run: prompt chunks or decode tokens. */
export interface Batch {
  admitted: Admission[];
  entries: { sequence: Sequence; step: StepSequence }[];
}

export class Scheduler {
  readonly #limits: RunnerLimits;
  #blocks: BlockManager;
  #freeSlots: number[];
  #waiting: Sequence[] = [];
  #running: Sequence[] = [];
  #steps = 0;
  #promptsLast = false;

  constructor(limits: RunnerLimits) {
    this.#limits = limits;
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
    this.#waiting.push(sequence);
  }

  /** The next step, when none is under way. Its sequences are marked as in a step until `postprocess` or `abandon`. */
  schedule(): Batch {
    const admitted = this.#admit();
    const prompts = this.#running.filter((sequence) => sequence.inPrompt);
    const decodes = this.#running.filter((sequence) => !sequence.inPrompt);
    // While sequences decode, prompts get every second step at most.
    const promptTurn = prompts.length > 0 && !(this.#promptsLast && decodes.length > 0);
    const entries = promptTurn ? this.#chunks(prompts) : this.#tokens(decodes);
    this.#promptsLast = promptTurn;
    return this.#mark({ admitted, entries });
  }

  /**
   * The step after `batch`, which is under way; undefined if it is not known yet: somebody waits, runs a prompt, or nobody in the batch
   * goes on for certain.
   */
  scheduleAhead(batch: Batch): Batch | undefined {
    if (this.#waiting.length > 0 || this.#running.some((sequence) => sequence.stepsInFlight === 0)) return undefined;
    if (batch.entries.some(({ step }) => step.tokens !== null)) return undefined;
    const going = batch.entries.map(({ sequence }) => sequence).filter((sequence) => sequence.goesOn);
    if (going.length === 0) return undefined;
    return this.#mark({ admitted: [], entries: going.map((sequence) => ({ sequence, step: sequence.nextToken() })) });
  }

  #mark(batch: Batch): Batch {
    this.#steps += 1;
    for (const { sequence } of batch.entries) {
      sequence.stepsInFlight += 1;
      sequence.lastStep = this.#steps;
    }
    return batch;
  }

  /** Takes those out of a step that have ended since it was scheduled. To be called right before it is launched. */
  dropEnded(batch: Batch): void {
    for (const { sequence } of batch.entries) if (sequence.state === "ended") sequence.stepsInFlight -= 1;
    batch.entries = batch.entries.filter(({ sequence }) => sequence.state !== "ended");
  }

  /** Hands a finished step's results to its sequences; those at their end give back slot and blocks. */
  postprocess(batch: Batch, results: readonly StepResult[]): void {
    batch.entries.forEach(({ sequence, step }, i) => {
      sequence.stepsInFlight -= 1;
      const result = results[i] as StepResult;
      if (sequence.state !== "ended" && sequence.advance(step, result)) this.#end(sequence);
    });
  }

  /** Ends all sequences of a step that failed. */
  abandon(batch: Batch): void {
    for (const { sequence } of batch.entries) {
      sequence.stepsInFlight -= 1;
      this.#end(sequence);
    }
  }

  /** Ends everything and starts anew, whatever state it was left in: an error of the scheduler's own. */
  reset(): void {
    for (const sequence of this.unfinished) {
      sequence.stepsInFlight = 0;
      leave(sequence);
    }
    this.#waiting = [];
    this.#running = [];
    this.#blocks = new BlockManager(this.#limits.numBlocks, this.#limits.blockSize);
    this.#freeSlots = slots(this.#limits);
  }

  /** Ends a sequence wherever it is. What a step under way still makes of it is left alone. */
  abort(sequence: Sequence): void {
    this.#end(sequence);
  }

  #end(sequence: Sequence): void {
    if (sequence.slot >= 0) this.#freeSlots.push(sequence.slot);
    this.blocks.release(sequence.blocks);
    leave(sequence);
    this.#running = this.#running.filter((other) => other !== sequence);
    this.#waiting = this.#waiting.filter((other) => other !== sequence);
  }

  #admit(): Admission[] {
    const admitted: Admission[] = [];
    for (let head = this.#waiting[0]; head !== undefined; head = this.#waiting[0]) {
      const admission = this.#freeSlots.length > 0 ? this.#place(head) : undefined;
      if (admission === undefined) break;
      this.#waiting.shift();
      this.#running.push(head);
      admitted.push(admission);
    }
    return admitted;
  }

  /** Gives a sequence its slot and blocks; undefined if it has to wait. */
  #place(sequence: Sequence): Admission | undefined {
    const source = sequence.siblings?.find((sibling) => sibling.state === "running");
    if (source !== undefined && source.computed < sequence.sharedLength) return undefined;
    const numShared = source === undefined ? 0 : Math.floor(sequence.sharedLength / this.blocks.blockSize);
    const own = this.blocks.allocate(this.blocks.blocksFor(sequence.maxPositions) - numShared);
    if (own === undefined) return undefined;
    const shared = source?.blocks.slice(0, numShared) ?? [];
    this.blocks.share(shared);
    sequence.blocks = [...shared, ...own];
    sequence.slot = this.#freeSlots.pop() as number;
    sequence.state = "running";
    if (source === undefined) return { sequence };
    sequence.computed = sequence.sharedLength;
    sequence.promptRouting = { ...source.promptRouting };
    const partial = sequence.sharedLength % this.blocks.blockSize > 0;
    const copyBlock = { from: source.blocks[numShared] as number, to: sequence.blocks[numShared] as number };
    return { sequence, fork: { fromSlot: source.slot, length: sequence.sharedLength, ...(partial && { copyBlock }) } };
  }

  #chunks(prompts: readonly Sequence[]): Batch["entries"] {
    const entries: Batch["entries"] = [];
    let room = this.#limits.maxBatchTokens;
    for (const sequence of prompts) {
      if (room === 0) break;
      const step = sequence.nextChunk(room);
      room -= step.tokens?.length ?? 0;
      entries.push({ sequence, step });
    }
    return entries;
  }

  /** One token each; where not all fit, those that have waited longest. */
  #tokens(decodes: readonly Sequence[]): Batch["entries"] {
    const room = this.#limits.maxBatchTokens;
    const chosen = decodes.length <= room ? decodes : [...decodes].sort((a, b) => a.lastStep - b.lastStep).slice(0, room);
    return chosen.map((sequence) => ({ sequence, step: sequence.nextToken() }));
  }
}

/** Takes a sequence out of its place. */
function leave(sequence: Sequence): void {
  sequence.slot = -1;
  sequence.blocks = [];
  sequence.state = "ended";
}

/** All slots, the first last: they are taken from the end. */
function slots({ maxSequences }: RunnerLimits): number[] {
  return Array.from({ length: maxSequences }, (_, i) => maxSequences - 1 - i);
}
