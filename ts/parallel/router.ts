/**
 * Which rank answers a call. Ranks run their sequences on their own, so a call stays where it was sent; what can be known of each rank's load is
 * known where the calls come from.
 *
 * Of the ranks that can start a call at once, or of all where none can, it goes to the one where it costs least, in steps: those that its prompt
 * and the prompts in front of it take, without what the rank's prefix cache should have of it, and how full the rank is, as up to one step. So a rank
 * that has run a prompt's beginning is preferred by as much as that saves. Among ranks that are alike the one that has been given least comes
 * first, so that all caches are used.
 * @module
 */

import type { RunnerLimits } from "../model/runner-types.js";
import { CHAIN_START, chainDigest } from "../engine/prefix-cache.js";

/** What a rank has room for. */
export type RankCapacity = Pick<RunnerLimits, "maxSequences" | "maxBatchTokens" | "blockSize" | "numBlocks">;

/** A call to be placed. */
export interface Load {
  prompt: readonly number[];
  /** Sequences that share the prompt. */
  sequences: number;
  /** Whether it may begin with what the prefix cache has. */
  reuses: boolean;
}

/** A call's place. */
export interface Placement {
  readonly rank: number;
  /** Tokens were generated; the first of them say that the prompt has run. */
  generated(tokens: number): void;
  /** The call has ended; to be called once, last. */
  release(): void;
}

/** What a rank has to do, as far as is known here. */
class RankLoad {
  readonly rank: number;
  readonly #capacity: RankCapacity;
  /** Digests of blocks that its prefix cache should have, those looked for last behind the others. */
  readonly #cached = new Set<string>();
  sequences = 0;
  /** Tokens in the cache, or on their way there. */
  tokens = 0;
  /** Those of them that are of prompts which have not run yet. */
  waiting = 0;
  /** All that it was ever given. */
  given = 0;

  constructor(rank: number, capacity: RankCapacity) {
    this.rank = rank;
    this.#capacity = capacity;
  }

  /** Share of its places or of its cache that is taken, whichever is more. */
  get fullness(): number {
    const { maxSequences, blockSize, numBlocks } = this.#capacity;
    return Math.max(this.sequences / maxSequences, this.tokens / (numBlocks * blockSize));
  }

  /** Whether a call would find a place and cache for its prompt now. */
  hasRoom({ prompt, sequences }: Load): boolean {
    const { maxSequences, blockSize, numBlocks } = this.#capacity;
    return this.sequences + sequences <= maxSequences && this.tokens + prompt.length <= numBlocks * blockSize;
  }

  /** Steps until a prompt would have run of which so many tokens are cached. */
  stepsFor(promptTokens: number, cachedTokens: number): number {
    return (this.waiting + promptTokens - cachedTokens) / this.#capacity.maxBatchTokens;
  }

  /** How many of these blocks its prefix cache should have, from the first on. */
  numCached(digests: readonly string[]): number {
    const missing = digests.findIndex((digest) => !this.#cached.has(digest));
    return missing < 0 ? digests.length : missing;
  }

  /** These blocks will be in its prefix cache. The last of a text are forgotten first, as a beginning without its end is of use, and not the other way. */
  remember(digests: readonly string[]): void {
    for (const digest of digests.toReversed()) {
      this.#cached.delete(digest);
      this.#cached.add(digest);
    }
    for (const digest of this.#cached) {
      if (this.#cached.size <= this.#capacity.numBlocks) return;
      this.#cached.delete(digest);
    }
  }
}

export class Router {
  readonly #ranks: readonly RankLoad[];
  readonly #blockSize: number;
  readonly #caches: boolean;

  /** `caches`: whether the ranks have prefix caches. */
  constructor(capacities: readonly RankCapacity[], caches: boolean) {
    this.#ranks = capacities.map((capacity, rank) => new RankLoad(rank, capacity));
    this.#blockSize = (capacities[0] as RankCapacity).blockSize;
    this.#caches = caches;
  }

  /** Chooses the rank of a call, and counts it there until it is released. */
  place(load: Load): Placement {
    const { prompt, sequences, reuses } = load;
    const digests = this.#caches ? blockDigests(prompt, this.#blockSize) : [];
    // The last token of a prompt is always run.
    const reusable = reuses ? digests.slice(0, Math.floor((prompt.length - 1) / this.#blockSize)) : [];
    const roomy = this.#ranks.filter((rank) => rank.hasRoom(load));
    const costs = (roomy.length > 0 ? roomy : this.#ranks).map((rank) => {
      const cached = rank.numCached(reusable) * this.#blockSize;
      return { rank, cached, steps: rank.fullness + rank.stepsFor(prompt.length, cached) };
    });
    costs.sort((a, b) => a.steps - b.steps || a.rank.given - b.rank.given);
    const { rank, cached } = costs[0] as (typeof costs)[number];
    rank.remember(digests);
    return place(rank, { sequences, tokens: prompt.length, waiting: prompt.length - cached });
  }
}

/** Counts a call at a rank. */
function place(load: RankLoad, call: { sequences: number; tokens: number; waiting: number }): Placement {
  load.sequences += call.sequences;
  load.given += call.tokens;
  load.tokens += call.tokens;
  load.waiting += call.waiting;
  const promptHasRun = (): void => {
    load.waiting -= call.waiting;
    call.waiting = 0;
  };
  return {
    rank: load.rank,
    generated: (count) => {
      promptHasRun();
      call.tokens += count;
      load.tokens += count;
      load.given += count;
    },
    release: () => {
      promptHasRun();
      load.tokens -= call.tokens;
      load.sequences -= call.sequences;
    },
  };
}

/** The digests of a text's full blocks. */
function blockDigests(tokens: readonly number[], blockSize: number): string[] {
  const digests: string[] = [];
  let parent = CHAIN_START;
  for (let end = blockSize; end <= tokens.length; end += blockSize) {
    parent = chainDigest(parent, tokens.slice(end - blockSize, end));
    digests.push(parent);
  }
  return digests;
}
