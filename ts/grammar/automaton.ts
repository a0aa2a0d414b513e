/**
 * A grammar while it is read: the set of all places where the text so far may stand. Sets are made when they are first reached and
 * remembered with their steps, so that reading a byte again is one look-up.
 * @module
 */
import { Node } from "./node.js";

/** A place: a node, and the nodes to go on from when its rule ends. Equal places are one object. */
class Place {
  readonly #above = new Map<Node, Place>();

  constructor(
    readonly id: number,
    readonly node: Node,
    readonly below: Place | null,
    readonly ids: { next: number },
  ) {}

  /** This place with `node` on top of it. */
  push(node: Node): Place {
    let place = this.#above.get(node);
    if (place === undefined) {
      place = new Place(this.ids.next++, node, this, this.ids);
      this.#above.set(node, place);
    }
    return place;
  }
}

/** Symbols beyond the bytes, for special tokens. */
export const FIRST_SPECIAL = 256;
/** Most places at once. What is beyond is not written, which is no harm: all that is written is still of the grammar. */
const MAX_PLACES = 2048;
/** Remembered sets, after which all are forgotten. */
const MAX_STATES = 4096;

/** All places where the text so far may stand. */
export class State {
  /** By symbol; undefined: not asked for yet; null: nothing goes on with it. */
  readonly next: (State | null | undefined)[] = [];
  /** Token ids that may follow; see vocabulary.ts. */
  mask: Int32Array | undefined;

  constructor(
    /** Places from which a symbol can be read. */
    readonly places: readonly Place[],
    /** The text may end here. */
    readonly mayEnd: boolean,
    /** How many characters of a JSON string may follow, each of them any. */
    readonly room: number,
  ) {}

  /** The text is whole, and nothing may follow. */
  get isComplete(): boolean {
    return this.mayEnd && this.places.length === 0;
  }

  /** Whether a special token may be read. */
  get takesSpecial(): boolean {
    return this.places.some(({ node }) => node.edges.some(({ high }) => high >= FIRST_SPECIAL));
  }
}

/** Reads texts of one grammar. */
export class Automaton {
  readonly start: State;
  readonly #ids = { next: 1 };
  readonly #states = new Map<string, State>();

  /** @param start the first node; the text ends at a node that `isEnd`, of no rule. */
  constructor(start: Node) {
    const ground = new Place(0, new Node(-1), null, this.#ids);
    this.start = this.#closure([ground.push(start)]);
  }

  /** Places made so far: what the automaton has grown to. */
  get size(): number {
    return this.#ids.next;
  }

  /** Where a symbol leads; null: nowhere. */
  step(state: State, symbol: number): State | null {
    const known = state.next[symbol];
    if (known !== undefined) return known;
    const reached: Place[] = [];
    for (const place of state.places)
      for (const { low, high, to } of place.node.edges) if (low <= symbol && symbol <= high) reached.push((place.below as Place).push(to));
    const next = reached.length === 0 ? null : this.#closure(reached);
    state.next[symbol] = next;
    return next;
  }

  /** All that can be reached from some places without a symbol. */
  #closure(reached: readonly Place[]): State {
    const seen = new Set<Place>(reached);
    const places: Place[] = [];
    let mayEnd = false;
    let room = 0;
    for (const place of seen) {
      const { node } = place;
      const below = place.below as Place;
      room = Math.max(room, node.room);
      if (node.edges.length > 0 && places.length < MAX_PLACES) places.push(place);
      for (const to of node.empties) seen.add(below.push(to));
      for (const { rule, after } of node.calls) seen.add(below.push(after).push(rule.start));
      if (!node.isEnd) continue;
      if (below.below === null) mayEnd = true;
      else seen.add(below);
    }
    places.sort((a, b) => a.id - b.id);
    const key = `${mayEnd} ${room} ${places.map(({ id }) => id).join(" ")}`;
    let state = this.#states.get(key);
    if (state === undefined) {
      if (this.#states.size >= MAX_STATES) this.#states.clear();
      state = new State(places, mayEnd, room);
      this.#states.set(key, state);
    }
    return state;
  }
}
