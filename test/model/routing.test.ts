/** What tokens choose is read as a trace sees it, however texts are packed and cut. */
import { describe, expect, it } from "vitest";
import { openModel } from "../../ts/model/open.js";
import { groupTexts, routeTexts } from "../../ts/model/routing.js";
import { trace } from "../../ts/model/trace.js";
import { type ModelName, modelPath } from "../helpers/fixtures.js";
import { TEST_MODEL_OPTIONS } from "../helpers/models.js";
import { prompt } from "../helpers/runs.js";

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
  // Of the vocabularies' common part; the third is longer than the steps below.
  const texts = [prompt(7, 1), prompt(20, 2), prompt(130, 3), prompt(1, 4), prompt(33, 5)].map((ids) => ids.map((id) => id % 90));

  /** [L][tokens of all texts · K] */
  async function routed(name: ModelName, maxBatchTokens: number): Promise<number[][]> {
    const model = await openModel(modelPath(name), { ...TEST_MODEL_OPTIONS, maxBatchTokens });
    const { numLayers, topK } = model.runner.limits;
    const layers: number[][] = Array.from({ length: numLayers }, () => []);
    for await (const { rows, ids } of routeTexts(model.runner, texts))
      for (const [l, layer] of layers.entries()) layer.push(...ids.subarray(l * rows * topK, (l + 1) * rows * topK));
    await model.close();
    return layers;
  }

  it.each<ModelName>(["mini", "tiny-a", "tiny-lite-a"])("%s: those of a trace, in steps of any size", async (name) => {
    const model = await openModel(modelPath(name), TEST_MODEL_OPTIONS);
    const wanted: number[][] = Array.from({ length: model.runner.limits.numLayers }, () => []);
    for (const text of texts) for (const [l, { ids }] of (await trace(model.runner, text)).routing.entries()) wanted[l]!.push(...ids);
    await model.close();
    for (const maxBatchTokens of [512, 48, 5]) expect(await routed(name, maxBatchTokens)).toEqual(wanted);
  });
});
