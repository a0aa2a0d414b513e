/**
 * Tokens as a tree of bytes, laid out in the order of a walk.
 * @module
 */
import type { Automaton, State } from "./automaton.js";

/** Takes tokens in any order. All memory is there from the start, since arrays that grow make long pauses. */
export class TrieBuilder {
  /** By node: its parent, first child, next sibling, byte, the first of its tokens; node 0 is the root, and "none" where there is no node. */
  readonly #parent: Int32Array;
  readonly #child: Int32Array;
  readonly #sibling: Int32Array;
  readonly #byte: Uint8Array;
  readonly #token: Int32Array;
  #count = 1;
  /** Of a token: another one with the same bytes. */
  readonly #same = new Map<number, number>();
  /** Nodes by parent and byte: an open hash table of a power of two. */
  readonly #table: Int32Array;

  /** @param bytes of all tokens that will be added, at least. */
  constructor(bytes: number) {
    const nodes = bytes + 1;
    this.#parent = new Int32Array(nodes);
    this.#child = new Int32Array(nodes);
    this.#sibling = new Int32Array(nodes);
    this.#byte = new Uint8Array(nodes);
    this.#token = new Int32Array(nodes);
    this.#table = new Int32Array(2 ** Math.ceil(Math.log2(2 * nodes)));
  }

  add(bytes: Uint8Array, id: number): void {
    let at = 0;
    for (const byte of bytes) at = this.#step(at, byte);
    const first = (this.#token[at] as number) - 1;
    if (first >= 0) this.#same.set(id, first);
    this.#token[at] = id + 1;
  }

  #step(from: number, byte: number): number {
    const mask = this.#table.length - 1;
    let place = (Math.imul(from, 0x9e3779b1) ^ Math.imul(byte, 0x85ebca6b)) >>> 0;
    place = (place ^ (place >>> 15)) & mask;
    for (let node = this.#table[place] as number; node !== 0; node = this.#table[place] as number) {
      if (this.#parent[node] === from && this.#byte[node] === byte) return node;
      place = (place + 1) & mask;
    }
    const node = this.#count++;
    this.#parent[node] = from;
    this.#byte[node] = byte;
    this.#sibling[node] = this.#child[from] as number;
    this.#child[from] = node;
    this.#table[place] = node;
    return node;
  }

  /** Lays the tree out; gives way with `turn` after each `turnMs`. */
  async build(turnMs: number, turn: () => Promise<void>): Promise<TokenTrie> {
    const count = this.#count - 1;
    const bytes = new Uint8Array(count);
    const depths = new Uint16Array(count);
    const skips = new Int32Array(count);
    const tokens = new Int32Array(count);
    const path: number[] = [];
    let deepest = 0;
    let turned = performance.now();
    let at = 0;
    let node = this.#child[0] as number;
    while (node !== 0 || path.length > 0) {
      if (node === 0) {
        const place = path.pop() as number;
        skips[place] = at;
        node = this.#sibling[tokens[place] as number] as number;
        tokens[place] = (this.#token[tokens[place] as number] as number) - 1;
        continue;
      }
      bytes[at] = this.#byte[node] as number;
      depths[at] = path.length;
      tokens[at] = node; // until the way back
      path.push(at);
      deepest = Math.max(deepest, path.length);
      node = this.#child[node] as number;
      if (++at % 4096 === 0 && performance.now() - turned > turnMs) {
        await turn();
        turned = performance.now();
      }
    }
    return new TokenTrie(bytes, depths, skips, tokens, this.#same, deepest);
  }
}

/** Nodes in the order of a walk: each before its children. */
export class TokenTrie {
  readonly #states: (State | null)[];

  constructor(
    readonly bytes: Uint8Array,
    /** Nodes above, the root not counted. */
    readonly depths: Uint16Array,
    /** Where the walk goes on behind a node's subtree. */
    readonly skips: Int32Array,
    /** The token that ends at a node; −1: none. */
    readonly tokens: Int32Array,
    readonly same: ReadonlyMap<number, number>,
    deepest: number,
  ) {
    this.#states = new Array<State | null>(deepest + 1).fill(null);
  }

  /** Sets the bits of all tokens that `state` can read. */
  walk(automaton: Automaton, state: State, mask: Int32Array): void {
    const { bytes, depths, skips, tokens } = this;
    const states = this.#states;
    states[0] = state;
    for (let at = 0; at < bytes.length; ) {
      const depth = depths[at] as number;
      const from = states[depth] as State;
      const byte = bytes[at] as number;
      const known = from.next[byte];
      const to = known === undefined ? automaton.step(from, byte) : known;
      if (to === null) {
        at = skips[at] as number;
        continue;
      }
      states[depth + 1] = to;
      const token = tokens[at] as number;
      if (token >= 0) this.#set(mask, token);
      at++;
    }
    states.fill(null);
  }

  #set(mask: Int32Array, token: number): void {
    for (let id: number | undefined = token; id !== undefined; id = this.same.get(id)) {
      const word = id >> 5;
      mask[word] = (mask[word] as number) | (1 << (id & 31));
    }
  }
}
