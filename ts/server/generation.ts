/**
 * What chat and completions share: admission, the run of one or more prompts as a stream of chunks or as results, and figures about it.
 * @module
 */

import type { Choice, Chunk, GenerateResult, Prompt, Usage } from "../index.js";
import { LongcatError } from "../index.js";
import type { Call, ServedEngine } from "./call.js";
import type { GenerationRequest } from "./fields.js";
import { addUsage, NO_USAGE } from "./wire.js";

/** Counts of FFN experts of a choice, `[token][layer]`. */
export type ExpertCounts = number[][];

/** What an answer says of a finished choice, with the counts if they were asked for. */
export interface FinishedChoice extends Pick<Choice, "text" | "finishReason" | "reasoning" | "toolCalls" | "logprobs"> {
  ffnExperts?: ExpertCounts;
}

export interface Finished {
  /** Prompt by prompt, each with its n choices. */
  choices: FinishedChoice[];
  usage: Usage;
}

/** Runs `work` within the queue's bounds. */
export async function admitted<T>(call: Call, { admission }: ServedEngine, numChoices: number, work: () => Promise<T>): Promise<T> {
  const leave = admission.enter(numChoices);
  try {
    return await work();
  } catch (error) {
    if (call.signal.aborted) call.metrics.finished("abort");
    throw error;
  } finally {
    leave();
  }
}

/** Runs a request to its end. */
export async function finish(call: Call, served: ServedEngine, request: GenerationRequest): Promise<Finished> {
  const finished = request.routing ? await collect(call, served, request) : await generate(call, served, request);
  for (const { finishReason } of finished.choices) call.metrics.finished(finishReason);
  call.metrics.answered(finished.usage.promptTokens, secondsSince(call.startedMs));
  return finished;
}

async function generate(call: Call, { engine }: ServedEngine, { prompts, params }: GenerationRequest): Promise<Finished> {
  const withSignal = { ...params, signal: call.signal };
  const results: GenerateResult[] =
    prompts.length === 1 ? [await engine.generate(prompts[0] as Prompt, withSignal)] : await engine.generate(prompts, withSignal);
  for (const { timings } of results) call.metrics.firstToken(timings.ttftMs / 1000);
  return {
    choices: results.flatMap((result) => result.choices ?? [result]),
    usage: results.reduce((sum, { usage }) => addUsage(sum, usage), NO_USAGE),
  };
}

/** The same from chunks, which alone carry the counts of each token. */
async function collect(call: Call, served: ServedEngine, request: GenerationRequest): Promise<Finished> {
  const choices = Array.from({ length: request.numChoices }, () => new CollectedChoice());
  let usage = NO_USAGE;
  for await (const chunk of chunksOf(call, served, request)) {
    choices[chunk.index]?.add(chunk);
    if (chunk.usage !== undefined) usage = addUsage(usage, chunk.usage);
  }
  return { choices: choices.map(({ result }) => result), usage };
}

/** A choice put together from its chunks. */
class CollectedChoice {
  readonly result: FinishedChoice = { text: "", finishReason: "abort" };

  add({ text, reasoning, logprobs, routing, toolCalls, finishReason }: Chunk): void {
    const { result } = this;
    result.text += text;
    if (reasoning !== undefined) result.reasoning = (result.reasoning ?? "") + reasoning;
    if (logprobs !== undefined) (result.logprobs ??= []).push(...logprobs);
    (result.ffnExperts ??= []).push(...(routing?.ffnExperts ?? []));
    if (toolCalls !== undefined) result.toolCalls = toolCalls;
    if (finishReason !== undefined) result.finishReason = finishReason;
  }
}

/** The chunks of all prompts, `index` counted over all choices: prompt by prompt, each with its n. */
export async function* chunksOf(call: Call, served: ServedEngine, request: GenerationRequest): AsyncGenerator<Chunk, void, undefined> {
  const [first] = request.prompts;
  const chunks = request.prompts.length === 1 && first !== undefined ? stream(call, served, first, request) : merged(call, served, request);
  let lastMs: number | undefined;
  for await (const chunk of chunks) {
    const nowMs = performance.now();
    if (lastMs === undefined) call.metrics.firstToken((nowMs - call.startedMs) / 1000);
    else if (request.numChoices === 1 && chunk.tokens.length > 0) call.metrics.betweenTokens((nowMs - lastMs) / 1000);
    lastMs = nowMs;
    yield chunk;
  }
}

function stream(call: Call, { engine }: ServedEngine, prompt: Prompt, { params }: GenerationRequest): AsyncGenerator<Chunk> {
  return engine.stream(prompt, { ...params, signal: call.signal });
}

/** Several prompts at once. All are checked before any runs, so that a bad one is the answer and not a frame. */
async function* merged(call: Call, served: ServedEngine, request: GenerationRequest): AsyncGenerator<Chunk> {
  const prompts = await allTokens(served, request);
  const perPrompt = request.numChoices / prompts.length;
  const streams = prompts.map((prompt) =>
    stream(call, served, prompt, { ...request, params: { ...request.params, parseSpecial: undefined } }),
  );
  const next = (i: number) =>
    (streams[i] as AsyncGenerator<Chunk>).next().then(
      (step) => ({ i, step }),
      (error) => ({ i, error: error as unknown }),
    );
  const pending = new Map(streams.map((_, i) => [i, next(i)]));
  try {
    while (pending.size > 0) {
      const settled = await Promise.race(pending.values());
      if ("error" in settled) throw settled.error;
      const { i, step } = settled;
      pending.delete(i);
      if (step.done) continue;
      pending.set(i, next(i));
      yield { ...step.value, index: i * perPrompt + step.value.index };
    }
  } finally {
    // What still runs is aborted within a step. Nobody waits: a generator that is awaiting a token ends only after it.
    if (pending.size > 0) call.abort("another prompt of the request failed");
    for (const one of streams) void one.return(undefined).catch(() => undefined);
  }
}

async function allTokens({ engine }: ServedEngine, { prompts, params }: GenerationRequest): Promise<Prompt[]> {
  const all: Prompt[] = [];
  for (const [i, prompt] of prompts.entries()) {
    try {
      all.push({ tokens: await engine.tokenize(prompt, { parseSpecial: params.parseSpecial }) });
    } catch (error) {
      if (!(error instanceof LongcatError)) throw error;
      throw new LongcatError(error.code, `prompts[${i}]: ${error.message}`, { cause: error });
    }
  }
  return all;
}

/** Tells the figures of a streamed answer. */
export class StreamFigures {
  readonly #call: Call;
  usage: Usage = NO_USAGE;

  constructor(call: Call) {
    this.#call = call;
  }

  add(chunk: Chunk): void {
    if (chunk.usage !== undefined) this.usage = addUsage(this.usage, chunk.usage);
    if (chunk.finishReason !== undefined) this.#call.metrics.finished(chunk.finishReason);
  }

  end(): void {
    this.#call.metrics.answered(this.usage.promptTokens, secondsSince(this.#call.startedMs));
  }
}

function secondsSince(startedMs: number): number {
  return (performance.now() - startedMs) / 1000;
}
