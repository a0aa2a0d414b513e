/**
 * An engine's calls, answered by a group of ranks: each goes to one rank, whose engine runs it.
 * @module
 */

import { onAbort } from "../engine/abort.js";
import type { CoreCall, EngineCore, Generation, Scoring } from "../engine/core.js";
import type { Chunk, EngineStats, GenerateResult, ScoreResult } from "../engine/types.js";
import { LongcatError } from "../errors.js";
import type { RankFacts, RankGroup, RemoteCall } from "./group.js";
import { type Placement, Router } from "./router.js";
import { atRest, totalStats } from "./total-stats.js";
import { within } from "./within.js";

const CLOSED = "the engine was closed";

/** How long `close` waits for the ranks to end calls that it has aborted. */
const LAST_WORDS_MS = 2000;

export class GroupCore implements EngineCore {
  readonly limits: EngineCore["limits"];
  /** When the group has ended: why, if a rank was lost. */
  readonly ended: Promise<LongcatError | undefined>;
  readonly #group: RankGroup;
  readonly #router: Router;
  readonly #calls = new Set<CoreCall<unknown>>();
  #failure: LongcatError | undefined;
  #closed = false;

  constructor(group: RankGroup) {
    const limits = group.ranks.map((rank) => rank.limits);
    const { info } = group.ranks[0] as RankFacts;
    this.#group = group;
    this.limits = { vocabulary: info.vocabularySize, contextLength: Math.min(...limits.map(({ contextLength }) => contextLength)) };
    this.#router = new Router(limits, info.prefixCache !== "off");
    this.ended = group.lost.then((error) => {
      this.#failure = error;
      return error;
    });
  }

  get stats(): EngineStats {
    const stats = this.#group.ranks.map(({ rank }) => this.#group.stats(rank));
    return totalStats(this.#failure === undefined ? stats : stats.map(atRest));
  }

  get failure(): LongcatError | undefined {
    return this.#failure;
  }

  /** Nothing takes its time here: the rank makes parser and guides. */
  async prepare(generation: Generation): Promise<() => CoreCall<GenerateResult>> {
    return () => this.#generate(generation);
  }

  #generate({ prompt, parameters: { signal, ...parameters }, startedMs, onChunk }: Generation): CoreCall<GenerateResult> {
    const place = this.#router.place({ prompt: prompt.ids, sequences: parameters.n, reuses: true });
    const times = new FirstTokens(startedMs);
    const take = (chunk: Chunk): void => {
      times.see(chunk);
      if (chunk.tokens.length > 0) place.generated(chunk.tokens.length);
      onChunk(chunk);
    };
    const send = () => this.#group.generate(place.rank, prompt, parameters, take);
    return this.#track(place, signal, send, (result) => times.writeTo(result));
  }

  score({ ids, signal }: Scoring): CoreCall<ScoreResult> {
    const place = this.#router.place({ prompt: ids, sequences: 1, reuses: false });
    return this.#track(
      place,
      signal,
      () => this.#group.score(place.rank, ids, {}),
      (result) => result,
    );
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const call of this.#calls) call.abort(CLOSED);
    await within(LAST_WORDS_MS, Promise.allSettled([...this.#calls].map(({ done }) => done)));
  }

  /** Sends a call and sees to its ends: the caller's signal, the engine's end, its place. */
  #track<Result>(
    place: Placement,
    signal: AbortSignal | undefined,
    send: () => RemoteCall<Result>,
    complete: (result: Result) => Result,
  ): CoreCall<Result> {
    let remote: RemoteCall<Result>;
    try {
      remote = send();
    } catch (error) {
      place.release();
      throw error;
    }
    const abortBySignal = (): void => remote.abort("the call was aborted", signal?.reason);
    const stopListening = onAbort(signal, abortBySignal);
    const done = remote.done.then(complete, (error: unknown) => {
      throw this.#endOf(error, complete);
    });
    const call: CoreCall<Result> = { done, abort: (message, cause) => remote.abort(message, cause) };
    this.#calls.add(call);
    const settle = (): void => {
      stopListening();
      place.release();
      this.#calls.delete(call);
    };
    done.then(settle, settle);
    if (this.#closed) call.abort(CLOSED);
    else if (signal?.aborted) abortBySignal();
    return call;
  }

  /** A failed call's error as its caller sees it. */
  #endOf<Result>(error: unknown, complete: (result: Result) => Result): unknown {
    if (!(error instanceof LongcatError)) return error;
    if (error.code === "ABORTED" && error.partial !== undefined) complete(error.partial as Result);
    // Of calls that the ranks had no time to end.
    return this.#closed && error.code !== "ABORTED" ? new LongcatError("ABORTED", CLOSED, { cause: error }) : error;
  }
}

/** When each choice's first token was here: a rank knows neither how long a call took to get there nor how long the token took back. */
class FirstTokens {
  readonly #startedMs: number;
  readonly #byChoice = new Map<number, number>();

  constructor(startedMs: number) {
    this.#startedMs = startedMs;
  }

  see({ index, tokens }: Chunk): void {
    if (tokens.length > 0 && !this.#byChoice.has(index)) this.#byChoice.set(index, this.#sinceStart());
  }

  /** Puts the times into a result, which is given back. */
  writeTo(result: GenerateResult): GenerateResult {
    for (const [index, { timings }] of (result.choices ?? [result]).entries())
      timings.ttftMs = this.#byChoice.get(index) ?? this.#sinceStart();
    if (result.choices !== undefined) result.timings.ttftMs = (result.choices[0] as GenerateResult).timings.ttftMs;
    return result;
  }

  #sinceStart(): number {
    return performance.now() - this.#startedMs;
  }
}
