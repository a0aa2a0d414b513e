/**
 * The loop of steps: schedules, launches and reports until nothing is left. Many calls at once share its steps.
 * @module
 */

import type { LongcatError, LongcatErrorCode } from "../errors.js";
import type { ModelRunner, RunnerLimits, StepResult } from "../model/runner-types.js";
import type { CoreCall, EngineCore, Generation, Scoring } from "./core.js";
import { DraftPolicy } from "./draft-policy.js";
import { eventLoopTurn } from "./event-loop.js";
import { setMasks } from "./guided.js";
import { MOST_AUTO_DRAFTS } from "./options.js";
import { answerReader, type TextTools } from "./prompt.js";
import { asLongcatError, GenerateRequest, type RequestHost, ScoreRequest } from "./request.js";
import { type Admission, type Batch, type Eviction, type Growth, Scheduler } from "./scheduler.js";
import { StepClock } from "./step-clock.js";
import type { EngineInfo, EngineStats, GenerateResult, ScoreResult } from "./types.js";

/** What a loop is made of. */
export interface StepLoopParts {
  runner: ModelRunner;
  /** Absent: the checkpoint has no tokenizer. */
  text?: TextTools;
  info: EngineInfo;
  /** Steps launched before the one that runs is over; absent: by what steps take, and the host beside them. */
  stepsAhead?: number;
  /** Told when there is something to do after a rest, before the first step, and when nothing is left. */
  onWork?: (working: boolean) => void;
  /** Told of a step that failed on the device, beside those whose calls it takes with it; not of one that was not launched. */
  onFailure?: (error: LongcatError) => void;
}

type AnyRequest = GenerateRequest | ScoreRequest;

/** Codes of failures that a device does not get over. */
const DEVICE_FAULTS: ReadonlySet<string> = new Set<LongcatErrorCode>(["CUDA_ERROR", "COMM_ERROR"]);

/** Blocks that running sequences have got, set at a time: fewer commands than a step has to spare. */
const GROWTHS_AT_ONCE = 16;

/** A step from its launch to its results. */
interface StepUnderWay {
  batch: Batch;
  /** Resolves when all of it is enqueued. */
  launched: Promise<Launch>;
  results: Promise<StepResult[]>;
}

/** A step that is enqueued, and when it was; `overMs`: when the device was done with it, once its results are there. */
interface Launch {
  results: Promise<StepResult[]>;
  launchedMs: number;
  overMs: number;
}

export class StepLoop implements EngineCore {
  readonly #parts: StepLoopParts;
  readonly #policy: DraftPolicy;
  readonly #scheduler: Scheduler;
  readonly #clock = new StepClock();
  readonly #host: RequestHost;
  /** When the device was done with the step whose results are being told. */
  #stepOverMs = 0;
  readonly #active = new Set<AnyRequest>();
  readonly #counters = { steps: 0, generatedTokens: 0 };
  #loop: Promise<void> | undefined;
  /** The oldest first. */
  #underWay: StepUnderWay[] = [];
  #closed = false;

