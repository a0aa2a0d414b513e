/** What a number may not depend on, on a GPU: recording, batch, chunks, mixed steps, place, poison, launches in flight. Bits, not tolerances. */
import assert from "node:assert/strict";
import { it } from "node:test";
import type { Runner } from "../../ts/model/runner.js";
import type { StepResult } from "../../ts/model/runner-types.js";
import { greedy, takeSlot } from "../helpers/goldens.js";
import { SAME_BITS, STEPS } from "../helpers/invariance.js";
import { bits, prompt } from "../helpers/runs.js";
import { describeOnGpu, models, quantizedMini } from "./gpu.js";

const MODELS = ["mini", "mini-fp8", "tiny-a", "tiny-lite-a"] as const;
const CACHES = ["auto", "fp8"] as const;

for (const [name, cacheDType] of MODELS.flatMap((model) => CACHES.map((cache) => [model, cache] as const)))
  describeOnGpu(`${name}, ${cacheDType} latents, gives the same bits`, () => {
    const { open } = models();
    const fp8 = quantizedMini();
    const runnerOf = async (options: Parameters<typeof open>[1] = {}) =>
      (await open(name === "mini-fp8" ? { dir: await fp8() } : name, { cacheDType, ...options })).runner;
    let opened: Promise<Runner> | undefined;
    const shared = () => (opened ??= runnerOf());

    it("eagerly and replayed, scratch poisoned between", async () => {
      const runner = await runnerOf();
      const eager = bits(await greedy(runner, prompt(33, 4), 2, { logprobs: 5 }));
      assert.equal(runner.recordedGraphs, 1);
      runner.poisonScratch();
      assert.deepEqual(bits(await greedy(runner, prompt(33, 4), 2, { logprobs: 5 })), eager);
    });

    for (const [where, check] of Object.entries(SAME_BITS)) it(where, async () => check(await shared()));

    it("with every output poisoned before it is written, and with each operation awaited", async () => {
      const clean = await shared();
      for (const debug of ["poison", "sync"] as const) {
        const other = await runnerOf({ debug });
        for (const length of [1, 16, 129]) {
          const want = bits(await greedy(clean, prompt(length, 3), STEPS, { logprobs: 5 }));
          assert.deepEqual(bits(await greedy(other, prompt(length, 3), STEPS, { logprobs: 5 })), want, `${debug}, length ${length}`);
        }
      }
    });

    it("with steps launched before the results of those before are there", async () => {
      const runner = await shared();
      const tokens = prompt(20, 5);
      const awaited = bits(await greedy(runner, tokens, STEPS, { logprobs: 5 }));
      takeSlot(runner, 0, 0, tokens.length + STEPS, 5);
      await runner.room();
      const launched = [runner.launch([{ slot: 0, position: 0, tokens, sample: true }])];
      for (let step = 1; step < STEPS; step++) {
        await runner.room();
        launched.push(runner.launch([{ slot: 0, position: tokens.length + step - 1, tokens: null, sample: true }]));
      }
      const results: StepResult[] = (await Promise.all(launched)).flat();
      assert.deepEqual(bits(results), awaited);
    });
  });

describeOnGpu("n-gram tables", () => {
  const { open } = models();

  it("in host memory and on the GPU give the same bits", async () => {
    const results = [];
    for (const ngram of ["host", "device", "auto"] as const) {
      const model = await open("tiny-lite-a", { ngram });
      assert.equal(model.ngram, ngram === "auto" ? "device" : ngram);
      results.push(bits(await greedy(model.runner, prompt(65, 6), STEPS, { logprobs: 5 })));
    }
    assert.deepEqual(results[1], results[0]);
    assert.deepEqual(results[2], results[0]);
  });
});
