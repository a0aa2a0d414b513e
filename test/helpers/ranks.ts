/**
 * Ranks of one model in one process, each a runner on a device of its own. They meet in memory: a round is decided when everybody who works wants
 * one, and the others join it.
 */
import type { ModelParallel } from "../../ts/model/exchange.js";
import { agreeOn, type Forward, type Round } from "../../ts/model/lockstep.js";
import { type OpenedModel, type OpenModelOptions, openModel } from "../../ts/model/open.js";
import type { Runner } from "../../ts/model/runner.js";
import { TEST_MODEL_OPTIONS } from "./models.js";

/** What a rank does; ranks without work only join. */
export type Work<T> = ((runner: Runner, rank: number) => Promise<T>) | null;

/** One for all ranks, or each rank's. */
type PerRank<T> = T | ((rank: number) => T);

type RankOptions = Partial<OpenModelOptions> & Pick<ModelParallel, "dispatchDType">;

/** A model that is open. */
type RankModel = Pick<OpenedModel, "runner" | "sizes" | "close">;

export class Ranks {
  readonly runners: Runner[] = [];
  readonly models: RankModel[] = [];
  /** Rounds are not put off until everybody who works wants one: who is busy joins. */
  hasty = false;
  /** The rounds that there were, each with the ranks that had rows in it. */
  readonly rounds: (Round & { who: number[] })[] = [];
  readonly #gathered = new Map<string, { bytes: Uint8Array[]; waiting: ((all: Uint8Array[]) => void)[] }>();
  readonly #working = new Set<number>();
  readonly #wants = new Map<number, { want: Forward; decided: (round: Round) => void }>();
  #joined: Promise<void>[] = [];

  /** Opens a checkpoint on so many ranks: the same one with the same options on all, or each rank's. */
  static open(dir: PerRank<string>, count: number, options: PerRank<RankOptions> = {}): Promise<Ranks> {
    return Ranks.openWith(count, (parallel) => {
      const { dispatchDType, ...rest } = ofRank(options, parallel.rank);
      return openModel(ofRank(dir, parallel.rank), {
        ...{ ...TEST_MODEL_OPTIONS, threads: 1, ...rest, parallel: { ...parallel, dispatchDType } },
      });
    });
  }

  /** Opens whatever `open` does for each rank. */
  static async openWith(count: number, open: (parallel: ModelParallel) => Promise<RankModel>): Promise<Ranks> {
    const ranks = new Ranks();
    const opening = Array.from({ length: count }, (_, rank) =>
      open({
        ...{ rank, ranks: count, gather: (name, bytes) => ranks.#gather(count, rank, name, bytes) },
        lockstep: { agree: (want) => ranks.#agree(rank, want) },
      }),
    );
    const opened = await Promise.allSettled(opening);
    for (const one of opened) if (one.status === "fulfilled") ranks.models.push(one.value);
    const failed = opened.find((one) => one.status === "rejected");
    if (failed) {
      await ranks.close();
      throw failed.reason;
    }
    ranks.runners.push(...ranks.models.map(({ runner }) => runner));
    return ranks;
  }

  /** Runs the works beside one another; what each gave, by rank. */
  async run<T>(works: readonly Work<T>[]): Promise<(T | undefined)[]> {
    for (const [rank, work] of works.entries()) if (work) this.#working.add(rank);
    const results = await Promise.all(
      works.map(async (work, rank) => {
        try {
          return await work?.(this.runners[rank]!, rank);
        } finally {
          this.#working.delete(rank);
          this.#decide();
        }
      }),
    );
    await Promise.all(this.#joined.splice(0));
    return results;
  }

  /** The same of one rank, beside which the others have nothing to do. */
  async alone<T>(rank: number, work: (runner: Runner) => Promise<T>): Promise<T> {
    const results = await this.run(this.runners.map((_, other) => (other === rank ? work : null)));
    return results[rank] as T;
  }

  async close(): Promise<void> {
    await Promise.all(this.models.splice(0).map((model) => model.close()));
  }

  #gather(count: number, rank: number, name: string, own: Uint8Array): Promise<Uint8Array[]> {
    const { bytes, waiting } = this.#gathered.get(name) ?? { bytes: [], waiting: [] };
    this.#gathered.set(name, { bytes, waiting });
    bytes[rank] = own;
    return new Promise((resolve) => {
      waiting.push(resolve);
      if (waiting.length === count) for (const each of waiting) each(bytes);
    });
  }

  #agree(rank: number, want: Forward): Promise<Round> {
    return new Promise((decided) => {
      this.#wants.set(rank, { want, decided });
      this.#decide();
    });
  }

  #decide(): void {
    const isAwaited = (rank: number): boolean => !this.hasty && !this.#wants.has(rank);
    if (this.#wants.size === 0 || [...this.#working].some(isAwaited)) return;
    const wants = new Map(this.#wants);
    this.#wants.clear();
    const round: Round = { ...agreeOn([...wants.values()].map(({ want }) => want)), round: this.rounds.length };
    this.rounds.push({ ...round, who: [...wants.keys()].sort() });
    for (const [rank, runner] of this.runners.entries()) {
      const decided = wants.get(rank)?.decided;
      if (decided) decided(round);
      else {
        const joined = runner.join(round);
        joined.catch(() => undefined); // told where all are awaited
        this.#joined.push(joined);
      }
    }
  }
}

function ofRank<T>(one: PerRank<T>, rank: number): T {
  return typeof one === "function" ? (one as (rank: number) => T)(rank) : one;
}
