/** What tokens choose is read as a trace sees it, however texts are packed and cut. */
import { describe, expect, it } from "vitest";
import { openModel } from "../../ts/model/open.js";
import { groupTexts } from "../../ts/model/routing.js";
import { type ModelName, modelPath } from "../helpers/fixtures.js";
import { TEST_MODEL_OPTIONS } from "../helpers/models.js";
import { routedPicks, tracedPicks } from "../helpers/routing.js";

describe("texts run together", () => {
  const limits = { maxBatchTokens: 10, maxSequences: 3, blockSize: 4, numBlocks: 8 };
  const lengths = (texts: number[], changes = {}) =>
    [
      ...groupTexts(
        texts.map((length) => ({ length })),
        { ...limits, ...changes },
      ),
    ].map((group) => group.map(({ length }) => length));

  it("as long as a step has rows and slots for all, and the cache blocks", () => {
    expect(lengths([4, 6, 1])).toEqual([[4, 6], [1]]);
    expect(lengths([1, 1, 1, 1])).toEqual([[1, 1, 1], [1]]);
    expect(lengths([1, 5, 1], { numBlocks: 3 })).toEqual([[1, 5], [1]]);
  });

  it("a text that is longer than a step runs alone, in its place", () => {
    expect(lengths([2, 25, 2])).toEqual([[2], [25], [2]]);
    expect(lengths([])).toEqual([]);
  });
});

describe("picks", () => {
  it.each<ModelName>(["mini", "tiny-a", "tiny-lite-a"])("%s: those of a trace, in steps of any size", async (name) => {
    const model = await openModel(modelPath(name), TEST_MODEL_OPTIONS);
    const wanted = await tracedPicks(model.runner);
    expect(await routedPicks(model.runner)).toEqual(wanted);
    await model.close();
    for (const maxBatchTokens of [48, 5]) {
      const small = await openModel(modelPath(name), { ...TEST_MODEL_OPTIONS, maxBatchTokens });
      expect(await routedPicks(small.runner)).toEqual(wanted);
      await small.close();
    }
  });
});
