/** Rows: that nothing is lost, that none is too long, and where they come from. */
import { describe, expect, it } from "vitest";
import type { EncodedDocument } from "../../../ts/train/data/encode.js";
import { Mixture } from "../../../ts/train/data/mixture.js";
import { packDocuments, packStream, type Row } from "../../../ts/train/data/pack.js";
import { drawsOf, wholeBelow } from "../../../ts/train/random.js";

const LENGTH = 10;
const random = drawsOf(1, 0);
let next = 0;
/** Documents whose tokens are all different, of 2 to 30 of them, a third of which are given. */
const documents: EncodedDocument[] = Array.from({ length: 200 }, () => {
  const count = 2 + wholeBelow(29, random);
  return { ids: Array.from({ length: count }, () => next++), learnFrom: Math.floor(count / 3) };
});

/** What rows teach: each counted target with the token before it. */
const taught = (rows: readonly Row[]) =>
  rows
    .flat()
    .flatMap(({ tokens, targets }) => tokens.map((token, i) => [token, targets[i]!] as const))
    .filter(([, target]) => target >= 0)
    .sort(([a], [b]) => a - b);
const tokensOf = (row: Row) => row.reduce((sum, { tokens }) => sum + tokens.length, 0);

describe("documents apart", () => {
  const rows = packDocuments(documents, LENGTH);

  it("each learnt token is taught once, by the one before it", () => {
    const pairs = documents.flatMap(({ ids, learnFrom }) =>
      ids.slice(1).flatMap((id, i) => (i + 1 >= learnFrom ? [[ids[i]!, id] as const] : [])),
    );
    expect(taught(rows)).toEqual(pairs.sort(([a], [b]) => a - b));
  });

  it("no row is too long, and few are not full", () => {
    const lengths = rows.map(tokensOf);
    expect(Math.max(...lengths)).toBe(LENGTH);
    expect(lengths.reduce((sum, length) => sum + length, 0)).toBeGreaterThan(0.95 * LENGTH * rows.length);
    expect(rows.some((row) => row.length > 1)).toBe(true);
  });
});

describe("one stream", () => {
  const rows = packStream(documents, LENGTH);

  it("all rows are full, and one goes on where another ended", () => {
    const texts = packStream(
      documents.map(({ ids }) => ({ ids, learnFrom: 0 })),
      LENGTH,
    );
    expect(texts.flat().flatMap(({ tokens }) => tokens)).toEqual(Array.from({ length: texts.length * LENGTH }, (_, i) => i));
    expect(texts.length).toBe(Math.floor((next - 1) / LENGTH));
  });

  it("given tokens are not taught, the first of a text is", () => {
    const given = new Set(documents.flatMap(({ ids, learnFrom }) => ids.slice(0, learnFrom)));
    const pairs = taught(rows);
    expect(pairs.every(([token, target]) => target === token + 1 && !given.has(target))).toBe(true);
    expect(
      taught(
        packStream(
          [
            { ids: [1, 2], learnFrom: 0 },
            { ids: [3, 4], learnFrom: 0 },
          ],
          3,
        ),
      ),
    ).toEqual([
      [1, 2],
      [2, 3],
      [3, 4],
    ]);
  });
});

describe("a mixture", () => {
  it("has each source's share after any number of rows, to less than a row above it", () => {
    const weights = [5, 1, 0.25];
    const mixture = new Mixture(weights);
    const taken = weights.map(() => 0);
    for (let row = 0; row < 1000; row++) {
      const { source, nth } = mixture.choice(row);
      expect(nth).toBe(taken[source]!++);
      for (const [i, count] of taken.entries()) expect(count - ((row + 1) * weights[i]!) / 6.25).toBeLessThan(1);
    }
    expect(taken).toEqual([800, 160, 40]);
  });

  it("is asked in any order", () => {
    const [one, other] = [new Mixture([2, 1]), new Mixture([2, 1])];
    const late = one.choice(50);
    expect(Array.from({ length: 51 }, (_, row) => other.choice(row)).at(-1)).toEqual(late);
  });
});
