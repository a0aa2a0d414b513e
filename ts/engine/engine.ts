/**
 * The engine: a loaded checkpoint that answers calls. Many calls at once share its steps; each gives the same answer as it would alone.
 * @module
 */

import { absent, abortSignal, boolean, invalid, record, rejectUnknown } from "../checks.js";
import { LongcatError } from "../errors.js";
import {
  type GenerateParams,
  type Parameters,
  resolveParameters,
  type RunParameters,
  type SamplingDefaults,
  type VocabularyFacts,
} from "../sampling/parameters.js";
import { ChunkQueue } from "./chunk-queue.js";
import type { CoreCall, EngineCore } from "./core.js";
import { eventLoopTurn } from "./event-loop.js";
import { checkDirectory, loadParts } from "./load.js";
import { follows, loadGroup } from "./load-group.js";
import { type EngineOptions, resolveOptions } from "./options.js";
import {
  checkIds,
  type EncodedPrompt,
  encodePrompt,
  type PromptLimits,
  type PromptParameters,
  type TextTools,
  vocabularyFacts,
} from "./prompt.js";
import { StepLoop, type StepLoopParts } from "./step-loop.js";
import type { ChatPrompt, Chunk, EngineInfo, EngineStats, GenerateResult, Prompt, ScoreResult, TokenPrompt } from "./types.js";

/** What an engine has, whatever answers its calls. */
interface FrontParts {
  /** Absent: the checkpoint has no tokenizer. */
  text?: TextTools;
  info: EngineInfo;
  /** The model's context; that of the core may be shorter. */
  modelContext: number;
  /** Sampling values of generation_config.json. */
  defaults: SamplingDefaults;
  /** Called when nothing runs any more. */
  close(): Promise<void>;
}

/** What an engine in this process is made of; `load` makes it from a checkpoint folder. */
export interface EngineParts extends FrontParts, StepLoopParts {}

/** What an engine is made of whose calls something else answers. */
export interface EngineOverCore extends FrontParts {
  core: EngineCore;
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
  readonly #parts: FrontParts;
  readonly #core: EngineCore;
  readonly #vocabulary: VocabularyFacts;
  readonly #limits: PromptLimits;
  readonly #ended: Promise<void>;
  #resolveEnded!: () => void;
  #closing: Promise<void> | undefined;

