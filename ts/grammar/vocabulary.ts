/**
 * A tokenizer's tokens by their bytes, and which of them a grammar lets through: masks of one bit an id.
 *
 * Most tokens are plain characters that any JSON string may hold. Where a string may go on with whatever it likes, these are let through
 * as a whole, by their number of characters; only the rest of the tokens is walked through.
 * @module
 */
import { type Automaton, FIRST_SPECIAL, type State } from "./automaton.js";
import { type TokenTrie, TrieBuilder } from "./trie.js";

/** What is asked of a tokenizer. */
export interface TokenSource {
  /** Ids that a grammar's text may be made of: those without a meaning beyond their bytes. */
  textIds: readonly number[];
  tokenBytes(id: number): Uint8Array;
  /** Special tokens that grammars name, by their text. */
  special: ReadonlyMap<string, number>;
}

/** The symbols of special tokens in a grammar, by their texts. */
export function specialSymbols({ special }: TokenSource): ReadonlyMap<string, number> {
  return new Map([...special.keys()].map((text, i) => [text, FIRST_SPECIAL + i]));
}

/** How long building a vocabulary may keep the event loop from turning. */
const TURN_MS = 3;
/** Plain tokens of more characters are let through only where there is no limit. */
const MAX_COUNTED = 64;
/** Masks that are kept, over all grammars. */
const KEPT_MASKS = 1024;

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Does something for each of `count` places, a few milliseconds at a time. */
async function inTurns(count: number, each: (i: number) => void): Promise<void> {
  let turned = performance.now();
  for (let i = 0; i < count; i++) {
    if (i % 256 === 0 && performance.now() - turned > TURN_MS) {
      await turn();
      turned = performance.now();
    }
    each(i);
  }
}

export class Vocabulary {
  readonly words: number;
  readonly #plain: TokenTrie;
  readonly #other: TokenTrie;
  /** Element k: plain tokens of at most k characters; the last: all of them. */
  readonly #bodies: readonly Int32Array[];
  readonly #special: readonly { symbol: number; id: number }[];
  readonly #kept: State[] = [];

  private constructor(size: number, plain: TokenTrie, other: TokenTrie, bodies: readonly Int32Array[], source: TokenSource) {
    this.words = Math.ceil(size / 32);
    this.#plain = plain;
    this.#other = other;
    this.#bodies = bodies;
    const symbols = specialSymbols(source);
    this.#special = [...source.special].map(([text, id]) => ({ symbol: symbols.get(text) as number, id }));
  }

  /**
   * Sorts a tokenizer's tokens, a few milliseconds at a time.
   *
   * @param size ids of the model: bits of a mask.
   */
  static async build(size: number, source: TokenSource): Promise<Vocabulary> {
    const words = Math.ceil(size / 32);
    const { textIds, tokenBytes } = source;
    const counts = new Uint8Array(textIds.length);
    const totals = { plain: 0, other: 0 };
    await inTurns(textIds.length, (i) => {
      const bytes = tokenBytes(textIds[i] as number);
      const count = plainCharacters(bytes);
      counts[i] = Math.min(count, MAX_COUNTED + 1);
      totals[count > 0 ? "plain" : "other"] += bytes.length;
    });
    // Room for millions of nodes takes its own milliseconds.
    await turn();
    const plain = new TrieBuilder(totals.plain);
    await turn();
    const other = new TrieBuilder(totals.other);
    await turn();
    const exact = Array.from({ length: MAX_COUNTED + 2 }, () => new Int32Array(words));
    await inTurns(textIds.length, (i) => {
      const id = textIds[i] as number;
      const bytes = tokenBytes(id);
      const count = counts[i] as number;
      if (bytes.length === 0) return;
      if (count > 0) setBit(exact[count] as Int32Array, id);
      (count > 0 ? plain : other).add(bytes, id);
    });
    for (let k = 1; k < exact.length; k++) {
      const [before, here] = [exact[k - 1] as Int32Array, exact[k] as Int32Array];
      for (let w = 0; w < words; w++) here[w] = (here[w] as number) | (before[w] as number);
    }
    const build = async (trie: TrieBuilder): Promise<TokenTrie> => {
      await turn();
      return trie.build(TURN_MS, turn);
    };
    return new Vocabulary(size, await build(plain), await build(other), exact, source);
  }

  /** The symbol of a token id that is special; undefined for all others. */
  specialSymbol(id: number): number | undefined {
    return this.#special.find((one) => one.id === id)?.symbol;
  }

  /** The ids that may follow, end tokens not among them. Kept with the state: not to be written to. */
  maskOf(automaton: Automaton, state: State): Int32Array {
    if (state.mask !== undefined) return state.mask;
    const mask = new Int32Array(this.words);
    if (this.#bodyCounts(state)) mask.set(this.#body(state.room));
    else this.#plain.walk(automaton, state, mask);
    this.#other.walk(automaton, state, mask);
    if (state.takesSpecial) for (const { symbol, id } of this.#special) if (automaton.step(state, symbol) !== null) setBit(mask, id);
    if (this.#kept.length >= KEPT_MASKS) (this.#kept.shift() as State).mask = undefined;
    this.#kept.push(state);
    state.mask = mask;
    return mask;
  }

  #body(room: number): Int32Array {
    const at = room === Number.POSITIVE_INFINITY ? this.#bodies.length - 1 : Math.min(room, MAX_COUNTED);
    return this.#bodies[at] as Int32Array;
  }

  /** Whether the plain tokens of at most `room` characters are all the plain tokens that may follow. */
  #bodyCounts({ room, places }: State): boolean {
    if (room === 0) return false;
    if (room > MAX_COUNTED) return true; // longer ones may be left out: a grammar needs no single token
    return places.every(({ node }) => node.startsCharacter || node.edges.every(({ low, high }) => low === high && low === 0x22));
  }
}

function setBit(mask: Int32Array, id: number): void {
  const word = id >> 5;
  mask[word] = (mask[word] as number) | (1 << (id & 31));
}

const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** How many characters of a JSON string a token is, each standing for itself; 0: it is not so simple. */
function plainCharacters(bytes: Uint8Array): number {
  let count = 0;
  let ascii = true;
  for (const byte of bytes) {
    if (byte < 0x20 || byte === 0x22 || byte === 0x5c) return 0;
    if (byte >= 0x80) ascii = false;
    if ((byte & 0xc0) !== 0x80) count++;
  }
  if (ascii) return count;
  try {
    UTF8.decode(bytes);
    return count;
  } catch {
    return 0;
  }
}
