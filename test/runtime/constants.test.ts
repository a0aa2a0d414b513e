/** Numbers that stand in TypeScript and in the operations are the same. */
import { expect, it } from "vitest";
import { SPLIT_KEYS } from "../../ts/model/program.js";
import { loadAddon } from "../../ts/runtime/addon.js";

it("keys of a split of decode attention, by which TypeScript counts splits and step_plan lists them", () => {
  expect(loadAddon().splitKeys).toBe(SPLIT_KEYS);
});
