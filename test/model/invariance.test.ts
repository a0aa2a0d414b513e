/**
 * What a number may not depend on (docs/numerics.md): batch, chunking, threads, recording, poison, block places. Bits, not tolerances.
 */
import { afterEach, describe, expect, it } from "vitest";
import { type OpenedModel, type OpenModelOptions, openModel } from "../../ts/model/open.js";
import type { Runner } from "../../ts/model/runner.js";
import type { DrawnToken } from "../../ts/model/runner-types.js";
import { type ModelName, modelPath } from "../helpers/fixtures.js";
import { greedy, takeSlot } from "../helpers/goldens.js";
import { batch, bits, prompt, staggered } from "../helpers/runs.js";
import { TEST_MODEL_OPTIONS } from "../helpers/models.js";

const opened: OpenedModel[] = [];
afterEach(async () => {
  for (const model of opened.splice(0)) await model.close();
});

async function open(name: ModelName, options: Partial<OpenModelOptions> = {}): Promise<Runner> {
  const model = await openModel(modelPath(name), { ...TEST_MODEL_OPTIONS, ...options });
  opened.push(model);
  return model.runner;
}

const STEPS = 12;
const LENGTHS = [1, 13, 15, 16, 17, 63, 64, 65, 129];

describe.each(["mini", "tiny-a", "tiny-lite-a"] as const)("%s", (name) => {
  it("gives the same bits whatever the prompt's chunks", async () => {
    const runner = await open(name);
    for (const length of [17, 129]) {
      const whole = bits(await greedy(runner, prompt(length, 1), STEPS, { logprobs: 5 }));
      for (const chunk of [1, 7, 16, 64]) {
        expect(bits(await greedy(runner, prompt(length, 1), STEPS, { logprobs: 5, chunk })), `${length} by ${chunk}`).toEqual(whole);
      }
    }
  });

  it("gives the same bits alone and in a batch, at any place in cache and batch", async () => {
    const runner = await open(name);
    const alone: DrawnToken[][] = [];
    for (const [i, length] of LENGTHS.entries()) {
      alone.push(bits(await greedy(runner, prompt(length, i), STEPS, { logprobs: 5, slot: 3, firstBlock: 40 })));
    }
    const order = [4, 0, 8, 2, 6, 1, 7, 3, 5];
    const together = await batch(
      runner,
      order.map((i) => prompt(LENGTHS[i]!, i)),
      STEPS,
    );
    order.forEach((i, at) => {
      expect(bits(together[at]!), `length ${LENGTHS[i]}`).toEqual(alone[i]);
    });
  });

  it("gives the same bits where prompts and decodes share their steps", async () => {
    const runner = await open(name);
    const alone: DrawnToken[][] = [];
    for (const [i, length] of LENGTHS.entries()) {
      alone.push(bits(await greedy(runner, prompt(length, i), STEPS, { logprobs: 5, slot: 3, firstBlock: 40 })));
    }
    const together = await staggered(
      runner,
      LENGTHS.map((length, i) => prompt(length, i)),
      STEPS,
      7,
    );
    LENGTHS.forEach((length, i) => {
      expect(bits(together[i]!), `length ${length}`).toEqual(alone[i]);
    });
  });

  it("gives the same bits when latents are moved out of the device and back, to other blocks and another slot", async () => {
    const runner = await open(name);
    const tokens = prompt(37, 5);
    const whole = bits(await greedy(runner, tokens, STEPS, { logprobs: 5 }));
    const start = await greedy(runner, tokens, 5, { logprobs: 5 });
    const saved = await Promise.all([0, 1, 2].map((block) => runner.readBlock(block)));
    await greedy(runner, prompt(60, 6), 3); // over the blocks and the slot that it had
    takeSlot(runner, 4, 20, tokens.length + STEPS, 5);
    runner.setHistory(4, [...tokens, ...bits(start).map(({ token }) => token)]);
    for (const [i, bytes] of saved.entries()) runner.writeBlock(20 + i, bytes);
    const rest = [];
    for (let i = 5; i < STEPS; i++)
      rest.push(...(await runner.step([{ slot: 4, position: tokens.length + i - 1, tokens: null, sample: true }])));
    expect(bits([...start, ...rest])).toEqual(whole);
  });

  it("gives the same bits for any number of threads", async () => {
    const want = bits(await greedy(await open(name, { threads: 1 }), prompt(65, 2), STEPS, { logprobs: 5 }));
    for (const threads of [2, 3, 16]) {
      expect(bits(await greedy(await open(name, { threads }), prompt(65, 2), STEPS, { logprobs: 5 })), `${threads} threads`).toEqual(want);
    }
  });

  it("gives the same bits when every output is poisoned before it is written", async () => {
    const clean = await open(name);
    const poisoned = await open(name, { debug: "poison" });
    for (const length of LENGTHS) {
      const want = bits(await greedy(clean, prompt(length, 3), STEPS, { logprobs: 5 }));
      expect(bits(await greedy(poisoned, prompt(length, 3), STEPS, { logprobs: 5 })), `length ${length}`).toEqual(want);
    }
  });

  it("replays a recorded step with the bits of an eager one, scratch poisoned between", async () => {
    const runner = await open(name);
    const tokens = prompt(33, 4);
    // The first step of a batch size records while it runs eagerly; later ones replay.
    const eager = bits(await greedy(runner, tokens, 2, { logprobs: 5 }));
    runner.poisonScratch();
    const replayed = bits(await greedy(runner, tokens, 2, { logprobs: 5 }));
    expect(replayed).toEqual(eager);
    expect(runner.recordedGraphs).toBe(1);
  });
});
