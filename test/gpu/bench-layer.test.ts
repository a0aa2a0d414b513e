/** `longcat bench layer` on a GPU: every operation and the whole are timed, and one rank of many has the rows that were asked for. */
import assert from "node:assert/strict";
import { it } from "node:test";
import { benchLayer, type LayerFacts, type LayerPlan, type LayerResult } from "../../ts/engine/bench-layer.js";
import { LAYER_OPERATIONS } from "../../ts/model/layer-cost.js";
import { describeOnGpu } from "./gpu.js";

/** Runs it over mini's sizes. */
async function layerOf(plan: Partial<LayerPlan>): Promise<{ facts: LayerFacts; results: LayerResult[] }> {
  let facts: LayerFacts | undefined;
  const results: LayerResult[] = [];
  const sizes = {
    shape: "mini",
    dtype: "bfloat16",
    layers: 2,
    batches: [2, 5],
    context: 20,
    queries: 1,
    prompts: [9],
    samples: 1,
  } as const;
  await benchLayer(
    { ...sizes, device: "cuda", threads: "auto", ...plan },
    {
      loaded: (loaded) => {
        facts = loaded;
      },
      measured: async (result) => {
        results.push(result);
      },
    },
  );
  assert.deepEqual(
    results.map(({ rows }) => rows),
    [2, 5, 9],
  );
  for (const { operations, serialUs, overlapUs } of results) {
    assert.equal(operations.length, LAYER_OPERATIONS.length);
    for (const { op, us } of operations) assert.ok(us > 0, `${op}: ${us} µs`);
    assert.ok(serialUs > 0 && overlapUs > 0);
  }
  return { facts: facts!, results };
}

describeOnGpu("bench layer", () => {
  for (const dtype of ["bfloat16", "fp8", "float32"] as const)
    for (const cacheDType of ["auto", "fp8"] as const)
      it(`measures a layer of ${dtype} matrices, ${cacheDType} latents`, async () => {
        const { facts, results } = await layerOf({ dtype, cacheDType });
        assert.deepEqual([facts.dtype, facts.cacheDType === "fp8"], [dtype, cacheDType === "fp8"]);
        for (const { ffnExpertsPerToken } of results) assert.ok(ffnExpertsPerToken > 0 && ffnExpertsPerToken <= 6);
      });

  it("measures a layer as one rank of many: as many rows for each of the held experts as asked for", async () => {
    const { facts, results } = await layerOf({ expertsHeld: 3, expertRows: 4 });
    assert.deepEqual([facts.expertsHeld, facts.expertRows, facts.experts], [3, 4, 24]);
    for (const { rows, ffnExpertsPerToken, distinctExperts } of results)
      assert.deepEqual([ffnExpertsPerToken, distinctExperts], [12 / rows, 3]);
  });
});
