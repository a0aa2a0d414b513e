/**
 * A group of ranks without processes: each an engine over a fake runner. What goes to a rank and what comes from it is copied, as between
 * processes, and takes a turn of the event loop.
 */
import { Engine } from "../../ts/engine/engine.js";
import type { EncodedPrompt } from "../../ts/engine/prompt.js";
import type { Chunk, EngineInfo, EngineStats, GenerateResult, ScoreResult, TokenPrompt } from "../../ts/engine/types.js";
import { LongcatError } from "../../ts/errors.js";
import type { RunnerLimits } from "../../ts/model/runner-types.js";
import { GroupCore } from "../../ts/parallel/group-core.js";
import type { RankFacts, RankGroup, RemoteCall } from "../../ts/parallel/group.js";
import type { PlainParameters } from "../../ts/sampling/parameters.js";
import { FakeRunner, hashNext, type NextToken } from "./fake-runner.js";
import { END_TOKEN, fakeText } from "./fake-text.js";

const turn = () => new Promise((resolve) => setImmediate(resolve));

export class FakeGroup implements RankGroup {
  readonly ranks: RankFacts[];
  readonly runners: FakeRunner[];
  readonly engines: Engine[];
  readonly lost: Promise<LongcatError>;
  /** Every call, by rank. */
  readonly calls: { rank: number; prompt: EncodedPrompt; parameters?: PlainParameters }[] = [];
  closed = false;
  /** Whether a rank answers at all. */
  silent = false;
  #lose!: (error: LongcatError) => void;
  readonly #rejects = new Set<(error: LongcatError) => void>();
  #loss: LongcatError | undefined;

  constructor(numRanks: number, limits: Partial<RunnerLimits>[] = [], next: NextToken = hashNext(47)) {
    this.runners = Array.from({ length: numRanks }, (_, rank) => new FakeRunner(limits[rank] ?? limits[0] ?? {}, next));
    const text = { endTokens: [END_TOKEN], vocabularySize: 50, hasTokenizer: true };
    const info = { ...text, directory: "fake", maxSequences: 8, topK: 3, prefixCache: "on", speculative: "off" } as unknown as EngineInfo;
    this.ranks = this.runners.map((runner, rank) => {
      const facts = { limits: runner.limits, modelContext: 64, defaults: { temperature: 0 } };
      return { rank, host: "here", pid: rank, info, ...facts };
    });
    this.engines = this.runners.map((runner, rank) => {
      const { modelContext, defaults } = this.ranks[rank] as RankFacts;
      return Engine.fromParts({ runner, text: fakeText, info, modelContext, defaults, close: () => runner.close() });
    });
    this.lost = new Promise((resolve) => {
      this.#lose = resolve;
    });
  }

  generate(rank: number, prompt: EncodedPrompt, parameters: PlainParameters, onChunk: (chunk: Chunk) => void): RemoteCall<GenerateResult> {
    this.calls.push({ rank, prompt, parameters });
    const [there, given] = [structuredClone(prompt), structuredClone(parameters)];
    return this.#remote((signal, listen) =>
      (this.engines[rank] as Engine).generateEncoded(there, { ...given, signal }, (chunk) => listen(() => onChunk(structuredClone(chunk)))),
    );
  }

  score(rank: number, prompt: readonly number[] | string | TokenPrompt): RemoteCall<ScoreResult> {
    const there = structuredClone(prompt) as number[];
    this.calls.push({ rank, prompt: { ids: there } });
    return this.#remote((signal) => (this.engines[rank] as Engine).score(there, { signal }));
  }

  stats(rank: number): EngineStats {
    return structuredClone((this.engines[rank] as Engine).stats);
  }

  /** A rank is lost. */
  lose(rank: number): void {
    this.#loss = new LongcatError("COMM_ERROR", `rank ${rank} is lost`);
    for (const reject of this.#rejects) reject(this.#loss);
    this.#lose(this.#loss);
  }

  async close(): Promise<void> {
    this.closed = true;
    for (const engine of this.engines) await engine.close();
  }

  #remote<T>(run: (signal: AbortSignal, listen: (tell: () => void) => void) => Promise<T>): RemoteCall<T> {
    const controller = new AbortController();
    let why: { message: string; cause: unknown } | undefined;
    const done = new Promise<T>((resolve, reject) => {
      this.#rejects.add(reject);
      if (this.#loss) return reject(this.#loss);
      const listen = (tell: () => void): void => {
        setImmediate(() => {
          try {
            tell();
          } catch (error) {
            reject(error);
            controller.abort();
          }
        });
      };
      const fail = (error: LongcatError): void => {
        const aborted = error.code === "ABORTED" && why;
        reject(
          aborted ? new LongcatError("ABORTED", aborted.message, { cause: aborted.cause, partial: structuredClone(error.partial) }) : error,
        );
      };
      turn()
        .then(() => (this.silent ? new Promise<T>(() => undefined) : run(controller.signal, listen)))
        .then(async (result) => {
          await turn();
          resolve(structuredClone(result));
        })
        .catch(async (error) => {
          await turn();
          fail(error);
        });
    });
    done.catch(() => undefined);
    return {
      done,
      abort: (message, cause) => {
        why ??= { message, cause };
        controller.abort();
      },
    };
  }
}

/** An engine over a fake group. */
export function groupEngine(group: FakeGroup): Engine {
  const { info, modelContext, defaults } = group.ranks[0] as RankFacts;
  return Engine.fromParts({ core: new GroupCore(group), text: fakeText, info, modelContext, defaults, close: () => group.close() });
}
