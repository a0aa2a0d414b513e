/**
 * Which source each row of a run comes from.
 * @module
 */

/** A row's source, and how many rows that source gave before. */
export interface Choice {
  source: number;
  nth: number;
}

/** Takes rows from the source that is furthest behind its share: after any number of rows none is a whole row ahead of it. */
export class Mixture {
  readonly #shares: number[];
  readonly #taken: number[];
  readonly #choices: Choice[] = [];

  /** @param weights above 0 */
  constructor(weights: readonly number[]) {
    const sum = weights.reduce((all, weight) => all + weight, 0);
    this.#shares = weights.map((weight) => weight / sum);
    this.#taken = weights.map(() => 0);
  }

  /** Of row `index` of the run. */
  choice(index: number): Choice {
    while (this.#choices.length <= index) this.#choices.push(this.#next());
    return this.#choices[index]!;
  }

  #next(): Choice {
    const rows = this.#choices.length + 1;
    const behind = this.#shares.map((share, source) => share * rows - this.#taken[source]!);
    const source = behind.indexOf(Math.max(...behind));
    return { source, nth: this.#taken[source]!++ };
  }
}
