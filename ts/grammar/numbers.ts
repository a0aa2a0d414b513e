/**
 * Numbers of JSON between two bounds, digit by digit. Digits are few enough that what is written reads back within the bounds.
 * @module
 */
import type { Builder, Node } from "./node.js";

/** Most digits before and behind the point. */
const MAX_DIGITS = 18;
const MAX_FRACTION = 15;

/** A bound as decimal digits: |value| = whole.fraction. */
export interface Bound {
  negative: boolean;
  whole: bigint;
  fraction: string;
  /** The value itself is not among the numbers. */
  open: boolean;
}

export interface Bounds {
  low?: Bound;
  high?: Bound;
}

const LARGEST = 10n ** BigInt(MAX_DIGITS) - 1n;

/** The bound as decimal digits; undefined for one that needs more digits than there are. */
export function boundOf(value: number, open: boolean): Bound | undefined {
  const size = Math.abs(value);
  if (size > Number(LARGEST)) return { negative: value < 0, whole: LARGEST, fraction: "", open: false };
  const [whole = "0", fraction = ""] = (Number.isInteger(size) ? String(BigInt(size)) : size.toFixed(MAX_FRACTION)).split(".");
  if (Number(`${whole}.${fraction || "0"}`) !== size) return undefined;
  return { negative: value < 0, whole: BigInt(whole), fraction: fraction.replace(/0+$/, ""), open };
}

/** An integer within whole bounds, from `low` to `high`. */
export function integer(builder: Builder, low: bigint, high: bigint, next: Node): Node {
  const from = low < -LARGEST ? -LARGEST : low;
  const to = high > LARGEST ? LARGEST : high;
  const starts: Node[] = [];
  if (to >= 0n) starts.push(...wholes(builder, from > 0n ? from : 0n, to, next));
  if (from < 0n) for (const start of wholes(builder, to < 0n ? -to : 1n, -from, next)) starts.push(builder.literal("-", start));
  return builder.alternatives(starts);
}

/** A number without bounds, exponents of two digits included. */
export function anyNumber(builder: Builder, next: Node): Node {
  const exponent = builder.oneOf("eE", builder.optional(builder.oneOf("+-", builder.digits(1, 2, next)), builder.digits(1, 2, next)));
  const behind = builder.optional(exponent, next);
  const fraction = builder.optional(builder.literal(".", builder.digits(1, MAX_FRACTION, behind)), behind);
  const whole = builder.alternatives([
    builder.literal("0", fraction),
    builder.symbols(0x31, 0x39, builder.digits(0, MAX_DIGITS - 1, fraction)),
  ]);
  return builder.optional(builder.literal("-", whole), whole);
}

/** A number within bounds, without exponents. */
export function boundedNumber(builder: Builder, { low, high }: Bounds, next: Node): Node {
  const starts: Node[] = [];
  if (high === undefined || !high.negative)
    starts.push(magnitude(builder, { ...(low && !low.negative && { low }), ...(high && { high }) }, next));
  if (low === undefined || low.negative) {
    const sizes = { ...(high?.negative && { low: high }), ...(low && { high: low }) };
    // −0 is 0: where nothing else keeps it out, it must be as good as 0.
    const zero = high !== undefined && !high.negative && high.whole === 0n && high.fraction === "" && high.open;
    const from = zero ? { low: { negative: true, whole: 0n, fraction: "", open: true }, ...sizes } : sizes;
    starts.push(builder.literal("-", magnitude(builder, from, next)));
  }
  return builder.alternatives(starts);
}

/** A number of at least 0 within bounds whose signs do not count. */
function magnitude(builder: Builder, { low, high }: Bounds, next: Node): Node {
  const from = low?.whole ?? 0n;
  const to = high?.whole ?? LARGEST;
  const longest = [low, high].reduce((most, bound) => Math.max(most, bound === undefined ? 1 : String(bound.whole).length), 1);
  const most = Math.max(MAX_FRACTION - longest, low?.fraction.length ?? 0, high?.fraction.length ?? 0, 1);
  const fraction = (lowTight: boolean, highTight: boolean): Node =>
    new Fractions(builder, lowTight ? low : undefined, highTight ? high : undefined, most, next).start();
  const starts: Node[] = [];
  const lowEdge = low === undefined ? from - 1n : from;
  const highEdge = high === undefined ? to + 1n : to;
  if (lowEdge + 1n <= highEdge - 1n) starts.push(...wholes(builder, lowEdge + 1n, highEdge - 1n, fraction(false, false)));
  const exact = (whole: bigint, lowTight: boolean, highTight: boolean): Node =>
    builder.literal(String(whole), fraction(lowTight, highTight));
  if (low !== undefined && high !== undefined && from === to) starts.push(exact(from, true, true));
  else {
    if (low !== undefined && from <= to) starts.push(exact(from, true, false));
    if (high !== undefined && from <= to) starts.push(exact(to, false, true));
  }
  return builder.alternatives(starts);
}

