/**
 * From callbacks to an async loop: what is pushed comes out in order, then the end or the error.
 * @module
 */

export class ChunkQueue<T> {
  readonly #items: T[] = [];
  #ended = false;
  #error: unknown;
  #wake: (() => void) | undefined;

  push(item: T): void {
    this.#items.push(item);
    this.#wake?.();
  }

  /** No more items; an error is thrown once those that are there have been taken. */
  end(error?: unknown): void {
    this.#ended = true;
    this.#error = error;
    this.#wake?.();
  }

  /** The next item, when it is there; undefined after the last. */
  async next(): Promise<T | undefined> {
    while (this.#items.length === 0 && !this.#ended)
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    if (this.#items.length > 0) return this.#items.shift();
    if (this.#error !== undefined) throw this.#error;
    return undefined;
  }
}
