/** The model on a GPU against an independent float32 implementation (docs/numerics.md, 6). */
import assert from "node:assert/strict";
import { join } from "node:path";
import { it } from "node:test";
import type { Runner } from "../../ts/model/runner.js";
import { comparable, goldenCases, greedy, logitNoise, worstDistance } from "../helpers/goldens.js";
import { ROOT } from "../helpers/paths.js";
import { describeOnGpu, models, quantizedMini } from "./gpu.js";

const fixtures = (name: string) => join(ROOT, "test/fixtures", name);

/** Greedy continuations, as recorded up to the first margin under `bound`. */
async function continues(runner: Runner, name: string, bound: number): Promise<void> {
  let compared = 0;
  for (const [c, golden] of goldenCases(fixtures(name)).entries()) {
    const count = comparable(golden, bound);
    if (count === 0) continue; // its first margin is under the bound
    compared += count;
    const results = await greedy(runner, golden.prompt_ids, count);
    assert.deepEqual(
      results.flatMap(({ drawn }) => drawn.map(({ token }) => token)),
      golden.greedy_ids.slice(0, count),
      `${name}, case ${c}`,
    );
  }
  assert.ok(compared > 0, `${name}: no recorded token has a margin of ${bound}`);
}

describeOnGpu("float32", () => {
  const { open } = models();

  for (const [name, dtype] of [["tiny-a"], ["tiny-lite-a"], ["mini", "float32"]] as const)
    it(`${name} has the recorded hidden states, routing, logits and tokens, as exactly as on the CPU`, async () => {
      const { runner } = await open(name, { dtype: dtype ?? "auto", maxDrafts: 1 });
      assert.equal(runner.activationDType, "float32");
      const d = await worstDistance(runner, fixtures(name));
      console.log(`${name}: ${JSON.stringify(d)}`);
      assert.equal(d.wrongRoutings, 0);
      assert.ok(d.compared > d.positions / 2);
      assert.ok(d.maxLogit < 1e-3, `logits: ${d.maxLogit}`);
      assert.ok(d.maxHiddenRelative < 1e-5, `hidden states: ${d.maxHiddenRelative}`);
      assert.ok(d.maxWeight < 1e-4, `gates: ${d.maxWeight}`);
      assert.ok(d.maxDraftLogit < 1e-3, `draft head: ${d.maxDraftLogit}`);
      await continues(runner, name, 1e-3);
    });
});

describeOnGpu("packed latents", () => {
  const { open } = models();

  for (const [name, dtype] of [["tiny-a"], ["tiny-lite-a"], ["mini", "float32"]] as const)
    it(`${name} stays as near the recorded float32 numbers as on the CPU`, async () => {
      const { runner } = await open(name, { dtype: dtype ?? "auto", cacheDType: "fp8" });
      const d = await worstDistance(runner, fixtures(name));
      console.log(`${name}: ${JSON.stringify(d)}`);
      assert.ok(d.maxLogit > 1e-4 && d.maxLogit < 1, `logits: ${d.maxLogit}`);
    });
});

describeOnGpu("bfloat16 activations", () => {
  const { open } = models();
  const fp8 = quantizedMini();
  const cases = [
    { name: "mini", dir: async () => "mini" as const },
    { name: "mini-fp8", dir: async () => ({ dir: await fp8() }) },
  ];

  for (const { name, dir } of cases)
    it(`${name} is no further from the float32 goldens than HF transformers in bfloat16 is`, async () => {
      const { runner } = await open(await dir());
      assert.equal(runner.activationDType, "bfloat16");
      const { positions, max, mean } = await logitNoise(runner, fixtures(name));
      console.log(`${name}: ${positions} positions, logits off by at most ${max}, ${mean} on average`);
      assert.ok(positions >= 20);
      assert.ok(max > 0 && max <= 0.6, `at most ${max}`);
      assert.ok(mean <= 0.037, `on average ${mean}`);
      await continues(runner, name, 0.05);
    });
});