/** What may follow a whole part that equals the whole part of `low`, of `high`, or of both. */
class Fractions {
  readonly #known = new Map<string, Node>();

  constructor(
    readonly builder: Builder,
    readonly low: Bound | undefined,
    readonly high: Bound | undefined,
    readonly most: number,
    readonly next: Node,
  ) {}

  start(): Node {
    const low = this.low !== undefined;
    const high = this.high !== undefined;
    const node = this.builder.node({ empties: this.#mayEnd(0, low, high) ? [this.next] : [] });
    const digits = this.builder.node({ edges: this.#digits(0, low, high) });
    node.edges.push({ low: 0x2e, high: 0x2e, to: digits });
    return node;
  }

  #at(place: number, low: boolean, high: boolean): Node {
    const key = `${place}${low}${high}`;
    let node = this.#known.get(key);
    if (node === undefined) {
      node = this.builder.node({ empties: this.#mayEnd(place, low, high) ? [this.next] : [] });
      this.#known.set(key, node);
      node.edges.push(...this.#digits(place, low, high));
    }
    return node;
  }

  #digits(place: number, lowTight: boolean, highTight: boolean): Node["edges"] {
    if (place >= this.most) return [];
    const least = lowTight ? digit(this.low, place) : 0;
    const most = highTight ? digit(this.high, place) : 9;
    const edges: Node["edges"] = [];
    for (let d = least; d <= most; d++) {
      const to = this.#at(place + 1, lowTight && d === least, highTight && d === most);
      edges.push({ low: 0x30 + d, high: 0x30 + d, to });
    }
    return edges;
  }

  /** Whether the digits so far are a number within the bounds. */
  #mayEnd(place: number, lowTight: boolean, highTight: boolean): boolean {
    const { low, high } = this;
    if (lowTight && low && (place < low.fraction.length || low.open)) return false;
    return !(highTight && high?.open && place >= high.fraction.length);
  }
}

function digit(bound: Bound | undefined, place: number): number {
  return Number(bound?.fraction[place] ?? "0");
}

/** Whole numbers of at least 0 within bounds: one start for each number of digits. */
function wholes(builder: Builder, from: bigint, to: bigint, next: Node): Node[] {
  const starts: Node[] = [];
  for (let length = 1; length <= MAX_DIGITS; length++) {
    const first = length === 1 ? 0n : 10n ** BigInt(length - 1);
    const last = 10n ** BigInt(length) - 1n;
    const low = from > first ? from : first;
    const high = to < last ? to : last;
    if (low <= high) starts.push(sameLength(builder, String(low), String(high), next));
  }
  return starts;
}

/** Digits between two of the same length. */
function sameLength(builder: Builder, low: string, high: string, next: Node): Node {
  if (low === "") return next;
  if (/^0+$/.test(low) && /^9+$/.test(high)) return builder.digits(low.length, low.length, next);
  const [a, b] = [Number(low[0]), Number(high[0])];
  const [lowRest, highRest] = [low.slice(1), high.slice(1)];
  const nines = "9".repeat(lowRest.length);
  const zeros = "0".repeat(lowRest.length);
  const edge = (from: number, to: number, rest: Node) => ({ low: 0x30 + from, high: 0x30 + to, to: rest });
  if (a === b) return builder.node({ edges: [edge(a, a, sameLength(builder, lowRest, highRest, next))] });
  const node = builder.node({
    edges: [edge(a, a, sameLength(builder, lowRest, nines, next)), edge(b, b, sameLength(builder, zeros, highRest, next))],
  });
  if (b - a > 1) node.edges.push(edge(a + 1, b - 1, builder.digits(lowRest.length, lowRest.length, next)));
  return node;
}
