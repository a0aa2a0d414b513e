/**
 * Byte-pair merging of one long piece in O(n log n) time with flat arrays: the same result as merging, again and
 * again, the adjacent pair of lowest rank, leftmost first. The tokenizer library merges short pieces; a piece without
 * a split point (a million letters) comes here.
 * @module
 */

/** The merges of a tokenizer.json, in order of rank. */
export type MergeList = readonly (readonly [string, string])[];

/** Merges pieces by a fixed vocabulary and merge list. */
export class PieceMerger {
  readonly #ids: ReadonlyMap<string, number>;
  readonly #tokens: string[] = [];
  /** Number of symbols: with it a pair of ids is one number, left · span + right. */
  readonly #span: number;
  /** pair → rank */
  readonly #ranks = new Map<number, number>();
  /** rank → id of the merged token */
  readonly #merged: Int32Array;

  /** `merges` may only name tokens of `vocab`, and their joins must be there too. */
  constructor(vocab: ReadonlyMap<string, number>, merges: MergeList) {
    let span = 0;
    for (const [token, id] of vocab) {
      this.#tokens[id] = token;
      span = Math.max(span, id + 1);
    }
    this.#ids = vocab;
    this.#span = span;
    this.#merged = new Int32Array(merges.length);
    merges.forEach(([left, right], rank) => {
      // A pair that is listed twice keeps its last rank, as in the library.
      this.#ranks.set((vocab.get(left) as number) * span + (vocab.get(right) as number), rank);
      this.#merged[rank] = vocab.get(left + right) as number;
    });
  }

  /** The tokens of a piece that is already written in the byte alphabet. */
  merge(piece: string): string[] {
    const symbols = Int32Array.from(piece, (character) => this.#ids.get(character) as number);
    const alive = this.#mergeSymbols(symbols);
    const tokens: string[] = [];
    for (let at = 0; at !== -1; at = alive[at] as number) tokens.push(this.#tokens[symbols[at] as number] as string);
    return tokens;
  }

  /** Merges in place; returns the list of symbols that are left: `next[i]`, -1 at the end. */
  #mergeSymbols(symbols: Int32Array): Int32Array {
    const count = symbols.length;
    const next = Int32Array.from(symbols, (_, at) => (at + 1 < count ? at + 1 : -1));
    const previous = Int32Array.from(symbols, (_, at) => at - 1);
    const heap = new KeyHeap(count);
    const rankAt = (at: number): number | undefined => {
      const right = next[at] as number;
      if (right === -1) return undefined;
      return this.#ranks.get((symbols[at] as number) * this.#span + (symbols[right] as number));
    };
    // The key orders by rank, then by place: rank · count + place, exact below 2^53.
    const offer = (at: number): void => {
      const rank = rankAt(at);
      if (rank !== undefined) heap.push(rank * count + at);
    };
    for (let at = 0; at + 1 < count; at++) offer(at);
    for (let key = heap.pop(); key !== undefined; key = heap.pop()) {
      const at = key % count;
      const rank = (key - at) / count;
      if (symbols[at] === -1 || rankAt(at) !== rank) continue; // merged meanwhile
      const right = next[at] as number;
      const after = next[right] as number;
      symbols[at] = this.#merged[rank] as number;
      symbols[right] = -1;
      next[at] = after;
      if (after !== -1) previous[after] = at;
      offer(at);
      if (at > 0) offer(previous[at] as number);
    }
    return next;
  }
}

/** A binary heap of numbers, smallest first. */
export class KeyHeap {
  #keys: Float64Array;
  #size = 0;

  constructor(capacity: number) {
    this.#keys = new Float64Array(Math.max(16, capacity));
  }

  push(key: number): void {
    if (this.#size === this.#keys.length) {
      const grown = new Float64Array(this.#size * 2);
      grown.set(this.#keys);
      this.#keys = grown;
    }
    const keys = this.#keys;
    let at = this.#size++;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if ((keys[parent] as number) <= key) break;
      keys[at] = keys[parent] as number;
      at = parent;
    }
    keys[at] = key;
  }

  pop(): number | undefined {
    if (this.#size === 0) return undefined;
    const keys = this.#keys;
    const top = keys[0] as number;
    const last = keys[--this.#size] as number;
    let at = 0;
    for (let child = 1; child < this.#size; child = 2 * at + 1) {
      if (child + 1 < this.#size && (keys[child + 1] as number) < (keys[child] as number)) child++;
      if ((keys[child] as number) >= last) break;
      keys[at] = keys[child] as number;
      at = child;
    }
    keys[at] = last;
    return top;
  }
}
