/**
 * Characters: sets of code points, their UTF-8, and how a JSON string writes them.
 * @module
 */
import type { Builder, Edge, Node } from "./node.js";

/** Code points from `low` to `high`. */
export interface Range {
  low: number;
  high: number;
}

export const LAST_CODE_POINT = 0x10ffff;
const SURROGATES: Range = { low: 0xd800, high: 0xdfff };
/** What a JSON string may not hold as it is: control characters, the quote, the backslash. */
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const SHORT_ESCAPES: readonly (readonly [number, string])[] = [
  [QUOTE, '"'],
  [BACKSLASH, "\\"],
  [0x08, "b"],
  [0x09, "t"],
  [0x0a, "n"],
  [0x0c, "f"],
  [0x0d, "r"],
];

/** Sorted, without overlaps. */
export function union(ranges: readonly Range[]): Range[] {
  const sorted = [...ranges].sort((a, b) => a.low - b.low);
  const merged: Range[] = [];
  for (const { low, high } of sorted) {
    const last = merged.at(-1);
    if (last !== undefined && low <= last.high + 1) last.high = Math.max(last.high, high);
    else merged.push({ low, high });
  }
  return merged;
}

/** All code points that are in none of the ranges. */
export function complement(ranges: readonly Range[]): Range[] {
  const out: Range[] = [];
  let low = 0;
  for (const range of union(ranges)) {
    if (range.low > low) out.push({ low, high: range.low - 1 });
    low = range.high + 1;
  }
  if (low <= LAST_CODE_POINT) out.push({ low, high: LAST_CODE_POINT });
  return out;
}

/** Of sorted ranges without overlaps. */
export function intersection(a: readonly Range[], b: readonly Range[]): Range[] {
  const out: Range[] = [];
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    const [x, y] = [a[i] as Range, b[j] as Range];
    const low = Math.max(x.low, y.low);
    const high = Math.min(x.high, y.high);
    if (low <= high) out.push({ low, high });
    if (x.high < y.high) i++;
    else j++;
  }
  return out;
}

/** What a JSON string holds as it is. */
export const PLAIN: readonly Range[] = complement([
  { low: 0, high: 0x1f },
  { low: QUOTE, high: QUOTE },
  { low: BACKSLASH, high: BACKSLASH },
  SURROGATES,
]);

const SCALARS: readonly Range[] = complement([SURROGATES]);

/** Edges for the UTF-8 of some code points (sorted ranges), from one node to `next`. */
export function utf8Edges(builder: Builder, ranges: readonly Range[], next: Node): Edge[] {
  const edges: Edge[] = [];
  const lengths = [
    { low: 0, high: 0x7f, more: 0, lead: 0 },
    { low: 0x80, high: 0x7ff, more: 1, lead: 0xc0 },
    { low: 0x800, high: 0xffff, more: 2, lead: 0xe0 },
    { low: 0x10000, high: LAST_CODE_POINT, more: 3, lead: 0xf0 },
  ];
  const tails: Node[] = [next];
  const tail = (count: number): Node => (tails[count] ??= builder.symbols(0x80, 0xbf, tail(count - 1)));
  /** Ranges of the last 6·more bits under a leading byte of `prefix`. */
  const add = (to: Edge[], low: number, high: number, more: number, lead: number): void => {
    const size = 64 ** more;
    for (let at = low; at <= high; ) {
      const first = Math.floor(at / size);
      const whole = at % size === 0 && high >= at + size - 1;
      const last = whole ? Math.floor((high + 1) / size) - 1 : first;
      const end = Math.min(high, (last + 1) * size - 1);
      if (whole) to.push({ low: lead + first, high: lead + last, to: tail(more) });
      else {
        const inner = builder.node();
        add(inner.edges, at - first * size, end - first * size, more - 1, 0x80);
        to.push({ low: lead + first, high: lead + first, to: inner });
      }
      at = end + 1;
    }
  };
  for (const { low, high } of intersection(ranges, SCALARS))
    for (const length of lengths) {
      const from = Math.max(low, length.low);
      const until = Math.min(high, length.high);
      if (from <= until) add(edges, from, until, length.more, length.lead);
    }
  return edges;
}

/** One character of some (sorted ranges), as a JSON string writes it: as it is where it may be, else by its short escape. */
export function stringCharacter(builder: Builder, ranges: readonly Range[], next: Node): Node {
  const node = builder.node({ edges: utf8Edges(builder, intersection(ranges, PLAIN), next) });
  const has = (point: number): boolean => ranges.some(({ low, high }) => low <= point && point <= high);
  const escapes = SHORT_ESCAPES.filter(([point]) => has(point)).map(([, letter]) => letter);
  if (escapes.length > 0) node.edges.push({ low: BACKSLASH, high: BACKSLASH, to: builder.oneOf(escapes.join(""), next) });
  return node;
}

/** Any one character of a JSON string, in any of its spellings; halves of surrogate pairs only in pairs. */
export function anyCharacter(builder: Builder, next: Node): Node {
  const hex = (to: Node): Node => builder.oneOf("0123456789abcdefABCDEF", to);
  const low = builder.literal("\\u", builder.oneOf("dD", builder.oneOf("cdefCDEF", hex(hex(next)))));
  const unicode = builder.alternatives([
    builder.oneOf("0123456789abcefABCEF", hex(hex(hex(next)))),
    builder.oneOf("dD", builder.alternatives([builder.oneOf("01234567", hex(hex(next))), builder.oneOf("89abAB", hex(hex(low)))])),
  ]);
  const escaped = builder.node({ edges: [{ low: 0x75, high: 0x75, to: unicode }] });
  escaped.empties.push(builder.oneOf('"\\/bfnrt', next));
  const start = builder.node({ edges: utf8Edges(builder, PLAIN, next) });
  start.edges.push({ low: BACKSLASH, high: BACKSLASH, to: escaped });
  return start;
}
