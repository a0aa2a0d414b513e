/**
 * What chat and completions share: admission, the run of one or more prompts, and figures about it.
 * @module
 */

import type { Choice, Chunk, EngineInfo, Usage } from "../index.js";
import type { Call, ServedEngine } from "./call.js";
import type { GenerationRequest } from "./fields.js";
import { addUsage, arrayPieces, NO_USAGE, routingPieces } from "./wire.js";

/** Counts of FFN experts of a choice, `[token][layer]`. */
export type ExpertCounts = number[][];

/** What of a choice is sent beyond OpenAI's fields. */
export interface Extras {
  routing: boolean;
  tokenIds: boolean;
  /** Experts that a token picks. */
  topK: number;
}

/** What a request asked for; without a tokenizer ids are all that an answer has. */
export function extrasOf({ routing, tokenIds }: GenerationRequest, { topK, hasTokenizer }: EngineInfo): Extras {
  return { routing, tokenIds: tokenIds || !hasTokenizer, topK };
}

/** What an answer says of a finished choice, with the counts if they were asked for. */
export interface FinishedChoice extends Pick<Choice, "text" | "tokens" | "finishReason" | "reasoning" | "toolCalls" | "logprobs"> {
  ffnExperts?: ExpertCounts;
}

export interface Finished {
  /** Prompt by prompt, each with its n choices. */
  choices: FinishedChoice[];
  usage: Usage;
}

/** The extras of a whole choice, as further members of its object. */
export function* extraPieces({ tokens, ffnExperts }: FinishedChoice, { tokenIds, topK }: Extras): Generator<string> {
  if (tokenIds) {
    yield ',"token_ids":';
    yield* arrayPieces(tokens, (token) => token);
  }
  if (ffnExperts !== undefined) {
    yield ',"routing":';
    yield* routingPieces(ffnExperts, topK);
  }
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

/** Runs the prompts of a request to their ends, together. `onChunk` gets the pieces, `index` counted over all choices. */
export async function finish(
  call: Call,
  { engine }: ServedEngine,
  { prompts, params, numChoices, routing }: GenerationRequest,
  onChunk?: (chunk: Chunk) => void,
): Promise<Finished> {
  const times = new TokenTimes(call, numChoices === 1);
  // Chunks alone carry the counts of each token.
  const counts = routing ? Array.from({ length: numChoices }, (): ExpertCounts => []) : [];
  const take = (chunk: Chunk): void => {
    times.see(chunk);
    if (routing) counts[chunk.index]?.push(...(chunk.routing?.ffnExperts ?? []));
    onChunk?.(chunk);
  };
  const all = { ...params, signal: call.signal };
  const [first] = prompts;
  const results =
    prompts.length === 1 && first !== undefined ? [await engine.generate(first, all, take)] : await engine.generate(prompts, all, take);
  const choices = results
    .flatMap((result): FinishedChoice[] => result.choices ?? [result])
    .map((choice, i) => ({ ...choice, ...(routing && { ffnExperts: counts[i] ?? [] }) }));
  const usage = results.reduce((sum, result) => addUsage(sum, result.usage), NO_USAGE);
  for (const { finishReason } of choices) call.metrics.finished(finishReason);
  call.metrics.answered(usage.promptTokens, secondsSince(call.startedMs));
  return { choices, usage };
}

/** Tells the times of a request's tokens: of the first, and in answers of one choice between those after it. */
class TokenTimes {
  readonly #call: Call;
  readonly #alone: boolean;
  #lastMs: number | undefined;

  constructor(call: Call, alone: boolean) {
    this.#call = call;
    this.#alone = alone;
  }

  see({ tokens }: Chunk): void {
    const { metrics, startedMs } = this.#call;
    const nowMs = performance.now();
    if (this.#lastMs === undefined) metrics.firstToken((nowMs - startedMs) / 1000);
    else if (this.#alone && tokens.length > 0) metrics.betweenTokens((nowMs - this.#lastMs) / 1000);
    this.#lastMs = nowMs;
  }
}

function secondsSince(startedMs: number): number {
  return (performance.now() - startedMs) / 1000;
}
