/** Which rank gets a call: room first, then the least to do, what its prefix cache saves counted in. */
import { describe, expect, it } from "vitest";
import { type Load, type RankCapacity, Router } from "../../ts/parallel/router.js";

const CAPACITY: RankCapacity = { maxSequences: 4, maxBatchTokens: 64, blockSize: 4, numBlocks: 64 };

const ranks = (count: number, capacity: Partial<RankCapacity> = {}) =>
  new Router(
    Array.from({ length: count }, () => ({ ...CAPACITY, ...capacity })),
    true,
  );
/** A prompt of `length` tokens that begins like no other of another `kind`. */
const prompt = (kind: number, length: number): number[] => Array.from({ length }, (_, i) => 1000 * kind + i);
const call = (tokens: readonly number[], sequences = 1): Load => ({ prompt: tokens, sequences, reuses: true });

describe("the router", () => {
  it("spreads calls that come at once", () => {
    const router = ranks(4);
    expect([1, 2, 3, 4, 5, 6, 7, 8].map((kind) => router.place(call(prompt(kind, 10))).rank)).toEqual([0, 1, 2, 3, 0, 1, 2, 3]);
  });

  it("counts choices, which stay together, as that many sequences", () => {
    const router = ranks(2);
    expect(router.place(call(prompt(1, 4), 3)).rank).toBe(0);
    expect([2, 3, 4].map((kind) => router.place(call(prompt(kind, 4))).rank)).toEqual([1, 1, 1]);
  });

  it("prefers the rank with fewer prompt tokens in front, until those have run", () => {
    const router = ranks(2);
    const long = router.place(call(prompt(1, 60)));
    expect(long.rank).toBe(0);
    expect(router.place(call(prompt(2, 8))).rank).toBe(1);
    expect(router.place(call(prompt(3, 8))).rank).toBe(1);
    long.generated(1); // its prompt has run: rank 0 has one sequence, rank 1 two
    expect(router.place(call(prompt(4, 8))).rank).toBe(0);
  });

  it("weighs what sequences have generated, which fills the cache", () => {
    const router = ranks(2);
    const [first, second] = [router.place(call(prompt(1, 8))), router.place(call(prompt(2, 8)))];
    first.generated(100);
    second.generated(1);
    expect([first.rank, second.rank, router.place(call(prompt(3, 8))).rank]).toEqual([0, 1, 1]);
  });

  it("forgets calls that have ended", () => {
    const router = ranks(2);
    const first = router.place(call(prompt(1, 60)));
    router.place(call(prompt(2, 8)));
    first.release();
    expect(router.place(call(prompt(3, 8))).rank).toBe(0);
  });

  it("gives idle ranks of one load turns, so that all caches are used", () => {
    const router = ranks(3);
    const alone = (kind: number) => {
      const placement = router.place(call(prompt(kind, 12)));
      placement.generated(3);
      placement.release();
      return placement.rank;
    };
    expect([1, 2, 3, 4, 5, 6].map(alone)).toEqual([0, 1, 2, 0, 1, 2]);
  });

  it("sends a prompt to where its beginning has run", () => {
    const router = ranks(3);
    const system = prompt(7, 32);
    const places = [1, 2].map((kind) => router.place(call(prompt(kind, 40))));
    const first = router.place(call([...system, 1]));
    expect(first.rank).toBe(2);
    for (const placement of [...places, first]) placement.release();
    for (const question of [2, 3, 4]) {
      const placement = router.place(call([...system, question]));
      expect(placement.rank).toBe(2);
      placement.release();
    }
  });

  it("but not where all places are taken, as long as there are others", () => {
    const router = ranks(2);
    const system = prompt(7, 32);
    router.place(call([...system, 1])).generated(1);
    const others = [2, 3].map((kind) => router.place(call(prompt(kind, 1), 3)));
    for (const placement of others) placement.generated(1);
    expect(others.map(({ rank }) => rank)).toEqual([1, 0]);
    expect(router.place(call([...system, 2])).rank).toBe(1);
  });

  it("nor where it has more to do than the beginning saves", () => {
    const router = ranks(2);
    const system = prompt(7, 32);
    router.place(call([...system, 1])).generated(1);
    const others = [2, 3, 4].map((kind) => router.place(call(prompt(kind, kind === 3 ? 60 : 2))));
    expect(others.map(({ rank }) => rank)).toEqual([1, 0, 1]);
    expect(router.place(call([...system, 2])).rank).toBe(1);
  });

  it("looks for no beginning of what has to be run whole, or without prefix caches", () => {
    const system = prompt(7, 32);
    const warm = (router: Router) => {
      router.place(call([...system, 1])).release();
      router.place(call(prompt(1, 40))).release();
      return router;
    };
    // Rank 0 has the beginning and was given less.
    expect(warm(ranks(2)).place(call([...system, 2])).rank).toBe(0);
    const scored = warm(ranks(2));
    scored.place(call(prompt(2, 9))).release(); // to rank 0, which now was given more
    expect(scored.place({ ...call([...system, 2]), reuses: false }).rank).toBe(1);
    const off = new Router([CAPACITY, CAPACITY], false);
    warm(off)
      .place(call(prompt(2, 9)))
      .release();
    expect(off.place(call([...system, 2])).rank).toBe(1);
  });

  it("remembers as many blocks as a rank has, ends of texts before their beginnings", () => {
    const router = ranks(2, { numBlocks: 8 });
    const [a, b] = [prompt(1, 24), prompt(2, 24)];
    router.place(call(a)).release(); // rank 0: six blocks
    router.place(call(prompt(9, 30))).release(); // rank 1
    router.place(call(b)).release(); // rank 0: six more, of which eight are left, four of the first text's forgotten
    expect(router.place(call([...a.slice(0, 8), 5])).rank).toBe(0);
  });

  it("finds the beginnings of long prompts too, in pieces", () => {
    const large = { numBlocks: 100_000, maxBatchTokens: 4096 };
    const router = ranks(2, large);
    const document = prompt(1, 5000);
    router.place(call(document)).release();
    router.place(call(prompt(2, 9000))).release(); // rank 1, which has now been given more
    router.place(call(prompt(3, 9000))).release(); // rank 0, and more again
    expect(router.place(call([...document.slice(0, 4000), 1, 2, 3])).rank).toBe(0);
    expect(router.place(call(prompt(4, 4003))).rank).toBe(1);
  });

  it("takes ranks of different sizes as they are", () => {
    const router = new Router([CAPACITY, { ...CAPACITY, maxSequences: 12, numBlocks: 192 }], true);
    const places = Array.from({ length: 16 }, (_, kind) => router.place(call(prompt(kind, 4))));
    for (const placement of places) placement.generated(1);
    const counts = [0, 1].map((rank) => places.filter((placement) => placement.rank === rank).length);
    expect(counts[1]).toBeGreaterThan(counts[0] as number);
  });
});
