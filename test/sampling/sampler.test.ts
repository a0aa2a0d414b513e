/** The generator's known answers and the draw over candidates, against a plain reading of its rules. */

import { describe, expect, it } from "vitest";
import { philox4x32, uniform, type Words4 } from "../../ts/sampling/philox.js";
import { type Candidates, candidatesOfRow, type DrawParams, drawFromCandidates } from "../../ts/sampling/sampler.js";

describe("philox4x32", () => {
  const known: [Words4, [number, number], Words4][] = [
    [
      [0, 0, 0, 0],
      [0, 0],
      [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
    ],
    [
      [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
      [0xffffffff, 0xffffffff],
      [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
    ],
    [
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      [0xa4093822, 0x299f31d0],
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ];
  it.each(known)("gives the known answer of counter %j, key %j", (counter, key, answer) => {
    expect(philox4x32(counter, key)).toEqual(answer);
  });
});

describe("uniform", () => {
  it("takes 53 bits of the first two words", () => {
    expect(uniform(0, 0)).toBe(((0x6627e8d5 >>> 5) * 2 ** 26 + (0xe169c58d >>> 6)) / 2 ** 53);
  });

  it("uses all of the seed's 53 bits, and the position", () => {
    const draws = [uniform(1, 0), uniform(2 ** 32 + 1, 0), uniform(Number.MAX_SAFE_INTEGER, 0), uniform(1, 1)];
    expect(new Set(draws).size).toBe(4);
  });

  it("is evenly spread", () => {
    const draws = Array.from({ length: 10000 }, (_, position) => uniform(42, position));
    expect(Math.min(...draws)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...draws)).toBeLessThan(1);
    expect(draws.reduce((a, b) => a + b) / draws.length).toBeCloseTo(0.5, 2);
  });
});

/** The rules of native/ops/sample/params.h over a whole vocabulary: `exps` in drawing order, the first `listed` of them candidates. */
function drawByTheRules(exps: readonly number[], listed: number, { topK, minP, topP, seed, position }: DrawParams): number {
  const candidates = Math.max(listed, Math.min(topK, exps.length));
  const tail = topK === 0 && !(exps[candidates - 1]! < minP);
  const left: number[] = [];
  exps.forEach((e, j) => {
    const out = (topK > 0 && j >= topK) || (j > 0 && e < minP) || (j >= candidates && !tail);
    if (!out) left.push(j);
  });
  const sum = (count: number): number => {
    let first = 0;
    let second = 0;
    for (const j of left.slice(0, count)) {
      if (j < candidates) first += exps[j]!;
      else second += exps[j]!;
    }
    return first + second;
  };
  const firstCount = (holds: (sum: number) => boolean): number => {
    for (let count = 1; count <= left.length; count++) if (holds(sum(count))) return count;
    return left.length;
  };
  const goal = topP * sum(left.length);
  const end = topP < 1 ? firstCount((value) => value >= goal) : left.length;
  const target = uniform(seed, position) * sum(end);
  return left[
    Math.min(
      end,
      firstCount((value) => value > target),
    ) - 1
  ]!;
}

/** The same numbers in every run. */
function randoms(seed: number): () => number {
  let position = 0;
  return () => uniform(seed, position++);
}

describe("drawFromCandidates", () => {
  const off = { topK: 0, minP: 0, topP: 1, seed: 0, position: 0 };

  it("draws each token as often as its share", () => {
    const candidates: Candidates = { ids: [7, 3, 9], exps: [1, 0.5, 0.5], tailSum: 0, tailCount: 0 };
    const counts = new Map<number | null, number>();
    for (let position = 0; position < 4000; position++) {
      const token = drawFromCandidates(candidates, { ...off, position });
      counts.set(token, (counts.get(token) ?? 0) + 1);
    }
    expect(counts.get(7)! / 4000).toBeCloseTo(0.5, 1);
    expect(counts.get(3)! / 4000).toBeCloseTo(0.25, 1);
    expect(counts.get(7)! + counts.get(3)! + counts.get(9)!).toBe(4000);
  });

  it("keeps the first whatever the filters", () => {
    const candidates: Candidates = { ids: [7, 3], exps: [1, 0.9], tailSum: 0, tailCount: 0 };
    for (let position = 0; position < 20; position++) {
      for (const filter of [{ topK: 1 }, { minP: 1 }, { topP: 1e-9 }])
        expect(drawFromCandidates(candidates, { ...off, ...filter, position })).toBe(7);
    }
  });

  it("agrees with the rules, and only gives up where the draw may lie in the tail", () => {
    const random = randoms(1);
    const pick = (values: readonly number[]): number => values[Math.floor(random() * values.length)]!;
    let inTail = 0;
    let given = 0;
    for (let run = 0; run < 3000; run++) {
      const size = 1 + Math.floor(random() * 40);
      const listed = Math.min(size, 12);
      const spread = pick([0, 1, 5, 60]);
      const sorted = Array.from({ length: size }, () => Math.exp(-spread * random())).sort((a, b) => b - a);
      const exps = sorted.map((e) => e / sorted[0]!);
      let tailSum = 0;
      for (const e of exps.slice(listed)) tailSum += e;
      const params: DrawParams = {
        topK: pick([0, 0, 1, 5, 12, 20, 1e9]),
        minP: pick([0, 0, 0.01, 0.5, 1]),
        topP: pick([1, 1, 0.9, 0.3, 1e-9]),
        seed: run,
        position: 3,
      };
      const ids = exps.map((_, j) => j).slice(0, listed);
      const token = drawFromCandidates({ ids, exps: exps.slice(0, listed), tailSum, tailCount: size - listed }, params);
      const wanted = drawByTheRules(exps, listed, params);
      if (token === null) {
        expect(size, "gave up without a tail").toBeGreaterThan(listed);
        inTail++;
      } else {
        expect(token, JSON.stringify({ exps, listed, params })).toBe(wanted);
        given++;
      }
      // Without minP, and with topK off or within the list, nothing is unknown.
      if (params.minP === 0 && params.topK <= listed && params.topP === 1) expect(token).toBe(wanted < listed ? wanted : null);
    }
    expect(given).toBeGreaterThan(1500);
    expect(inTail).toBeGreaterThan(100);
  });

  it("reads a row of the operation's outputs up to the first -1", () => {
    const row = candidatesOfRow(Int32Array.of(5, 2, -1, -1), Float64Array.of(1, 0.5, 0, 0), Float64Array.of(0.25, 3));
    expect([...Array.from(row.ids), ...Array.from(row.exps), row.tailSum, row.tailCount]).toEqual([5, 2, 1, 0.5, 0.25, 3]);
  });

  it("gives nothing where no candidate is allowed", () => {
    expect(drawFromCandidates({ ids: [], exps: [], tailSum: 0, tailCount: 0 }, off)).toBeNull();
  });
});
