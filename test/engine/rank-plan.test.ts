/** The experts' work of one rank of many, put in the router's place. */
import { expect, it } from "vitest";
import { checkShare, planShare } from "../../ts/engine/rank-plan.js";

it.each([
  { experts: 4, rowsEach: 6, rows: 8, capacity: 8, topK: 12 },
  { experts: 3, rowsEach: 5, rows: 5, capacity: 8, topK: 3 },
  { experts: 2, rowsEach: 7, rows: 3, capacity: 4, topK: 5 },
  { experts: 1, rowsEach: 1, rows: 1, capacity: 1, topK: 1 },
])("gives every expert its rows, and every entry one pick of its row: %j", ({ experts, rowsEach, rows, capacity, topK }) => {
  const { expertStart, planRow, slotPlan } = planShare({ experts, rowsEach }, { rows, capacity, topK });
  expect([...expertStart]).toEqual(Array.from({ length: experts + 1 }, (_, e) => e * rowsEach));
  expect([planRow.length, slotPlan.length]).toEqual([capacity * topK, capacity * topK]);
  const found: number[] = [];
  for (let row = 0; row < capacity; row++) {
    const picks = [...slotPlan.subarray(row * topK, (row + 1) * topK)].filter((entry) => entry >= 0);
    if (row >= rows) expect(picks).toEqual([]);
    // Ascending, as experts are in a row's picks.
    expect(picks).toEqual([...picks].sort((a, b) => a - b));
    for (const entry of picks) expect(planRow[entry]).toBe(row);
    found.push(...picks);
  }
  expect(found.sort((a, b) => a - b)).toEqual(Array.from({ length: experts * rowsEach }, (_, i) => i));
});

it("refuses more rows than the step has picks", () => {
  expect(() => checkShare({ experts: 4, rowsEach: 24 }, 8, 12)).not.toThrow();
  expect(() => checkShare({ experts: 4, rowsEach: 25 }, 8, 12)).toThrowError(
    /25 for each of 4 experts are 100 picks, 12 a row; give steps of 9 rows or more \(batch, prompt\), not of 8$/,
  );
});
