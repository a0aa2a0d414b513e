/**
 * Tokens as a tree of bytes, laid out in the order of a walk.
 * @module
 */
import type { Automaton, State } from "./automaton.js";

/** Takes tokens in any order. */
export class TrieBuilder {
  /** By node: its first child, its next sibling, its byte, the first of its tokens; node 0 is the root. */
  readonly #child: number[] = [0];
  readonly #sibling: number[] = [0];
  readonly #byte: number[] = [0];
  readonly #token: number[] = [-1];
  /** Of a token: another one with the same bytes. */
  readonly #same = new Map<number, number>();
  /** (parent · 256 + byte) → node. */
  readonly #nodes = new Map<number, number>();

  add(bytes: Uint8Array, id: number): void {
    let at = 0;
    for (const byte of bytes) {
      const key = at * 256 + byte;
      let to = this.#nodes.get(key);
      if (to === undefined) {
        to = this.#byte.push(byte) - 1;
        this.#child.push(0);
        this.#sibling.push(this.#child[at] as number);
        this.#token.push(-1);
        this.#child[at] = to;
        this.#nodes.set(key, to);
      }
      at = to;
    }
    const first = this.#token[at] as number;
    if (first >= 0) this.#same.set(id, first);
    this.#token[at] = id;
  }

  /** Lays the tree out; gives way with `turn` after each `turnMs`. */
  async build(turnMs: number, turn: () => Promise<void>): Promise<TokenTrie> {
    const count = this.#byte.length - 1;
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
        tokens[place] = this.#token[tokens[place] as number] as number;
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
