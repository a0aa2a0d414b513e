/** Decode speed through the engine, of the steps that have all rows. */
import { expect, it } from "vitest";
import { leadSteps, SteadyMeter } from "../../ts/engine/steady-decode.js";

/** Gives each row of `steps[i]` its token at `i` · 10 ms, a microsecond after the row before; a negative row ends with it. */
function measure(rows: number, steps: readonly (readonly number[])[]): number | undefined {
  let ms = 0;
  const meter = new SteadyMeter(rows, () => ms);
  for (const [i, step] of steps.entries())
    for (const [at, row] of step.entries()) {
      ms = 10 * i + at / 1000;
      const index = row < 0 ? -row - 1 : row;
      meter.onChunk({ index, text: "", tokens: [7], ...(row < 0 && { finishReason: "length" as const }) });
    }
  return meter.tokensPerSecond;
}

const END = (row: number) => -row - 1;

it.each([
  ["one row", 1, [[0], [0], [0], [END(0)]], 100],
  [
    "rows that start and end together",
    2,
    [
      [0, 1],
      [0, 1],
      [END(0), END(1)],
    ],
    200,
  ],
  // Slow while row 2's prompt runs; fast, but of one row, behind the end of the others.
  ["rows that start apart", 3, [[0], [0, 1], [], [0, 1], [0, 1, 2], [0, 1, 2], [0, 1, 2], [END(0), 1, 2], [END(1), 2], [2], [END(2)]], 300],
])("counts the steps of %s", (_, rows, steps, wanted) => {
  expect(measure(rows, steps)).toBeCloseTo(wanted, 0);
});

it("knows no speed where rows were never all there", () => {
  expect(measure(2, [[0], [END(0)], [1], [END(1)]])).toBeUndefined();
  expect(measure(1, [[END(0)]])).toBeUndefined();
});

it("needs tokens for the steps of later prompts", () => {
  expect(leadSteps(1, 10_000, 4096)).toBe(0);
  expect(leadSteps(16, 32, 4096)).toBe(0);
  expect(leadSteps(64, 4096, 4096)).toBe(64);
  expect(leadSteps(3, 10, 2)).toBe(20);
});
