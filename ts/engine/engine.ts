/**
 * The engine: a loaded checkpoint that answers calls. Many calls at once share its steps; each gives the same answer as it would alone.
 * @module
 */

import { absent, abortSignal, boolean, invalid, record, rejectUnknown } from "../checks.js";
import { LongcatError } from "../errors.js";
import type { ModelRunner, StepResult } from "../model/runner-types.js";
import {
  type GenerateParams,
  type Parameters,
  resolveParameters,
  type SamplingDefaults,
  type VocabularyFacts,
} from "../sampling/parameters.js";
import { ChunkQueue } from "./chunk-queue.js";
import { DraftPolicy } from "./draft-policy.js";
import { setMasks } from "./guided.js";
import { checkDirectory, loadParts } from "./load.js";
import { type EngineOptions, MOST_AUTO_DRAFTS, resolveOptions } from "./options.js";
import {
  checkIds,
  type PreparedPrompt,
  type PromptLimits,
  type PromptParameters,
  preparePrompt,
  type TextTools,
  vocabularyFacts,
} from "./prompt.js";
import { asLongcatError, GenerateRequest, type RequestHost, ScoreRequest } from "./request.js";
import { type Admission, type Batch, type Eviction, type Growth, Scheduler } from "./scheduler.js";
import { StepClock } from "./step-clock.js";
import type { ChatPrompt, Chunk, EngineInfo, EngineStats, GenerateResult, Prompt, ScoreResult, TokenPrompt } from "./types.js";

/** What an engine is made of; `load` makes it from a checkpoint folder. */
export interface EngineParts {
  runner: ModelRunner;
  /** Absent: the checkpoint has no tokenizer. */
  text?: TextTools;
  info: EngineInfo;
  /** The model's context; the runner's may be shorter. */
  modelContext: number;
  /** Sampling values of generation_config.json. */
  defaults: SamplingDefaults;
  /** Steps launched before the one that runs is over; absent: by what steps take, and the host beside them. */
  stepsAhead?: number;
  close(): Promise<void>;
}

/** Options of a scoring. */
export interface ScoreOptions {
  /** Special tokens written in a string become special tokens. Default false. */
  parseSpecial?: boolean | null;
  signal?: AbortSignal | null;
}

/** How long the prompts of an array may keep the event loop from turning. */
const LONGEST_TURN_MS = 10;

type OnChunk = (chunk: Chunk) => void;
type AnyRequest = GenerateRequest | ScoreRequest;

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

/**
 * A loaded checkpoint.
 *
 * @example
 * const engine = await Engine.load();               // the bundled mini checkpoint; or a folder
 * try {
 *   const { text } = await engine.generate({ messages: [{ role: "user", content: "Compute 56 + 80." }] }, { temperature: 0 });
 *   for await (const chunk of engine.stream("Once upon a time", { maxTokens: 32 })) process.stdout.write(chunk.text);
 * } finally {
 *   await engine.close();
 * }
 */
export class Engine implements AsyncDisposable {
  readonly #parts: EngineParts;
  readonly #policy: DraftPolicy;
  readonly #scheduler: Scheduler;
  readonly #clock = new StepClock();
  readonly #vocabulary: VocabularyFacts;
  readonly #limits: PromptLimits;
  readonly #host: RequestHost;
  /** When the device was done with the step whose results are being told. */
  #stepOverMs = 0;
  readonly #active = new Set<AnyRequest>();
  readonly #counters = { steps: 0, generatedTokens: 0 };
  #loop: Promise<void> | undefined;
  /** The oldest first. */
  #underWay: StepUnderWay[] = [];
  #closing: Promise<void> | undefined;

