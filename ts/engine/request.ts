/**
 * A call in flight: its sequences, what they have produced, and the one way it ends.
 * @module
 */

import { LongcatError } from "../errors.js";
import type { RunnerLimits, SlotSampling, StepResult, StepSequence } from "../model/runner-types.js";
import { choiceSeed, DEFAULT_PARAMETERS, type RunParameters } from "../sampling/parameters.js";
import { onAbort } from "./abort.js";
import { averageRouting, ChoiceOutput, finiteLogprob } from "./choice.js";
import type { Generation } from "./core.js";
import type { AnswerReader } from "./prompt.js";
import { Sequence } from "./sequence.js";
import type { Chunk, GenerateResult, ScoreResult, Usage } from "./types.js";

/** What a request needs of the engine. */
export interface RequestHost {
  limits: RunnerLimits;
  /** Model's end tokens. */
  endTokens: ReadonlySet<number>;
  tokenBytes(id: number): Uint8Array | readonly number[];
  /** When the device was done with the step that is being told of, as `performance.now` has it. */
  stepOverMs(): number;
  /** Takes sequences out of the scheduler. */
  release(sequences: readonly Sequence[]): void;
}

/** The common part: sequences that end together, by success, failure or abort. */
abstract class Request<Result> {
  abstract readonly sequences: readonly Sequence[];
  /** Settles once; rejects with a LongcatError, or with what the caller's own listener threw. */
  readonly done: Promise<void>;
  protected readonly host: RequestHost;
  readonly #signal: AbortSignal | undefined;
  readonly #onAbort = (): void => this.abort("the call was aborted", this.#signal?.reason);
  readonly #stopListening: () => void;
  #resolve!: () => void;
  #reject!: (error: unknown) => void;
  #settled = false;

  constructor(host: RequestHost, signal: AbortSignal | undefined) {
    this.host = host;
    this.#signal = signal;
    this.done = new Promise<void>((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.done.catch(() => undefined); // whoever waits sees the error; nobody has to
    this.#stopListening = onAbort(signal, this.#onAbort);
  }

  get settled(): boolean {
    return this.#settled;
  }

  /** The result, or what there is of it. */
  abstract result(): Result;
  protected abstract markAborted(): void;

  /** Ends the call now; `done` rejects with `ABORTED` and the partial result. Nothing happens if it has ended. */
  abort(message: string, cause?: unknown): void {
    if (this.#settled) return;
    this.#settle();
    try {
      this.markAborted();
    } catch (error) {
      cause ??= error;
    }
    this.#reject(new LongcatError("ABORTED", message, { cause, partial: this.result() }));
  }

  /** Aborts if the signal has fired already; to be called once the sequences are queued. */
  abortIfSignalled(): void {
    if (this.#signal?.aborted) this.#onAbort();
  }

  fail(error: unknown): void {
    this.rejectWith(asLongcatError(error));
  }

  /** Ends the call now with this error as it is. */
  protected rejectWith(error: unknown): void {
    if (this.#settled) return;
    this.#settle();
    this.#reject(error);
  }

  protected finish(): void {
    if (this.#settled) return;
    this.#settle();
    this.#resolve();
  }

  #settle(): void {
    this.#settled = true;
    this.#stopListening();
    this.host.release(this.sequences);
  }
}

/** A generation of n choices. */
export class GenerateRequest extends Request<GenerateResult> {
  readonly sequences: readonly Sequence[];
  readonly #outputs: ChoiceOutput[];
  readonly #emit: (chunk: Chunk) => void;
  readonly #numPromptTokens: number;

  constructor(host: RequestHost, { prompt, parameters, startedMs, onChunk }: Generation, reader: AnswerReader) {
    super(host, parameters.signal);
    this.#emit = onChunk;
    this.#numPromptTokens = prompt.ids.length;
    const maxNewTokens = Math.min(parameters.maxTokens, host.limits.contextLength - prompt.ids.length);
    const endTokens: ReadonlySet<number> = parameters.ignoreEos ? new Set() : host.endTokens;
    const ends = new Set([...endTokens, ...parameters.stopTokens]);
    const indices = Array.from({ length: parameters.n }, (_, index) => index);
    const guides = indices.map(() => reader.newGuide?.(ends));
    this.#outputs = indices.map(
      (index) =>
        new ChoiceOutput({
          index,
          promptTokens: prompt.ids.length,
          maxNewTokens,
          endTokens,
          stopTokens: parameters.stopTokens,
          logprobs: parameters.logprobs,
          parser: reader.newParser(parameters.stop),
          ...(guides[index] && { guide: guides[index] }),
          tokenBytes: (id) => host.tokenBytes(id),
          stepOverMs: () => host.stepOverMs() - startedMs,
          elapsedMs: () => performance.now() - startedMs,
        }),
    );
    const seed = parameters.seed ?? randomSeed();
    const siblings: Sequence[] = [];
    const sequences = indices.map(
      (index) =>
        new Sequence({
          prompt: prompt.ids,
          maxNewTokens,
          sampling: slotSampling(parameters, choiceSeed(seed, index), prompt.ids),
          endTokens: ends,
          ...(guides[index] && { guide: guides[index] }),
          ...(parameters.n > 1 && { siblings }),
          onPrompt: (step) => this.#onPrompt(index, step),
          onToken: (drawn, ffnExperts) => this.#hand(index, this.#output(index).push(drawn, ffnExperts)),
          onError: (error) => this.fail(error),
        }),
    );
    siblings.push(...sequences);
    this.sequences = sequences;
  }

  result(): GenerateResult {
    const { cachedTokens } = this.#usage();
    const choices = this.#outputs.map((output, i) => {
      const { routing, drafts } = this.sequences[i] as Sequence;
      return output.result({ routing, cachedTokens, drafts }, this.host.limits);
    });
    const first = choices[0] as GenerateResult;
    return choices.length === 1 ? first : { ...first, usage: this.#usage(), choices };
  }

  protected markAborted(): void {
    for (const output of this.#outputs) output.end("abort");
  }

  /** The end of a prompt that nothing is generated after. */
  #onPrompt(index: number, step: StepSequence): boolean {
    const end = step.position + (step.tokens?.length ?? 0);
    return this.#hand(index, end === this.#numPromptTokens ? this.#output(index).end("length") : []);
  }

  /** Hands a choice's chunks to the caller's listener; true if the choice has ended, or the call: with an error that the listener threw. */
  #hand(index: number, chunks: readonly Chunk[]): boolean {
    const allDone = this.#outputs.every(({ finished }) => finished);
    const last = chunks.at(-1);
    if (allDone && last !== undefined) last.usage = this.#usage();
    try {
      for (const chunk of chunks) this.#emit(chunk);
    } catch (error) {
      this.rejectWith(error);
      return true;
    }
    if (allDone) this.finish();
    return this.#output(index).finished;
  }

  #output(index: number): ChoiceOutput {
    return this.#outputs[index] as ChoiceOutput;
  }

  #usage(): Usage {
    const completionTokens = this.#outputs.reduce((sum, { numTokens }) => sum + numTokens, 0);
    return { promptTokens: this.#numPromptTokens, cachedTokens: (this.sequences[0] as Sequence).cachedTokens, completionTokens };
  }
}

/** A scoring of one text. */
export class ScoreRequest extends Request<ScoreResult> {
  readonly sequences: readonly Sequence[];
  readonly #prompt: readonly number[];
  readonly #logprobs: (number | null)[] = [null];

