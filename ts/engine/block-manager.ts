/**
 * Who owns which cache block. A block holds `blockSize` positions of one sequence; the prompt's full blocks may be shared by the choices of
 * one request, so owners are counted.
 * @module
 */

import { LongcatError } from "../errors.js";

export class BlockManager {
  readonly blockSize: number;
  readonly numBlocks: number;
  readonly #free: number[];
  readonly #owners: Uint32Array;

  constructor(numBlocks: number, blockSize: number) {
    this.numBlocks = numBlocks;
    this.blockSize = blockSize;
    this.#free = Array.from({ length: numBlocks }, (_, i) => numBlocks - 1 - i);
    this.#owners = new Uint32Array(numBlocks);
  }

  get numFree(): number {
    return this.#free.length;
  }

  /** Blocks that hold `positions` positions. */
  blocksFor(positions: number): number {
    return Math.ceil(positions / this.blockSize);
  }

  /** `count` blocks with one owner each; undefined if there are not as many. */
  allocate(count: number): number[] | undefined {
    if (count > this.#free.length) return undefined;
    const blocks = this.#free.splice(this.#free.length - count, count).reverse();
    for (const block of blocks) this.#owners[block] = 1;
    return blocks;
  }

  /** One owner more for blocks that have one. */
  share(blocks: readonly number[]): void {
    for (const block of blocks) this.#owners[block] = this.#ownersOf(block) + 1;
  }

  /** One owner less; what nobody owns is free again. */
  release(blocks: readonly number[]): void {
    for (const block of blocks) {
      const owners = this.#ownersOf(block) - 1;
      this.#owners[block] = owners;
      if (owners === 0) this.#free.push(block);
    }
  }

  #ownersOf(block: number): number {
    const owners = this.#owners[block];
    if (owners === undefined || owners === 0) throw new LongcatError("INTERNAL", `cache block ${block} has no owner`);
    return owners;
  }
}