  private constructor(parts: EngineParts) {
    const { runner, text } = parts;
    this.#parts = parts;
    this.#policy = draftPolicy(parts);
    const othersGoOn = (guided: number, all: number): boolean => this.#clock.othersGoOn(guided, all);
    this.#scheduler = new Scheduler(runner.limits, parts.info.prefixCache, this.#policy, othersGoOn);
    this.#vocabulary = vocabularyFacts(runner.limits.vocabulary, text);
    const { vocabulary, contextLength } = runner.limits;
    this.#limits = { vocabulary, contextLength, modelContext: parts.modelContext };
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

  /**
   * Loads a checkpoint.
   *
   * @param directory A folder with config.json and safetensors; absent: the bundled mini checkpoint.
   * @param options See {@link EngineOptions}.
   * @throws LongcatError `OPTION_INVALID`, `CONFIG_INVALID`, `CHECKPOINT_INVALID`, `CHECKPOINT_UNSUPPORTED`, `TOKENIZER_INVALID`,
   * `OUT_OF_MEMORY`, `DEVICE_UNAVAILABLE`, `NATIVE_MISSING`; `ABORTED` if `options.signal` fired.
   */
  static async load(directory?: string | null, options?: EngineOptions | null): Promise<Engine> {
    const parts = await loadParts(checkDirectory(directory), resolveOptions(options));
    try {
      return new Engine(parts);
    } catch (error) {
      await parts.close();
      throw error;
    }
  }

  /**
   * An engine over parts that are there already, a runner of one's own for instance. The engine closes them.
   * @internal
   */
  static fromParts(parts: EngineParts): Engine {
    return new Engine(parts);
  }

  /** What is loaded, and which options are in force. */
  get info(): EngineInfo {
    return structuredClone(this.#parts.info);
  }

  /** What is going on now. */
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

  /**
   * Generates an answer; for an array of prompts an array of answers, run together.
   *
   * @param prompt Text, a chat or token ids; all of an array are checked before any runs.
   * @param params See {@link GenerateParams}.
   * @param onChunk Called with each piece of the answer when its step is over: what `stream` gives, without a loop. Of an array, `index` counts
   * all choices, prompt by prompt. The steps of all calls wait while it runs. What it throws ends this call, which rejects with it; others go on.
   * @throws LongcatError `PROMPT_INVALID`, `OPTION_INVALID`, `CONTEXT_OVERFLOW`, `OUT_OF_MEMORY`, `DISPOSED`; `ABORTED` with the result so
   * far as `partial` (of an array: an array).
   *
   * @example
   * const { text, finishReason } = await engine.generate("Once upon a time", { maxTokens: 64, temperature: 0 });
   */
  generate(
    prompt: string | ChatPrompt | TokenPrompt,
    params?: GenerateParams | null,
    onChunk?: ((chunk: Chunk) => void) | null,
  ): Promise<GenerateResult>;
  generate(
    prompts: readonly Prompt[],
    params?: GenerateParams | null,
    onChunk?: ((chunk: Chunk) => void) | null,
  ): Promise<GenerateResult[]>;
  async generate(
    prompt: Prompt | readonly Prompt[],
    params?: GenerateParams | null,
    onChunk?: OnChunk | null,
  ): Promise<GenerateResult | GenerateResult[]> {
    const listener = checkListener(onChunk);
    if (Array.isArray(prompt)) return this.#generateAll(prompt as readonly Prompt[], params, listener);
    const request = await this.#submit(prompt as Prompt, params, listener);
    await request.done;
    return request.result();
  }

  /**
   * Generates an answer piece by piece. Starts when iterated; leaving the loop early aborts the work.
   *
   * @throws LongcatError as `generate` does, from the first step of the loop; an aborted stream ends with `ABORTED`.
   *
   * @example
   * for await (const { text } of engine.stream("Once upon a time")) process.stdout.write(text);
   */
  async *stream(prompt: Prompt, params?: GenerateParams | null): AsyncGenerator<Chunk, void, undefined> {
    if (Array.isArray(prompt)) throw new LongcatError("PROMPT_INVALID", "prompt: an array is not accepted by stream; give one prompt");
    const queue = new ChunkQueue<Chunk>();
    const request = await this.#submit(prompt, params, (chunk) => queue.push(chunk));
    request.done.then(
      () => queue.end(),
      (error) => queue.end(error),
    );
    try {
      for (let chunk = await queue.next(); chunk !== undefined; chunk = await queue.next()) yield chunk;
    } finally {
      request.abort("the stream was left");
    }
  }

  /**
   * Log-probabilities of a given text: of each token given those before it.
   *
   * @param prompt Token ids or text.
   * @throws LongcatError `PROMPT_INVALID`, `CONTEXT_OVERFLOW`, `OUT_OF_MEMORY`, `OPTION_INVALID`, `ABORTED`, `DISPOSED`.
   *
   * @example
   * const { logprobs } = await engine.score([5, 9, 17]);        // [null, −3.2…, −7.9…]
   */
  async score(prompt: readonly number[] | string | TokenPrompt, options?: ScoreOptions | null): Promise<ScoreResult> {
    this.#assertOpen();
    const { parseSpecial, signal } = checkScoreOptions(options);
    const asPrompt: Prompt = Array.isArray(prompt) ? { tokens: prompt } : (prompt as string | TokenPrompt);
    const { ids } = await this.#prepare(asPrompt, { parseSpecial });
    return this.#run(new ScoreRequest(this.#host, ids, signal)).finished();
  }

  /**
   * The token ids of a prompt, as `generate` would run it.
   *
   * @throws LongcatError `PROMPT_INVALID`, `OPTION_INVALID`, `CONTEXT_OVERFLOW`, `OUT_OF_MEMORY`, `DISPOSED`.
   */
  async tokenize(prompt: Prompt, options?: { parseSpecial?: boolean | null } | null): Promise<number[]> {
    this.#assertOpen();
    const { parseSpecial } = checkScoreOptions(options);
    return [...(await preparePrompt(prompt, { parseSpecial }, this.#limits, this.#parts.text)).ids];
  }

  /**
   * The text of token ids, special tokens written out.
   *
   * @throws LongcatError `PROMPT_INVALID` for ids that the tokenizer does not have, or without a tokenizer; `DISPOSED`.
   */
  detokenize(tokens: readonly number[]): string {
    this.#assertOpen();
    const { text } = this.#parts;
    if (text === undefined) throw new LongcatError("PROMPT_INVALID", "this checkpoint has no tokenizer: ids have no text");
    return text.decode(checkIds(tokens, "tokens", this.#limits.vocabulary));
  }

  /** Whether it was closed: every call is then `DISPOSED`. */
  get closed(): boolean {
    return this.#closing !== undefined;
  }

  /** Aborts what runs, waits for the step in flight, frees model and device. Calling it again gives the same promise. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(): Promise<void> {
    for (const request of [...this.#active]) request.abort("the engine was closed");
    await this.#loop;
    await this.#parts.close();
  }

  #assertOpen(): void {
    if (this.closed) throw new LongcatError("DISPOSED", "the engine is closed; load a new one");
  }

  #parameters(params: GenerateParams | null | undefined): Parameters {
    this.#assertOpen();
    return resolveParameters(params, this.#vocabulary, this.#parts.defaults);
  }

  /** A prompt's ids. Closing the engine aborts this as it does all that runs. */
  async #prepare(prompt: Prompt, parameters: PromptParameters): Promise<PreparedPrompt> {
    try {
      return await preparePrompt(prompt, parameters, this.#limits, this.#parts.text);
    } catch (error) {
      if (!(error instanceof LongcatError) || error.code !== "DISPOSED") throw error;
      throw new LongcatError("ABORTED", "the engine was closed", { cause: error });
    }
  }

  async #submit(prompt: Prompt, params: GenerateParams | null | undefined, onChunk: OnChunk): Promise<GenerateRequest> {
    const startedMs = performance.now();
    const parameters = this.#parameters(params);
    const prepared = await this.#prepare(prompt, parameters);
    return this.#run(this.#request(prepared, parameters, startedMs, onChunk)).request;
  }

  async #generateAll(prompts: readonly Prompt[], params: GenerateParams | null | undefined, onChunk: OnChunk): Promise<GenerateResult[]> {
    const startedMs = performance.now();
    const parameters = this.#parameters(params);
    const prepared: PreparedPrompt[] = [];
    let turnedMs = startedMs;
    for (const [i, prompt] of prompts.entries()) {
      if (performance.now() - turnedMs > LONGEST_TURN_MS) {
        await eventLoopTurn();
        turnedMs = performance.now();
      }
      try {
        prepared.push(await this.#prepare(prompt, parameters));
      } catch (error) {
        throw atPosition(error, i);
      }
    }
    const requests = prepared.map((one, i) =>
      this.#request(one, parameters, startedMs, (chunk) => {
        chunk.index += i * parameters.n;
        onChunk(chunk);
      }),
    );
    for (const request of requests) this.#run(request);
    try {
      await Promise.all(requests.map(({ done }) => done));
    } catch (error) {
      for (const request of requests) request.abort("another prompt of the array failed");
      if (!(error instanceof LongcatError) || error.code !== "ABORTED") throw error;
      throw new LongcatError("ABORTED", error.message, { cause: error.cause, partial: requests.map((request) => request.result()) });
    }
    return requests.map((request) => request.result());
  }

  #request(prompt: PreparedPrompt, parameters: Parameters, startedMs: number, onChunk: OnChunk): GenerateRequest {
    return new GenerateRequest(this.#host, prompt, parameters, startedMs, (chunk) => {
      this.#counters.generatedTokens += chunk.tokens.length;
      onChunk(chunk);
    });
  }

  /** Queues a request and sees that the loop runs. */
  #run<R extends AnyRequest>(request: R): { request: R; finished(): Promise<ReturnType<R["result"]>> } {
    const finished = async () => {
      await request.done;
      return request.result() as ReturnType<R["result"]>;
    };
    this.#active.add(request);
    void request.done.catch(() => undefined).then(() => this.#active.delete(request));
    if (this.closed) request.abort("the engine was closed");
    else request.abortIfSignalled();
    if (request.settled) return { request, finished };
    try {
      for (const sequence of request.sequences) this.#scheduler.add(sequence);
      this.#loop ??= this.#steps();
    } catch (error) {
      request.fail(error);
    }
    return { request, finished };
  }

  /** Steps until nothing is left. The event loop turns once a step at least, so that calls, aborts and streams are served. */
  async #steps(): Promise<void> {
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
    }
  }

