/** When drafts pay, and the decision that follows from what is measured. */
import { describe, expect, it } from "vitest";
import { DraftPolicy } from "../../ts/engine/draft-policy.js";
import { speedup, stepLength } from "../../ts/engine/speculation.js";

describe("the formula", () => {
  it("counts the tokens of a step: one, and each draft whose predecessors were accepted", () => {
    expect(stepLength([], 0)).toBe(1);
    expect(stepLength([0.8], 1)).toBeCloseTo(1.8, 12);
    expect(stepLength([0.8, 0.5, 0.5], 3)).toBeCloseTo(1 + 0.8 + 0.4 + 0.2, 12);
    // With one share for all: (1 − α^(γ+1)) / (1 − α).
    for (const drafts of [1, 2, 3, 4]) expect(stepLength([0.9], drafts)).toBeCloseTo((1 - 0.9 ** (drafts + 1)) / (1 - 0.9), 12);
  });

  it("divides it by the cost of a step: what a draft head of 1.5 % and a verification of 10 % more give at 90 %", () => {
    expect(speedup(stepLength([0.9], 1), 1.1 + 0.015)).toBeCloseTo(1.704, 3);
    expect(speedup(1, 1)).toBe(1);
  });
});

/** A machine: what a step takes, and how often a draft is accepted. */
interface Machine {
  stepMs(batch: number, drafts: number): number;
  share: number;
}

/** Runs steps as an engine does, two under way: a decision is told of a time two steps later. */
function run(policy: DraftPolicy, { stepMs, share }: Machine, batch: number, steps: number): number[] {
  const used: number[] = [];
  const underWay: number[] = [];
  let draw = 0.5;
  for (let step = 0; step < steps; step++) {
    underWay.push(policy.drafts(batch));
    if (underWay.length < 2) continue;
    const drafts = underWay.shift() as number;
    used.push(drafts);
    for (let sequence = 0; sequence < batch; sequence++) {
      let accepted = 0;
      while (accepted < drafts && (draw = (draw + 0.618034) % 1) < share) accepted++;
      policy.count(drafts, accepted);
    }
    policy.timed(batch, drafts, stepMs(batch, drafts));
  }
  return used;
}

const share = (used: readonly number[], drafts: number) => used.filter((one) => one === drafts).length / used.length;

describe("the policy", () => {
  it("keeps to a number that was demanded, and to none where there can be none", () => {
    const machine: Machine = { stepMs: (_, drafts) => 1 + 10 * drafts, share: 0 };
    expect(new Set(run(new DraftPolicy(3, false), machine, 4, 1000))).toEqual(new Set([3]));
    expect(new Set(run(new DraftPolicy(0, false), machine, 4, 1000))).toEqual(new Set([0]));
    expect(new Set(run(new DraftPolicy(0, true), machine, 4, 1000))).toEqual(new Set([0]));
  });

  it("drafts where that pays and stops where it does not, trials apart", () => {
    // A step costs as its rows once there are more than eight of them.
    const machine: Machine = { stepMs: (batch, drafts) => Math.max(8, batch * (1 + drafts)) + 0.3 * drafts, share: 0.85 };
    const policy = new DraftPolicy(1, true);
    expect(share(run(policy, machine, 1, 2000), 1)).toBeGreaterThan(0.95);
    expect(share(run(policy, machine, 64, 2000), 0)).toBeGreaterThan(0.95);
    expect(share(run(policy, machine, 1, 2000), 1)).toBeGreaterThan(0.95);
    expect(policy.stats).toMatchObject({ drafts: 1 });
    expect(policy.stats.speedup).toBeGreaterThan(1.6);
  });

  it("goes on to more drafts as long as each pays", () => {
    const machine: Machine = { stepMs: (_, drafts) => 10 + 0.5 * drafts, share: 0.9 };
    const policy = new DraftPolicy(4, true);
    expect(share(run(policy, machine, 1, 3000), 4)).toBeGreaterThan(0.9);
    const dear: Machine = { stepMs: (_, drafts) => 10 + 5.5 * drafts, share: 0.7 };
    expect(share(run(new DraftPolicy(4, true), dear, 1, 3000), 1)).toBeGreaterThan(0.9);
  });

  it("changes its mind when drafts are no longer accepted, and again when they are", () => {
    const policy = new DraftPolicy(2, true);
    const stepMs = (_: number, drafts: number) => 10 + 3 * drafts;
    expect(share(run(policy, { stepMs, share: 0.9 }, 1, 2000).slice(-500), 0)).toBeLessThan(0.1);
    expect(share(run(policy, { stepMs, share: 0.1 }, 1, 4000).slice(-500), 0)).toBeGreaterThan(0.9);
    expect(share(run(policy, { stepMs, share: 0.9 }, 1, 60_000).slice(-500), 0)).toBeLessThan(0.1);
  });

  it("is not misled by what else the machine does: a third of the steps takes up to four times as long", () => {
    let noise = 0.3;
    const next = () => (noise = (noise + 0.618034) % 1);
    const stepMs = (_: number, drafts: number) => (10 + 5 * drafts) * (next() < 0.33 ? 1 + 3 * next() : 1);
    const used = run(new DraftPolicy(1, true), { stepMs, share: 0.85 }, 1, 5000);
    expect(share(used, 1)).toBeGreaterThan(0.9);
    const dear = (_: number, drafts: number) => (10 + 12 * drafts) * (next() < 0.33 ? 1 + 3 * next() : 1);
    expect(share(run(new DraftPolicy(1, true), { stepMs: dear, share: 0.85 }, 64, 5000), 0)).toBeGreaterThan(0.9);
  });

  it("does not go to and fro where it makes no difference, whatever the noise", () => {
    let noise = 0.3;
    const stepMs = (_: number, drafts: number) => (10 + 8 * drafts) * (1 + 0.2 * ((noise = (noise + 0.618034) % 1) - 0.5));
    const used = run(new DraftPolicy(1, true), { stepMs, share: 0.8 }, 8, 10_000);
    const changes = used.filter((drafts, i) => i > 0 && drafts !== used[i - 1]).length;
    expect(changes).toBeLessThan(100);
  });

  it("counts drafts by their place in a step", () => {
    const policy = new DraftPolicy(2, false);
    for (const accepted of [0, 1, 2, 2]) policy.count(2, accepted);
    policy.count(0, 0);
    expect(policy.stats).toMatchObject({ drafts: 2, draftedSteps: 4, draftTokens: 8, acceptedTokens: 5, acceptedByPlace: [3, 2] });
    expect(policy.stats.stepLength).toBeCloseTo(1 + 3 / 4 + 2 / 4, 12);
  });
});