  constructor(parts: StepLoopParts) {
    const { runner, text } = parts;
    this.#parts = parts;
    this.#policy = draftPolicy(parts);
    const othersGoOn = (guided: number, all: number): boolean => this.#clock.othersGoOn(guided, all);
    this.#scheduler = new Scheduler(runner.limits, parts.info.prefixCache, this.#policy, othersGoOn);
    this.#host = {
      limits: runner.limits,
      endTokens: new Set(parts.info.endTokens),
      tokenBytes: (id) => text?.tokenBytes(id) ?? [],
      stepOverMs: () => this.#stepOverMs,
      release: (sequences) => {
        for (const sequence of sequences) this.#scheduler.abort(sequence);
      },
    };
    if (text !== undefined) runner.setAllowed(text.allowedIds);
  }

  get limits(): RunnerLimits {
    return this.#parts.runner.limits;
  }

  get stats(): EngineStats {
    const { numFree, numBlocks, cache } = this.#scheduler.blocks;
    return {
      runningSequences: this.#scheduler.numRunning,
      waitingSequences: this.#scheduler.numWaiting,
      blocksInUse: numBlocks - numFree,
      cachedBlocks: cache.numIdle,
      numBlocks,
      ...this.#counters,
      ...this.#scheduler.counters,
      stepSeconds: this.#clock.seconds.busy,
      idleSeconds: this.#clock.seconds.idle,
      speculation: this.#policy.stats,
    };
  }

  async prepare(generation: Generation): Promise<() => CoreCall<GenerateResult>> {
    const reader = await answerReader(generation.prompt, this.#parts.text);
    const onChunk: Generation["onChunk"] = (chunk) => {
      this.#counters.generatedTokens += chunk.tokens.length;
      generation.onChunk(chunk);
    };
    return () => this.#run(new GenerateRequest(this.#host, { ...generation, onChunk }, reader));
  }

  score({ ids, signal }: Scoring): CoreCall<ScoreResult> {
    return this.#run(new ScoreRequest(this.#host, ids, signal));
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const request of [...this.#active]) request.abort("the engine was closed");
    await this.#loop;
  }

  /** Queues a request and sees that the loop runs. */
  #run<R extends AnyRequest>(request: R): CoreCall<ReturnType<R["result"]>> {
    const done = request.done.then(() => request.result() as ReturnType<R["result"]>);
    this.#active.add(request);
    void done.catch(() => undefined).then(() => this.#active.delete(request));
    const call = { done, abort: (message: string, cause?: unknown) => request.abort(message, cause) };
    if (this.#closed) request.abort("the engine was closed");
    else request.abortIfSignalled();
    if (request.settled) return call;
    try {
      for (const sequence of request.sequences) this.#scheduler.add(sequence);
      this.#loop ??= this.#steps();
    } catch (error) {
      request.fail(error);
    }
    return call;
  }

  /** Steps until nothing is left. The event loop turns once a step at least, so that calls, aborts and streams are served. */
  async #steps(): Promise<void> {
    this.#parts.onWork?.(true);
    try {
      do {
        await eventLoopTurn();
        if (this.#scheduler.hasWork) this.#launch(this.#scheduler.schedule());
        while (this.#underWay.length > 0) await this.#turn();
      } while (this.#scheduler.hasWork);
    } catch (error) {
      this.#failAll(error);
    } finally {
      this.#underWay = [];
      this.#loop = undefined;
      this.#clock.rest();
      this.#parts.onWork?.(false);
    }
  }

  /**
   * Deals with the oldest step under way. What can follow those under way is launched before anybody is told of this one's tokens: the device
   * does not wait for parsers, streams and sockets.
   */
  async #turn(): Promise<void> {
    this.#launchAhead();
    const { batch, launched, results } = this.#underWay[0] as StepUnderWay;
    let isLaunched = false;
    try {
      const launch = await launched;
      isLaunched = true;
      const there = await results;
      this.#timed(batch, launch);
      this.#scheduler.take(batch, there);
      this.#underWay.shift();
      this.#counters.steps += 1;
      const { overMs } = launch;
      this.#launchAhead(overMs);
      if (this.#underWay.length > 0) await eventLoopTurn();
      this.#stepOverMs = overMs;
      this.#scheduler.report(batch, there);
    } catch (error) {
      this.#underWay = this.#underWay.filter((step) => step.batch !== batch);
      this.#failBatch(batch, error, isLaunched);
    }
  }

  /** Notes what a step took. Only of those that just decode something may be learned about drafts. */
  #timed({ admitted, evicted, entries }: Batch, { launchedMs, overMs }: Launch): void {
    if (entries.length === 0) return;
    const ms = this.#clock.over(launchedMs, overMs);
    const decodes = entries.every(({ step }) => step.tokens === null);
    if (!decodes || admitted.length + evicted.length > 0) return;
    const drafts = entries.map(({ step }) => step.drafts ?? 0);
    const most = Math.max(...drafts);
    const all = drafts.reduce((sum, one) => sum + one, 0);
    // At the end of a sequence, and where it is guided, it has fewer than the others.
    this.#policy.timed({ batch: drafts.length, drafts: most, drafting: most === 0 ? 1 : all / (most * drafts.length), ms });
  }

  /** `roomMs`: when the end of a step made room for one more. */
  #launchAhead(roomMs?: number): void {
    const { stepsAhead = this.#clock.stepsAhead } = this.#parts;
    while (this.#underWay.length <= stepsAhead) {
      const last = this.#underWay.at(-1);
      const next = last && this.#scheduler.scheduleAhead(last.batch);
      if (next === undefined) return;
      this.#launch(next, roomMs);
    }
  }

  /** Sets up who starts, and enqueues a step behind those under way. */
  #launch(batch: Batch, roomMs?: number): void {
    const launched = this.#enqueue(batch, this.#underWay.at(-1)?.launched);
    if (roomMs !== undefined) launched.then(({ launchedMs }) => this.#clock.lagged(launchedMs - roomMs)).catch(() => undefined);
    const results = launched.then(({ results }) => results);
    results.catch(() => undefined); // told where it is awaited
    this.#underWay.push({ batch, launched, results });
  }

  /** Resolves when all is enqueued; the results are wrapped, so that they are not waited for. */
  async #enqueue(batch: Batch, before: Promise<unknown> | undefined): Promise<Launch> {
    const { runner } = this.#parts;
    await before;
    for (const eviction of batch.evicted) await this.#save(eviction);
    for (const admission of batch.admitted) await this.#place(admission);
    if (batch.grown.length > 0) await this.#extend(batch.grown);
    await setMasks(batch.entries);
    await runner.room();
    this.#scheduler.begin(batch);
    const steps = batch.entries.map(({ step }) => step);
    const launch: Launch = { results: Promise.resolve([]), launchedMs: performance.now(), overMs: 0 };
    if (steps.length > 0)
      launch.results = runner.launch(steps, (ms) => {
        launch.overMs = ms;
      });
    return launch;
  }

  /** Enqueues the reads of what a sequence had in the cache. */
  async #save({ sequence, blocks }: Eviction): Promise<void> {
    const { runner } = this.#parts;
    const reads: Promise<Uint8Array>[] = [];
    for (const block of blocks) {
      await runner.room();
      if (sequence.state === "ended") return;
      const read = runner.readBlock(block);
      read.catch(() => undefined); // told when the sequence comes back
      reads.push(read);
    }
    if (reads.length === 0) return; // it had nothing, and starts from the beginning
    const saved = Promise.all(reads);
    saved.catch(() => undefined);
    sequence.saved = saved;
  }

  /** Sets up the slot of a sequence that starts, or comes back. */
  async #place({ sequence, known, restore, fork }: Admission): Promise<void> {
    const { runner } = this.#parts;
    const saved = restore === undefined ? [] : ((await sequence.saved) ?? []);
    await runner.room();
    if (sequence.slot < 0) return; // aborted while others were set up, and in no step
    runner.setSampling(sequence.slot, sequence.sampling, sequence.tokens);
    runner.setBlocks(sequence.slot, 0, sequence.blocks);
    if (known > 0) runner.setHistory(sequence.slot, sequence.tokensAt(0, known + (sequence.inPrompt ? 0 : 1)));
    if (fork !== undefined) {
      if (fork.copyBlock !== undefined) runner.copyBlock(fork.copyBlock.from, fork.copyBlock.to);
      runner.copyHistory(fork.fromSlot, sequence.slot, fork.length);
    }
    for (let i = restore?.firstBlock ?? 0; i < saved.length; i++) {
      await runner.room();
      if (sequence.slot < 0) return;
      runner.writeBlock(sequence.blocks[i] as number, saved[i] as Uint8Array);
    }
    sequence.saved = undefined;
  }

  /** Tells the device of blocks that running sequences have got. */
  async #extend(grown: readonly Growth[]): Promise<void> {
    const { runner } = this.#parts;
    for (const [i, { sequence, firstBlock, blocks }] of grown.entries()) {
      if (i % GROWTHS_AT_ONCE === 0) await runner.room();
      if (sequence.slot >= 0) runner.setBlocks(sequence.slot, firstBlock, blocks);
    }
  }

  /** A step that failed takes the calls with it that had a part in it; the engine goes on. */
  #failBatch(batch: Batch, error: unknown, isLaunched: boolean): void {
    this.#scheduler.abandon(batch);
    const failed = asLongcatError(error);
    if (isLaunched || DEVICE_FAULTS.has(failed.code)) this.#parts.onFailure?.(failed);
    for (const { sequence } of [...batch.admitted, ...batch.entries, ...batch.evicted])
      if (sequence.state === "ended") sequence.fail(failed);
  }

  /** The scheduler itself failed: no call can go on, and the next one starts from the beginning. */
  #failAll(error: unknown): void {
    this.#scheduler.reset();
    const failed = asLongcatError(error);
    this.#parts.onFailure?.(failed);
    for (const request of [...this.#active]) request.fail(failed);
  }
}

/** How the number of drafts is chosen, as the options say and as far as the runner makes any. */
function draftPolicy({ runner, info: { speculative } }: StepLoopParts): DraftPolicy {
  const { maxDrafts } = runner.limits;
  if (typeof speculative === "object") return new DraftPolicy(Math.min(speculative.drafts, maxDrafts), false);
  return new DraftPolicy(speculative === "auto" ? Math.min(MOST_AUTO_DRAFTS, maxDrafts) : 0, true);
}