  /**
   * Deals with the oldest step under way. What can follow those under way is launched before anybody is told of this one's tokens: the device
   * does not wait for parsers, streams and sockets.
   */
  async #turn(): Promise<void> {
    this.#launchAhead();
    const { batch, launched, results } = this.#underWay[0] as StepUnderWay;
    try {
      const there = await results;
      this.#timed(batch, await launched);
      this.#scheduler.take(batch, there);
      this.#underWay.shift();
      this.#counters.steps += 1;
      const { overMs } = await launched;
      this.#launchAhead(overMs);
      if (this.#underWay.length > 0) await eventLoopTurn();
      this.#stepOverMs = overMs;
      this.#scheduler.report(batch, there);
    } catch (error) {
      this.#underWay = this.#underWay.filter((step) => step.batch !== batch);
      this.#failBatch(batch, error);
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
  #failBatch(batch: Batch, error: unknown): void {
    this.#scheduler.abandon(batch);
    const failed = asLongcatError(error);
    for (const { sequence } of [...batch.admitted, ...batch.entries, ...batch.evicted])
      if (sequence.state === "ended") sequence.fail(failed);
  }

  /** The scheduler itself failed: no call can go on, and the next one starts from the beginning. */
  #failAll(error: unknown): void {
    this.#scheduler.reset();
    const failed = asLongcatError(error);
    for (const request of [...this.#active]) request.fail(failed);
  }
}

/** How the number of drafts is chosen, as the options say and as far as the runner makes any. */
function draftPolicy({ runner, info: { speculative } }: EngineParts): DraftPolicy {
  const { maxDrafts } = runner.limits;
  if (typeof speculative === "object") return new DraftPolicy(Math.min(speculative.drafts, maxDrafts), false);
  return new DraftPolicy(speculative === "auto" ? Math.min(MOST_AUTO_DRAFTS, maxDrafts) : 0, true);
}

function eventLoopTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** The function that gets the pieces of an answer; absent: one that does nothing with them. */
function checkListener(onChunk: unknown): OnChunk {
  if (absent(onChunk)) return () => undefined;
  if (typeof onChunk !== "function") throw invalid("onChunk", onChunk, "a function");
  return onChunk as OnChunk;
}

function checkScoreOptions(options: unknown): { parseSpecial: boolean; signal: AbortSignal | undefined } {
  const input = record(options, "options");
  rejectUnknown(input, ["parseSpecial", "signal"], "option");
  return {
    parseSpecial: absent(input["parseSpecial"]) ? false : boolean(input["parseSpecial"], "parseSpecial"),
    signal: absent(input["signal"]) ? undefined : abortSignal(input["signal"], "signal"),
  };
}

/** The error of one prompt of an array, with its position. */
function atPosition(error: unknown, index: number): unknown {
  if (!(error instanceof LongcatError)) return error;
  return new LongcatError(error.code, `prompts[${index}]: ${error.message}`, { cause: error });
}
