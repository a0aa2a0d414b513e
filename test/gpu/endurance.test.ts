/** What long runs and failures leave behind on a GPU. */
import assert from "node:assert/strict";
import { it } from "node:test";
import type { Runner } from "../../ts/model/runner.js";
import { greedy, takeSlot } from "../helpers/goldens.js";
import { bits, prompt } from "../helpers/runs.js";
import { describeOnGpu, models } from "./gpu.js";

/** What the driver hands out at a time. */
const GRANULE = 2 * 1024 * 1024;

/** Decode steps of one sequence, started anew when the context is full; `ahead` of them in flight. */
async function decode(runner: Runner, steps: number, ahead = 4): Promise<void> {
  const tokens = prompt(16, 7);
  const { contextLength } = runner.limits;
  let position = contextLength;
  let inFlight: Promise<unknown>[] = [];
  for (let step = 0; step < steps; step++) {
    await runner.room();
    if (position + 1 >= contextLength) {
      takeSlot(runner, 0, 0, contextLength);
      await runner.room();
      inFlight.push(runner.launch([{ slot: 0, position: 0, tokens, sample: true }]));
      position = tokens.length;
      await runner.room();
    }
    inFlight.push(runner.launch([{ slot: 0, position: position++, tokens: null, sample: true }]));
    if (inFlight.length > ahead) {
      await inFlight[0];
      inFlight = inFlight.slice(1);
    }
  }
  await Promise.all(inFlight);
}

describeOnGpu("ten thousand decode steps", () => {
  const { open } = models();

  it("leave device memory where it was", async () => {
    const { runner } = await open("mini");
    const { device } = runner;
    await decode(runner, 300);
    const before = { free: device.freeBytes, allocated: device.allocatedBytes };
    await decode(runner, 10_000);
    assert.equal(device.allocatedBytes, before.allocated);
    assert.ok(Math.abs(device.freeBytes - before.free) <= GRANULE, `${before.free} bytes were free, ${device.freeBytes} are`);
  });

  it("and so do models that are opened and closed", async () => {
    const { runner } = await open("tiny-a");
    const freeAfter = async () => {
      const model = await open("mini");
      await greedy(model.runner, prompt(20, 1), 4);
      await model.close();
      return runner.device.freeBytes;
    };
    const first = await freeAfter();
    for (let i = 0; i < 5; i++) await freeAfter();
    assert.ok(Math.abs((await freeAfter()) - first) <= 16 * GRANULE);
  });
});

describeOnGpu("failures", () => {
  const { open } = models();

  it("too little memory is said before anything is loaded, and nothing is kept", async () => {
    const { runner } = await open("mini");
    const want = bits(await greedy(runner, prompt(20, 1), 4, { logprobs: 2 }));
    const free = runner.device.freeBytes;
    const load = open("mini", { availableBytes: 600 * 1024 * 1024, cacheBytes: 4e9, maxSequences: 256 });
    await assert.rejects(load, { code: "OUT_OF_MEMORY", message: /weights \d+, .* are there; cacheBytes: \d+ would fit/ });
    // What planning believes to be there, and is not: the device itself refuses.
    const beyond = open("mini", { availableBytes: 1e15, cacheBytes: 1e15, maxSequences: 4096, maxBatchTokens: 65536, dtype: "float32" });
    await assert.rejects(beyond, { code: "OUT_OF_MEMORY", message: /\d/ });
    assert.ok(Math.abs(runner.device.freeBytes - free) <= 16 * GRANULE);
    assert.deepEqual(bits(await greedy(runner, prompt(20, 1), 4, { logprobs: 2 })), want);
  });

  it("an operation that fails is told by name, and the process and other models live on", async () => {
    const healthy = await open("tiny-a");
    const want = bits(await greedy(healthy.runner, prompt(20, 1), 4, { logprobs: 2 }));
    const broken = await open("tiny-a", { faultOn: "swiglu_mlp" });
    for (let i = 0; i < 2; i++)
      await assert.rejects(greedy(broken.runner, prompt(20, 1), 2), {
        code: "INTERNAL",
        message: /^operation "swiglu_mlp" on queue \d failed: a fault was asked for$/,
      });
    await broken.close();
    assert.deepEqual(bits(await greedy(healthy.runner, prompt(20, 1), 4, { logprobs: 2 })), want);
  });
});
