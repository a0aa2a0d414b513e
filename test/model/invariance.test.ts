/**
 * What a number may not depend on (docs/numerics.md): batch, chunking, threads, recording, poison, block places. Bits, not tolerances.
 */
import { afterEach, describe, expect, it } from "vitest";
import { type OpenedModel, type OpenModelOptions, openModel } from "../../ts/model/open.js";
import type { Runner } from "../../ts/model/runner.js";
import { type ModelName, modelPath } from "../helpers/fixtures.js";
import { greedy } from "../helpers/goldens.js";
import { SAME_BITS, STEPS } from "../helpers/invariance.js";
import { TEST_MODEL_OPTIONS } from "../helpers/models.js";
import { bits, prompt } from "../helpers/runs.js";

const opened: OpenedModel[] = [];
afterEach(async () => {
  for (const model of opened.splice(0)) await model.close();
});

async function open(name: ModelName, options: Partial<OpenModelOptions> = {}): Promise<Runner> {
  const model = await openModel(modelPath(name), { ...TEST_MODEL_OPTIONS, ...options });
  opened.push(model);
  return model.runner;
}

const LENGTHS = [1, 13, 15, 16, 17, 63, 64, 65, 129];

describe.each(["mini", "tiny-a", "tiny-lite-a"] as const)("%s", (name) => {
  for (const [where, check] of Object.entries(SAME_BITS)) it(`gives the same bits ${where}`, async () => check(await open(name)));

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
