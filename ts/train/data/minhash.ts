/**
 * Near-copies by MinHash: documents whose runs of five words are mostly the same.
 *
 * A signature has, for each of 128 hash functions, the least hash of the document's runs: two documents agree in a place with the
 * probability of their Jaccard similarity. Signatures are cut into bands; documents that agree in a whole band are compared.
 * @module
 */

const PLACES = 128;
const RUN = 5;

/** Finds, one after another, which texts are near-copies of earlier ones that were none. */
export class NearCopies {
  readonly #similarity: number;
  /** Places of a band. */
  readonly #width: number;
  /** Signatures of the texts that are kept. */
  readonly #kept: Uint32Array[] = [];
  /** By band and its hash: which of them have it. */
  readonly #bands: Map<number, number[]>[];

  /** @param similarity share of runs in common, of all that either has, from which on a text is a copy: above 0, to 1 */
  constructor(similarity: number) {
    this.#similarity = similarity;
    this.#width = bandWidth(similarity);
    this.#bands = Array.from({ length: PLACES / this.#width }, () => new Map<number, number[]>());
  }

  /** Whether this text is a copy; if not, later ones may be copies of it. */
  isCopy(text: string): boolean {
    const signature = signatureOf(text);
    const keys = this.#bands.map((_, band) => this.#key(signature, band));
    const candidates = new Set(keys.flatMap((key, band) => this.#bands[band]!.get(key) ?? []));
    for (const candidate of candidates) {
      if (similarityOf(signature, this.#kept[candidate]!) >= this.#similarity) return true;
    }
    const index = this.#kept.push(signature) - 1;
    keys.forEach((key, band) => {
      const list = this.#bands[band]!.get(key);
      if (list) list.push(index);
      else this.#bands[band]!.set(key, [index]);
    });
    return false;
  }

  #key(signature: Uint32Array, band: number): number {
    return signature.subarray(band * this.#width, (band + 1) * this.#width).reduce((hash, place) => mix(hash ^ place), 0);
  }
}

/** The widest band with which two texts of just this similarity share one in 99 of 100 cases: wide bands have few false candidates. */
function bandWidth(similarity: number): number {
  const found = (width: number) => 1 - (1 - similarity ** width) ** (PLACES / width);
  return [32, 16, 8, 4, 2].find((width) => found(width) >= 0.99) ?? 1;
}

/** The estimate of two texts' similarity. */
function similarityOf(a: Uint32Array, b: Uint32Array): number {
  return a.reduce((same, place, i) => same + (place === b[i] ? 1 : 0), 0) / PLACES;
}

function signatureOf(text: string): Uint32Array {
  const words = text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
  const hashes = words.map(hashOf);
  const signature = new Uint32Array(PLACES).fill(0xffffffff);
  // A text of fewer words is one run.
  for (let begin = 0; begin === 0 || begin + RUN <= hashes.length; begin++) {
    const run = hashes.slice(begin, begin + RUN).reduce((hash, word) => mix(Math.imul(hash, 31) + word), 0);
    for (let place = 0; place < PLACES; place++) {
      const hash = mix(run ^ Math.imul(place + 1, 0x9e3779b1));
      if (hash < signature[place]!) signature[place] = hash;
    }
  }
  return signature;
}

/** FNV-1a over a word's UTF-16 units. */
function hashOf(word: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < word.length; i++) hash = Math.imul(hash ^ word.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}

/** A bijection of 32 bits that scatters them (MurmurHash3's last steps). */
function mix(value: number): number {
  let h = value;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
