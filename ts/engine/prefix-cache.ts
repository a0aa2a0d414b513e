/**
 * Which cache blocks hold which beginnings of texts, so that a prompt that begins the same need not be run again.
 *
 * A full block is known by the digest of its tokens and of all blocks before it: a chain, so that one digest stands for a whole beginning.
 * A digest of SHA-256 cannot be forged: nobody can write a prompt that hits another's blocks without having their tokens. What else changes
 * latents (weights, numbers' types, the device) is the same for an engine's life, and the cache does not outlive it. Which path made a block
 * (docs/numerics.md, 3) is decided by who stores it: the scheduler stores prompt-made blocks alone, unless it was asked for all.
 * @module
 */

import { createHash } from "node:crypto";

/** What is reused: nothing, blocks that prompts made, or those that decoding made too. */
export type PrefixCacheMode = "off" | "on" | "all";

/** The chain's digest before the first block. */
export const CHAIN_START = "";

/** The digest of a block: of its tokens, and of all before it by `parent`. */
export function chainDigest(parent: string, tokens: readonly number[]): string {
  return createHash("sha256").update(parent, "binary").update(Int32Array.from(tokens)).digest("binary");
}

interface Entry {
  digest: string;
  /** FFN experts that each of the block's tokens used, over all layers: so that a hit reports what a miss does. */
  experts: readonly number[];
}

/** Knows blocks by content; who owns them is the block manager's. */
export class PrefixCache {
  readonly #blocks = new Map<string, number>();
  readonly #entries = new Map<number, Entry>();
  /** Blocks that nobody owns, the least recently used first. */
  readonly #idle = new Set<number>();

  /** Blocks that could be given to somebody else. */
  get numIdle(): number {
    return this.#idle.size;
  }

  get numBlocks(): number {
    return this.#entries.size;
  }

  /** The block of this digest, if there is one. */
  find(digest: string): number | undefined {
    return this.#blocks.get(digest);
  }

  has(block: number): boolean {
    return this.#entries.has(block);
  }

  isIdle(block: number): boolean {
    return this.#idle.has(block);
  }

  expertsOf(block: number): readonly number[] {
    return this.#entries.get(block)?.experts ?? [];
  }

  /** Says what a block holds, which has an owner. The first block of a digest stays the one that is found. */
  store(digest: string, block: number, experts: readonly number[]): void {
    if (this.#blocks.has(digest)) return;
    this.#blocks.set(digest, block);
    this.#entries.set(block, { digest, experts });
  }

  /** A block has lost its last owner. */
  rest(block: number): void {
    this.#idle.add(block);
  }

  /** A block has an owner again. */
  wake(block: number): void {
    this.#idle.delete(block);
  }

  /** Forgets the block that was unused for longest, and gives it; undefined if all are owned. */
  evict(): number | undefined {
    const [block] = this.#idle;
    if (block === undefined) return undefined;
    this.#idle.delete(block);
    this.#blocks.delete((this.#entries.get(block) as Entry).digest);
    this.#entries.delete(block);
    return block;
  }
}
