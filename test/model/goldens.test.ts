/**
 * The model against an independent float32 implementation: hidden states, routing, logits, draft head, greedy tokens.
 */
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type OpenedModel, openModel } from "../../ts/model/open.js";
import { quantizeCheckpoint } from "../../ts/model/quantize.js";
import { modelPath, ROOT, temporaryFolder } from "../helpers/fixtures.js";
import { comparable, goldenCases, greedy, worstDistance } from "../helpers/goldens.js";
import { TEST_MODEL_OPTIONS } from "../helpers/models.js";

const fixtures = (name: string) => join(ROOT, "test/fixtures", name);

const models = [
  { name: "mini", open: async () => modelPath("mini"), draft: true },
  {
    name: "mini-fp8",
    // The recording is of the dequantised weights; the copy is made here, by our own quantiser.
    open: async () => {
      const dir = join(temporaryFolder(), "mini-fp8");
      await quantizeCheckpoint(modelPath("mini"), dir);
      return dir;
    },
    draft: true,
  },
  { name: "tiny-a", open: async () => modelPath("tiny-a"), draft: false },
  { name: "tiny-lite-a", open: async () => modelPath("tiny-lite-a"), draft: false },
];

describe.each(models)("$name", ({ name, open, draft }) => {
  let model: OpenedModel;
  beforeAll(async () => {
    model = await openModel(await open(), { ...TEST_MODEL_OPTIONS, maxDrafts: 1 });
  });
  afterAll(async () => {
    await model.close();
  });

  it("has the recorded hidden states, routing and logits", async () => {
    const d = await worstDistance(model.runner, fixtures(name));
    console.log(`${name}: ${JSON.stringify(d)}`);
    expect(d.wrongRoutings, "routings that differ beyond a tie").toBe(0);
    expect(d.compared, "positions before the first tie that fell otherwise").toBeGreaterThan(d.positions / 2);
    // docs/numerics.md, 6: float32 sums in another order
    expect(d.maxLogit).toBeLessThan(1e-3);
    expect(d.maxHiddenRelative).toBeLessThan(1e-5);
    expect(d.maxWeight).toBeLessThan(1e-4);
    if (draft) {
      expect(d.maxDraftLogit).toBeLessThan(1e-3);
      expect(d.maxDraftLogit).toBeGreaterThan(0);
    }
  });

  it("continues every recorded prompt greedily as recorded, up to the first near tie", async () => {
    for (const [c, golden] of goldenCases(fixtures(name)).entries()) {
      const count = comparable(golden);
      const results = await greedy(model.runner, golden.prompt_ids, count);
      expect(
        results.flatMap(({ drawn }) => drawn.map(({ token }) => token)),
        `case ${c}`,
      ).toEqual(golden.greedy_ids.slice(0, count));
    }
  });
});
