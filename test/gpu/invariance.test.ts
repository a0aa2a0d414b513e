/** What a number may not depend on, on a GPU: recording, batch, chunks, place, poison, launches in flight. Bits, not tolerances. */
import assert from "node:assert/strict";
import { it } from "node:test";
import type { StepResult } from "../../ts/model/runner-types.js";
import { greedy, takeSlot } from "../helpers/goldens.js";
import { batch, bits, prompt } from "../helpers/runs.js";
import { describeOnGpu, models, quantizedMini } from "./gpu.js";

const STEPS = 12;
const LENGTHS = [1, 13, 15, 16, 17, 63, 64, 65, 129];

for (const name of ["mini", "mini-fp8", "tiny-a", "tiny-lite-a"] as const)
  describeOnGpu(`${name} gives the same bits`, () => {
    const { open } = models();
    const fp8 = quantizedMini();
    const runnerOf = async (options: Parameters<typeof open>[1] = {}) =>
      (await open(name === "mini-fp8" ? { dir: await fp8() } : name, options)).runner;

    it("eagerly and replayed, scratch poisoned between", async () => {
      const runner = await runnerOf();
      const eager = bits(await greedy(runner, prompt(33, 4), 2, { logprobs: 5 }));
      assert.equal(runner.recordedGraphs, 1);
      runner.poisonScratch();
      assert.deepEqual(bits(await greedy(runner, prompt(33, 4), 2, { logprobs: 5 })), eager);
    });

    it("whatever the prompt's chunks", async () => {
      const runner = await runnerOf();
      for (const length of [17, 129]) {
        const whole = bits(await greedy(runner, prompt(length, 1), STEPS, { logprobs: 5 }));
        for (const chunk of [1, 7, 16, 64])
          assert.deepEqual(bits(await greedy(runner, prompt(length, 1), STEPS, { logprobs: 5, chunk })), whole, `${length} by ${chunk}`);
      }
    });

    it("alone and in a batch, at any place in cache and batch", async () => {
      const runner = await runnerOf();
      const alone: ReturnType<typeof bits>[] = [];
      for (const [i, length] of LENGTHS.entries())
        alone.push(bits(await greedy(runner, prompt(length, i), STEPS, { logprobs: 5, slot: 3, firstBlock: 40 })));
      const order = [4, 0, 8, 2, 6, 1, 7, 3, 5];
      const together = await batch(
        runner,
        order.map((i) => prompt(LENGTHS[i]!, i)),
        STEPS,
      );
      for (const [at, i] of order.entries()) assert.deepEqual(bits(together[at]!), alone[i], `length ${LENGTHS[i]}`);
    });

    it("with every output poisoned before it is written, and with each operation awaited", async () => {
      const clean = await runnerOf();
      for (const debug of ["poison", "sync"] as const) {
        const other = await runnerOf({ debug });
        for (const length of [1, 16, 129]) {
          const want = bits(await greedy(clean, prompt(length, 3), STEPS, { logprobs: 5 }));
          assert.deepEqual(bits(await greedy(other, prompt(length, 3), STEPS, { logprobs: 5 })), want, `${debug}, length ${length}`);
        }
      }
    });

    it("with steps launched before the results of those before are there", async () => {
      const runner = await runnerOf();
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
