/**
 * Byte-level BPE, trained: again and again the pair of neighbouring tokens that is most frequent becomes a token.
 *
 * Pieces of text, between which nothing is merged, are counted once; a merge touches only the pieces that have the pair. Of pairs that are
 * equally frequent the one that was seen first is taken, so the same texts in the same order give the same vocabulary.
 * @module
 */

import { KeyHeap } from "../../text/bpe.js";

/** What comes of it: ids are places in `tokens`. */
export interface TrainedBpe {
  tokens: string[];
  merges: [string, string][];
}

/** A key of the heap is (MOST_COUNT − count) · MOST_PAIRS + pair, exact below 2^53. */
const MOST_COUNT = 2 ** 29;
const MOST_PAIRS = 2 ** 24;

/** A different piece: its tokens, and how often it stands in the texts. */
interface Piece {
  tokens: number[];
  count: number;
}

/** A pair that stood somewhere. */
interface Pair {
  left: number;
  right: number;
  count: number;
  /** Pieces that have it, or had it once. */
  pieces: Set<Piece>;
}

/**
 * Trains a vocabulary.
 *
 * @param pieces the texts' pieces in the byte alphabet (ts/text/byte-level.ts)
 * @param first tokens that are there from the beginning: special ones, then the 256 bytes
 * @param special how many of `first` are special: no merge makes one
 * @param size tokens to stop at; fewer come out where no pair stands twice any more
 */
export function trainBpe(pieces: Iterable<string>, first: readonly string[], special: number, size: number): TrainedBpe {
  const tokens = [...first];
  const ids = new Map(tokens.map((token, id) => [token, id]));
  const reserved = new Set(first.slice(0, special));
  const pairs = new PairTable(countPieces(pieces, ids));
  const merges: [string, string][] = [];
  while (tokens.length < size) {
    const pair = pairs.takeMostFrequent();
    if (pair === undefined) break;
    const [left, right] = [tokens[pair.left]!, tokens[pair.right]!];
    if (reserved.has(left + right)) continue;
    // Two pairs may spell the same: the second leads to the token that is there.
    const id = ids.get(left + right) ?? tokens.push(left + right) - 1;
    ids.set(left + right, id);
    merges.push([left, right]);
    pairs.merge(pair, id);
  }
  return { tokens, merges };
}

function countPieces(texts: Iterable<string>, ids: ReadonlyMap<string, number>): Piece[] {
  const counts = new Map<string, number>();
  for (const text of texts) counts.set(text, (counts.get(text) ?? 0) + 1);
  return [...counts].map(([text, count]) => ({ tokens: Array.from(text, (character) => ids.get(character)!), count }));
}

/** All pairs with their counts, and which is the most frequent. */
class PairTable {
  readonly #pairs: Pair[] = [];
  readonly #numbers = new Map<string, number>();
  /** Keys may be out of date: one that is has another count than its pair. */
  readonly #heap = new KeyHeap(1024);

  constructor(pieces: readonly Piece[]) {
    const touched = new Set<number>();
    for (const piece of pieces) this.#count(piece, 1, touched);
    this.#offer(touched);
  }

  /** The most frequent pair that stands at least twice; it is not offered again. */
  takeMostFrequent(): Pair | undefined {
    for (let key = this.#heap.pop(); key !== undefined; key = this.#heap.pop()) {
      const pair = this.#pairs[key % MOST_PAIRS]!;
      const count = MOST_COUNT - Math.floor(key / MOST_PAIRS);
      if (count === pair.count && count >= 2) return pair;
    }
    return undefined;
  }

  /** Makes token `id` of the pair wherever it stands, from the left. */
  merge(pair: Pair, id: number): void {
    const touched = new Set<number>();
    for (const piece of [...pair.pieces]) {
      this.#count(piece, -1, touched);
      piece.tokens = merged(piece.tokens, pair, id);
      this.#count(piece, 1, touched);
    }
    pair.pieces.clear();
    this.#offer(touched);
  }

  #count(piece: Piece, sign: 1 | -1, touched: Set<number>): void {
    for (let i = 0; i + 1 < piece.tokens.length; i++) {
      const number = this.#numberOf(piece.tokens[i]!, piece.tokens[i + 1]!);
      const pair = this.#pairs[number]!;
      pair.count += sign * piece.count;
      if (sign === 1) pair.pieces.add(piece);
      touched.add(number);
    }
  }

  #numberOf(left: number, right: number): number {
    const name = `${left} ${right}`;
    let number = this.#numbers.get(name);
    if (number === undefined) {
      number = this.#pairs.push({ left, right, count: 0, pieces: new Set() }) - 1;
      this.#numbers.set(name, number);
    }
    return number;
  }

  #offer(numbers: Iterable<number>): void {
    for (const number of numbers) {
      const { count } = this.#pairs[number]!;
      if (count >= 2) this.#heap.push((MOST_COUNT - count) * MOST_PAIRS + number);
    }
  }
}

function merged(tokens: readonly number[], { left, right }: Pair, id: number): number[] {
  const after: number[] = [];
  for (let i = 0; i < tokens.length; i++) {
    const hit = tokens[i] === left && tokens[i + 1] === right;
    after.push(hit ? id : tokens[i]!);
    if (hit) i += 1;
  }
  return after;
}
