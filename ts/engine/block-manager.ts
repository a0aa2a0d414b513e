/**
 * Who owns which cache block. A block holds `blockSize` positions of one sequence; full blocks may be shared by sequences that begin alike,
 * so owners are counted. A block that nobody owns but the prefix cache knows stays as it is until there is no other to give.
 * @module
 */

import { LongcatError } from "../errors.js";
import { PrefixCache } from "./prefix-cache.js";

export class BlockManager {
  readonly blockSize: number;
  readonly numBlocks: number;
  readonly cache = new PrefixCache();
  readonly #free: number[];
  readonly #owners: Uint32Array;

  constructor(numBlocks: number, blockSize: number) {
    this.numBlocks = numBlocks;
    this.blockSize = blockSize;
    this.#free = Array.from({ length: numBlocks }, (_, i) => numBlocks - 1 - i);
    this.#owners = new Uint32Array(numBlocks);
  }

  /** Blocks that nobody owns. */
  get numFree(): number {
    return this.#free.length + this.cache.numIdle;
  }

  /** Blocks that hold `positions` positions. */
  blocksFor(positions: number): number {
    return Math.ceil(positions / this.blockSize);
  }

  /** `count` blocks with one owner each; undefined if there are not as many. Cached ones go last, the least recently used first. */
  allocate(count: number): number[] | undefined {
    if (count > this.numFree) return undefined;
    return Array.from({ length: count }, () => {
      const block = (this.#free.pop() ?? this.cache.evict()) as number;
      this.#owners[block] = 1;
      return block;
    });
  }

  /** One owner more for blocks that have one, or that are cached. */
  share(blocks: readonly number[]): void {
    for (const block of blocks) {
      if (this.cache.isIdle(block)) {
        this.cache.wake(block);
        this.#owners[block] = 1;
      } else this.#owners[block] = this.#ownersOf(block) + 1;
    }
  }

  /** One owner less; what nobody owns is free again, or idle in the cache. A text's end is given away before its beginning: last first. */
  release(blocks: readonly number[]): void {
    for (const block of [...blocks].reverse()) {
      const owners = this.#ownersOf(block) - 1;
      this.#owners[block] = owners;
      if (owners > 0) continue;
      if (this.cache.has(block)) this.cache.rest(block);
      else this.#free.push(block);
    }
  }

  #ownersOf(block: number): number {
    const owners = this.#owners[block];
    if (owners === undefined || owners === 0) throw new LongcatError("INTERNAL", `cache block ${block} has no owner`);
    return owners;
  }
}
