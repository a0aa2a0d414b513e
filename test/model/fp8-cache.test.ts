/** A packed latent cache (native/ops/latent_cache.h) in a whole model: other numbers, whose bits depend on nothing more, in fewer bytes. */
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openCheckpoint } from "../../ts/model/checkpoint.js";
import { type OpenedModel, openModel } from "../../ts/model/open.js";
import { BLOCK_SIZE, type SizingOptions, sizeModel } from "../../ts/model/sizing.js";
import { latentRowBytes, numCaches } from "../../ts/model/state.js";
import { modelPath, ROOT } from "../helpers/fixtures.js";
import { greedy, takeSlot, worstDistance } from "../helpers/goldens.js";
import { TEST_MODEL_OPTIONS } from "../helpers/models.js";
import { batch, bits, prompt, staggered } from "../helpers/runs.js";

const STEPS = 12;

describe.each(["mini", "tiny-a", "tiny-lite-a"] as const)("%s", (name) => {
  let model: OpenedModel;
  beforeAll(async () => {
    model = await openModel(modelPath(name), { ...TEST_MODEL_OPTIONS, cacheDType: "fp8", debug: "poison" });
  });
  afterAll(() => model.close());

  it("stays near the recorded float32 numbers", async () => {
    const d = await worstDistance(model.runner, join(ROOT, "test/fixtures", name));
    console.log(`${name}, fp8 latents: ${JSON.stringify(d)}`);
    expect(d.maxLogit).toBeGreaterThan(1e-4);
    expect(d.maxLogit).toBeLessThan(1);
  });

  it("gives the same bits whatever the prompt's chunks, the batch and the steps' mixture", async () => {
    const { runner } = model;
    const lengths = [1, 15, 16, 17, 65, 129];
    const alone = [];
    for (const [i, length] of lengths.entries()) {
      const whole = bits(await greedy(runner, prompt(length, i), STEPS, { logprobs: 5, slot: 3, firstBlock: 40 }));
      for (const chunk of [7, 16])
        expect(bits(await greedy(runner, prompt(length, i), STEPS, { logprobs: 5, chunk })), `${length} by ${chunk}`).toEqual(whole);
      alone.push(whole);
    }
    const prompts = lengths.map((length, i) => prompt(length, i));
    expect((await batch(runner, prompts, STEPS)).map(bits)).toEqual(alone);
    expect((await staggered(runner, prompts, STEPS, 7)).map(bits)).toEqual(alone);
  });

  it("gives the same bits when latents are moved out of the device and back, and copied from block to block", async () => {
    const { runner } = model;
    const tokens = prompt(37, 5);
    const whole = bits(await greedy(runner, tokens, STEPS, { logprobs: 5 }));
    const start = await greedy(runner, tokens, 5, { logprobs: 5 });
    runner.copyBlock(2, 50);
    const saved = await Promise.all([0, 1, 50].map((block) => runner.readBlock(block)));
    const caches = numCaches(runner.config, false);
    expect(saved[0]).toHaveLength(caches * BLOCK_SIZE * latentRowBytes(runner.config, "fp8"));
    await greedy(runner, prompt(60, 6), 3); // over the blocks and the slot that it had
    takeSlot(runner, 4, 20, tokens.length + STEPS, 5);
    runner.setHistory(4, [...tokens, ...bits(start).map(({ token }) => token)]);
    for (const [i, bytes] of saved.entries()) runner.writeBlock(20 + i, bytes);
    const rest = [];
    for (let i = 5; i < STEPS; i++)
      rest.push(...(await runner.step([{ slot: 4, position: tokens.length + i - 1, tokens: null, sample: true }])));
    expect(bits([...start, ...rest])).toEqual(whole);
  });
});

describe("sizes", () => {
  it("are 656 bytes a row for LongCat-Flash's latents, and whole vectors of 16 for any", () => {
    const flash = { kvLoraRank: 512, qkRopeHeadDim: 64 };
    expect(latentRowBytes(flash, "fp8")).toBe(512 + 128 + 16);
    expect(latentRowBytes(flash, "bfloat16")).toBe(1152);
    expect(latentRowBytes({ kvLoraRank: 129, qkRopeHeadDim: 6 }, "fp8")).toBe(144 + 16 + 16);
  });

  it("hold more tokens in the same bytes, and leave a GPU room to unpack", async () => {
    const { config, hasMtp, close } = await openCheckpoint(modelPath("mini")).then((checkpoint) => ({
      config: checkpoint.config,
      hasMtp: checkpoint.hasMtp,
      close: () => checkpoint.close(),
    }));
    close();
    const caches = numCaches(config, hasMtp);
    const sized = (options: Partial<SizingOptions>) =>
      sizeModel(config, { maxSequences: 64, maxBatchTokens: 4096, cacheBytes: 1e7, availableBytes: 80e9, ...options }, caches);
    const row = latentRowBytes(config, "fp8");
    const fp8 = sized({ cacheDType: "fp8" });
    expect(fp8.numBlocks).toBe(Math.floor(1e7 / (caches * BLOCK_SIZE * row)));
    expect(fp8.cacheBytes).toBe(fp8.numBlocks * BLOCK_SIZE * caches * row);
    expect(fp8.numBlocks).toBeGreaterThan(3 * sized({}).numBlocks);
    expect(fp8.prompt.unpackedRows).toBe(0);
    const gpu = { kind: "cuda", activationDType: "bfloat16" } as const;
    expect(sized({ ...gpu, cacheDType: "fp8" }).prompt.unpackedRows).toBe(8192);
    expect(sized(gpu).prompt.unpackedRows).toBe(0);
  });
});
