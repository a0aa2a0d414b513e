/** When a forward pass of all ranks begins, and what it is (ts/parallel/rounds.ts). */
import { describe, expect, it } from "vitest";
import type { Forward, Round } from "../../ts/model/lockstep.js";
import { LATE_MS, Rounds } from "../../ts/parallel/rounds.js";

const decode = (sequences: number, drafts = 0): Forward => ({ kind: "decode", sequences, drafts });
const prompt: Forward = { kind: "prompt", sequences: 1, drafts: 0 };

/** Rounds whose timer goes off when a test says so. */
function rounds() {
  const decided: { round: Round; withRows: number[] }[] = [];
  const timers: { ms: number; then: () => void }[] = [];
  const group = new Rounds(
    (round, withRows) => decided.push({ round, withRows: [...withRows].sort() }),
    (ms, then) => {
      const timer = { ms, then };
      timers.push(timer);
      return () => void timers.splice(timers.indexOf(timer), 1);
    },
  );
  return { group, decided, timers };
}

describe("a round", () => {
  it("begins at once for one rank whose others have nothing to do", () => {
    const { group, decided, timers } = rounds();
    group.works(1, true);
    group.want(1, decode(3));
    expect(decided).toEqual([{ round: { ...decode(3), round: 0 }, withRows: [1] }]);
    expect(timers).toEqual([]);
  });

  it("waits for all that work, and serves the largest wish of each kind", () => {
    const { group, decided } = rounds();
    for (const rank of [0, 1, 2]) group.works(rank, true);
    group.want(0, decode(3, 1));
    group.want(2, decode(1, 2));
    expect(decided).toEqual([]);
    group.want(1, decode(7));
    expect(decided).toEqual([{ round: { ...decode(7, 2), round: 0 }, withRows: [0, 1, 2] }]);
  });

  it("is a prompt's if anybody's is", () => {
    const { group, decided } = rounds();
    for (const rank of [0, 1]) group.works(rank, true);
    group.want(0, decode(3));
    group.want(1, prompt);
    expect(decided[0]?.round).toMatchObject({ kind: "prompt", sequences: 3 });
  });

  it("goes without a rank that works and is late, which has its rows in the next one", () => {
    const { group, decided, timers } = rounds();
    for (const rank of [0, 1]) group.works(rank, true);
    group.want(0, decode(1));
    expect(timers.map(({ ms }) => ms)).toEqual([LATE_MS]);
    timers[0]?.then();
    group.want(1, decode(2));
    group.want(0, decode(1));
    expect(decided.map(({ withRows }) => withRows)).toEqual([[0], [0, 1]]);
    expect(decided.map(({ round }) => round.round)).toEqual([0, 1]);
    expect(timers).toEqual([]);
  });

  it("begins when the rank that it waits for has nothing left to do", () => {
    const { group, decided, timers } = rounds();
    for (const rank of [0, 1]) group.works(rank, true);
    group.want(0, decode(1));
    group.works(1, false);
    expect(decided.map(({ withRows }) => withRows)).toEqual([[0]]);
    expect(timers).toEqual([]);
  });

  it("never begins once they are stopped", () => {
    const { group, decided, timers } = rounds();
    for (const rank of [0, 1]) group.works(rank, true);
    group.want(0, decode(1));
    group.stop();
    group.works(1, false);
    expect({ decided, timers }).toEqual({ decided: [], timers: [] });
  });
});