  constructor(host: RequestHost, prompt: readonly number[], signal: AbortSignal | undefined) {
    super(host, signal);
    this.#prompt = prompt;
    const sequence = new Sequence({
      prompt,
      maxNewTokens: 0,
      sampling: slotSampling({ ...DEFAULT_PARAMETERS, temperature: 0 }, 0, prompt),
      score: true,
      onPrompt: (step, result) => this.#onPrompt(step, result),
      onToken: () => false,
      onError: (error) => this.fail(error),
    });
    this.sequences = [sequence];
  }

  result(): ScoreResult {
    const tokens = this.#prompt.slice(0, this.#logprobs.length);
    return { tokens, logprobs: this.#logprobs, routing: averageRouting((this.sequences[0] as Sequence).routing, this.host.limits) };
  }

  protected markAborted(): void {}

  #onPrompt(step: StepSequence, result: StepResult): boolean {
    const targets = step.scoreTargets ?? [];
    if (result.scores?.length !== targets.length) throw new LongcatError("INTERNAL", "a scoring step gave no scores");
    targets.forEach((target, i) => {
      if (target >= 0) this.#logprobs.push(finiteLogprob(result.scores?.[i] as number));
    });
    const ended = step.position + targets.length === this.#prompt.length;
    if (ended) this.finish();
    return ended;
  }
}

/** 53 random bits. */
function randomSeed(): number {
  const [high, low] = crypto.getRandomValues(new Uint32Array(2)) as unknown as [number, number];
  return (high & 0x1fffff) * 2 ** 32 + low;
}

export function asLongcatError(error: unknown): LongcatError {
  if (error instanceof LongcatError) return error;
  return new LongcatError("INTERNAL", `a step failed: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
}

function slotSampling(parameters: RunParameters, seed: number, promptTokens: readonly number[]): SlotSampling {
  const { temperature, topP, topK, minP, repetitionPenalty, presencePenalty, frequencyPenalty, logprobs, logitBias } = parameters;
  return { temperature, topP, topK, minP, repetitionPenalty, presencePenalty, frequencyPenalty, logprobs, logitBias, seed, promptTokens };
}