  private constructor(parts: FrontParts, core: EngineCore) {
    this.#parts = parts;
    this.#core = core;
    this.#ended = new Promise((resolve, reject) => {
      this.#resolveEnded = resolve;
      core.ended?.then((error) => (error === undefined ? resolve() : reject(error)));
    });
    this.#ended.catch(() => undefined); // nobody has to listen
    const { vocabulary, contextLength } = core.limits;
    this.#vocabulary = vocabularyFacts(vocabulary, parts.text);
    this.#limits = { vocabulary, contextLength, modelContext: parts.modelContext };
  }

  /**
   * Loads a checkpoint.
   *
   * @param directory A folder with config.json and safetensors; absent: the bundled mini checkpoint.
   * @param options See {@link EngineOptions}.
   * @throws LongcatError `OPTION_INVALID`, `CONFIG_INVALID`, `CHECKPOINT_INVALID`, `CHECKPOINT_UNSUPPORTED`, `TOKENIZER_INVALID`,
   * `OUT_OF_MEMORY`, `DEVICE_UNAVAILABLE`, `NATIVE_MISSING`; `COMM_ERROR` if a rank did not come or was lost; `ABORTED` if `options.signal` fired.
   */
  static async load(directory?: string | null, options?: EngineOptions | null): Promise<Engine> {
    const [dir, resolved] = [checkDirectory(directory), resolveOptions(options)];
    const parts = resolved.parallel.expert > 1 ? await loadGroup(dir, resolved) : await loadParts(dir, resolved);
    try {
      return Engine.fromParts(parts);
    } catch (error) {
      await parts.close();
      throw error;
    }
  }

  /**
   * Whether `load` with these options would make an engine that answers no calls: where a launcher (torchrun, srun, mpirun, LeaderWorkerSet) has started
   * several processes of a program, those beside that of rank 0 only bring ranks of theirs in; all that is left to do there is to await {@link ended}.
   *
   * @throws LongcatError `OPTION_INVALID`
   *
   * @example
   * const engine = await Engine.load(dir, options);
   * if (Engine.wouldFollow(options)) await engine.ended;
   * else console.log(await engine.generate("Once upon a time"));
   */
  static wouldFollow(options?: EngineOptions | null): boolean {
    return follows(resolveOptions(options));
  }

  /**
   * An engine over parts that are there already, a runner of one's own for instance. The engine closes them.
   * @internal
   */
  static fromParts(parts: EngineParts | EngineOverCore): Engine {
    return new Engine(parts, "core" in parts ? parts.core : new StepLoop(parts));
  }

  /** What is loaded, and which options are in force. */
  get info(): EngineInfo {
    return structuredClone(this.#parts.info);
  }

  /** What is going on now. */
  get stats(): EngineStats {
    return this.#core.stats;
  }

  /**
   * Generates an answer; for an array of prompts an array of answers, run together.
   *
   * @param prompt Text, a chat or token ids; all of an array are checked before any runs.
   * @param params See {@link GenerateParams}.
   * @param onChunk Called with each piece of the answer when its step is over: what `stream` gives, without a loop. Of an array, `index` counts
   * all choices, prompt by prompt. The steps of all calls wait while it runs, but for those of several ranks. What it throws ends this call, which rejects with it; others go
   * on.
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
    return (await this.#submit(prompt as Prompt, params, listener)).done;
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
    const call = await this.#submit(prompt, params, (chunk) => queue.push(chunk));
    call.done.then(
      () => queue.end(),
      (error) => queue.end(error),
    );
    try {
      for (let chunk = await queue.next(); chunk !== undefined; chunk = await queue.next()) yield chunk;
    } finally {
      call.abort("the stream was left");
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
    const { ids } = await this.#encode(asPrompt, { parseSpecial });
    return this.#core.score({ ids, signal }).done;
  }

  /**
   * The token ids of a prompt, as `generate` would run it.
   *
   * @throws LongcatError `PROMPT_INVALID`, `OPTION_INVALID`, `CONTEXT_OVERFLOW`, `OUT_OF_MEMORY`, `DISPOSED`.
   */
  async tokenize(prompt: Prompt, options?: { parseSpecial?: boolean | null } | null): Promise<number[]> {
    this.#assertOpen();
    const { parseSpecial } = checkScoreOptions(options);
    return [...(await encodePrompt(prompt, { parseSpecial }, this.#limits, this.#parts.text)).ids];
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

  /**
   * Generates an answer to a prompt that another engine over the same checkpoint has checked, with parameters that it has resolved.
   * @internal
   */
  async generateEncoded(prompt: EncodedPrompt, parameters: RunParameters, onChunk: OnChunk): Promise<GenerateResult> {
    const startedMs = performance.now();
    this.#assertOpen();
    const start = await this.#core.prepare({ prompt, parameters, startedMs, onChunk });
    return start().done;
  }

  /** Whether it was closed: every call is then `DISPOSED`. */
  get closed(): boolean {
    return this.#closing !== undefined;
  }

  /** Why no call is answered any more: with several ranks, `COMM_ERROR` once one of them is lost. Undefined while calls are answered. */
  get failure(): LongcatError | undefined {
    return this.#core.failure;
  }

  /**
   * Resolves when the engine is closed; in a process that a launcher started beside that of rank 0 also when the engine there is. Rejects with
   * `COMM_ERROR` when a rank is lost.
   */
  get ended(): Promise<void> {
    return this.#ended;
  }

  /** Aborts what runs, waits for the step in flight, frees model and device; of several ranks ends all. Calling it again gives the same promise. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(): Promise<void> {
    try {
      await this.#core.close();
      await this.#parts.close();
    } finally {
      this.#resolveEnded();
    }
  }

  /** Throws unless calls are answered. */
  #assertOpen(): void {
    if (this.closed) throw new LongcatError("DISPOSED", "the engine is closed; load a new one");
    const { failure } = this;
    if (failure !== undefined) throw new LongcatError(failure.code, failure.message, { cause: failure });
  }

  #parameters(params: GenerateParams | null | undefined): Parameters {
    this.#assertOpen();
    return resolveParameters(params, this.#vocabulary, this.#parts.defaults);
  }

  /** Encodes a prompt. Closing the engine aborts this as it does all that runs. */
  async #encode(prompt: Prompt, parameters: PromptParameters): Promise<EncodedPrompt> {
    try {
      return await encodePrompt(prompt, parameters, this.#limits, this.#parts.text);
    } catch (error) {
      if (!(error instanceof LongcatError) || error.code !== "DISPOSED") throw error;
      throw new LongcatError("ABORTED", "the engine was closed", { cause: error });
    }
  }

  async #submit(prompt: Prompt, params: GenerateParams | null | undefined, onChunk: OnChunk): Promise<CoreCall<GenerateResult>> {
    const startedMs = performance.now();
    const parameters = this.#parameters(params);
    const start = await this.#prepare(prompt, parameters, startedMs, onChunk);
    return start();
  }

  /** Encodes a prompt and makes its run ready. */
  async #prepare(prompt: Prompt, parameters: Parameters, startedMs: number, onChunk: OnChunk): Promise<() => CoreCall<GenerateResult>> {
    const encoded = await this.#encode(prompt, parameters);
    const { responseFormat: _, toolChoice: __, parseSpecial: ___, ...rest } = parameters; // the encoded prompt has these in it
    return this.#core.prepare({ prompt: encoded, parameters: rest, startedMs, onChunk });
  }

  async #generateAll(prompts: readonly Prompt[], params: GenerateParams | null | undefined, onChunk: OnChunk): Promise<GenerateResult[]> {
    const startedMs = performance.now();
    const parameters = this.#parameters(params);
    const starts: (() => CoreCall<GenerateResult>)[] = [];
    let turnedMs = startedMs;
    for (const [i, prompt] of prompts.entries()) {
      if (performance.now() - turnedMs > LONGEST_TURN_MS) {
        await eventLoopTurn();
        turnedMs = performance.now();
      }
      const counted: OnChunk = (chunk) => {
        chunk.index += i * parameters.n;
        onChunk(chunk);
      };
      try {
        starts.push(await this.#prepare(prompt, parameters, startedMs, counted));
      } catch (error) {
        throw atPosition(error, i);
      }
    }
    const calls: CoreCall<GenerateResult>[] = [];
    try {
      for (const start of starts) calls.push(start());
      return await Promise.all(calls.map(({ done }) => done));
    } catch (error) {
      for (const call of calls) call.abort("another prompt of the array failed");
      if (!(error instanceof LongcatError) || error.code !== "ABORTED") throw error;
      throw new LongcatError("ABORTED", error.message, { cause: error.cause, partial: await resultsSoFar(calls) });
    }
  }
}

/** The results of calls that have ended, one way or the other. Throws what ended one of them if that left no result. */
async function resultsSoFar(calls: readonly CoreCall<GenerateResult>[]): Promise<GenerateResult[]> {
  const settled = await Promise.allSettled(calls.map(({ done }) => done));
  return settled.map((one) => {
    if (one.status === "fulfilled") return one.value;
    if (one.reason instanceof LongcatError && one.reason.code === "ABORTED") return one.reason.partial as GenerateResult;
    throw one.reason;
  });
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
