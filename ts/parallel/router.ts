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

/** Some blocks of a text, known by the digest of all tokens up to their end (ts/engine/prefix-cache.ts). */
interface Piece {
  digest: string;
  blocks: number;
}

/** What a rank has to do, as far as is known here. */
class RankLoad {
  readonly rank: number;
  readonly #capacity: RankCapacity;
  /** Pieces that its prefix cache should have, and their blocks; those looked for last behind the others. */
  readonly #cached = new Map<string, number>();
  #cachedBlocks = 0;
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

  /** Tokens of these pieces, from the first on, that its prefix cache should have. */
  cachedTokens(pieces: readonly Piece[]): number {
    const missing = pieces.findIndex(({ digest }) => !this.#cached.has(digest));
    return blocksOf(missing < 0 ? pieces : pieces.slice(0, missing)) * this.#capacity.blockSize;
  }

  /** These pieces will be in its prefix cache. The last of a text are forgotten first: a beginning is of use without its end. */
  remember(pieces: readonly Piece[]): void {
    for (const { digest, blocks } of pieces.toReversed()) {
      this.#forget(digest);
      this.#cached.set(digest, blocks);
      this.#cachedBlocks += blocks;
    }
    for (const digest of this.#cached.keys()) {
      if (this.#cachedBlocks <= this.#capacity.numBlocks) return;
      this.#forget(digest);
    }
  }

  #forget(digest: string): void {
    this.#cachedBlocks -= this.#cached.get(digest) ?? 0;
    this.#cached.delete(digest);
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
    const pieces = this.#caches ? piecesOf(prompt, this.#blockSize) : [];
    const roomy = this.#ranks.filter((rank) => rank.hasRoom(load));
    const costs = (roomy.length > 0 ? roomy : this.#ranks).map((rank) => {
      // The last token of a prompt is always run.
      const cached = reuses ? Math.min(rank.cachedTokens(pieces), prompt.length - 1) : 0;
      return { rank, cached, steps: rank.fullness + rank.stepsFor(prompt.length, cached) };
    });
    costs.sort((a, b) => a.steps - b.steps || a.rank.given - b.rank.given);
    const { rank, cached } = costs[0] as (typeof costs)[number];
    rank.remember(pieces);
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

/** So many leading blocks of a text are looked for one by one, those behind them in pieces of as many: a long text has few pieces. */
const BLOCKS_OF_PIECE = 16;

/** A text's full blocks, but for those behind its last whole piece. */
function piecesOf(tokens: readonly number[], blockSize: number): Piece[] {
  const pieces: Piece[] = [];
  let parent = CHAIN_START;
  for (let block = 0; ; ) {
    const blocks = block < BLOCKS_OF_PIECE ? 1 : BLOCKS_OF_PIECE;
    if ((block + blocks) * blockSize > tokens.length) return pieces;
    parent = chainDigest(parent, tokens.slice(block * blockSize, (block + blocks) * blockSize));
    pieces.push({ digest: parent, blocks });
    block += blocks;
  }
}

function blocksOf(pieces: readonly Piece[]): number {
  return pieces.reduce((sum, { blocks }) => sum + blocks, 0);
}
