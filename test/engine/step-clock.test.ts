/** What steps take, and the device's idle time between them. */
import { describe, expect, it } from "vitest";
import { StepClock } from "../../ts/engine/step-clock.js";

describe("the clock of steps", () => {
  it("counts a step from its launch, or from the end of the one before it; the time between is the device's idle time", () => {
    const clock = new StepClock();
    expect(clock.over(100, 110)).toBe(10);
    expect(clock.over(105, 118)).toBe(8); // launched while the first ran
    expect(clock.over(120, 130)).toBe(10); // 2 ms too late
    expect(clock.seconds).toEqual({ busy: 0.028, idle: 0.002 });
  });

  it("does not count the time in which there is no work", () => {
    const clock = new StepClock();
    clock.over(0, 10);
    clock.rest();
    clock.over(1000, 1010);
    expect(clock.seconds).toEqual({ busy: 0.02, idle: 0 });
  });

  it("has as many steps launched ahead as last while the host deals with one", () => {
    const clock = new StepClock();
    const run = (steps: number, stepMs: number, lagMs: (i: number) => number) => {
      clock.rest();
      for (let i = 0; i < steps; i++) {
        clock.over(stepMs * i, stepMs * (i + 1));
        clock.lagged(lagMs(i));
      }
      return clock.stepsAhead;
    };
    expect(run(10, 1, () => 5)).toBe(1); // nothing is known yet
    expect(run(500, 1, () => 0.2)).toBe(1);
    expect(run(500, 1, (i) => (i % 10 === 0 ? 1.7 : 0.2))).toBe(2); // one hiccup in ten
    expect(run(500, 0.1, () => 0.5)).toBe(3);
    expect(run(500, 20, () => 0.5)).toBe(1);
  });

  it("lets others pass guided sequences where the host's time between steps costs more than half of these sequences' tokens", () => {
    const clock = new StepClock();
    expect(clock.othersGoOn(1, 8)).toBe(false); // nothing is known yet
    for (let i = 0; i < 200; i++) clock.over(12 * i + 2, 12 * i + 12); // steps of 10 ms, 2 ms of the host between them
    // In turns 8 − G/2 tokens in 10 ms, else 8 in 12: better below G = 8/3.
    expect([1, 2, 3, 8].map((guided) => clock.othersGoOn(guided, 8))).toEqual([true, true, false, false]);
  });
});
