/** A packed latent cache (native/ops/latent_cache.h) in a whole model: other numbers, whose bits depend on nothing more, in fewer bytes. */
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openCheckpoint } from "../../ts/model/checkpoint.js";
import { type OpenedModel, openModel } from "../../ts/model/open.js";
import { BLOCK_SIZE, type SizingOptions, sizeModel } from "../../ts/model/sizing.js";
import { latentRowBytes, numCaches } from "../../ts/model/state.js";
import { modelPath, ROOT } from "../helpers/fixtures.js";
import { worstDistance } from "../helpers/goldens.js";
import { SAME_BITS } from "../helpers/invariance.js";
import { TEST_MODEL_OPTIONS } from "../helpers/models.js";

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

  for (const [where, check] of Object.entries(SAME_BITS)) it(`gives the same bits ${where}`, () => check(model.runner));

  it("moves blocks of packed rows", async () => {
    const block = await model.runner.readBlock(0);
    const caches = numCaches(model.runner.config, false);
    expect(block).toHaveLength(caches * BLOCK_SIZE * latentRowBytes(model.runner.config, "fp8"));
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
    expect(fp8.prompt.latentRows).toBe(0);
    const gpu = { kind: "cuda", activationDType: "float32" } as const;
    expect(sized({ ...gpu, cacheDType: "fp8" }).prompt.latentRows).toBe(8192);
    expect(sized(gpu).prompt.latentRows).toBe(0);
  });
});
