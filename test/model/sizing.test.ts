/** What a load will allocate is known, and refused where it does not fit, before anything is allocated. */
import { afterEach, describe, expect, it } from "vitest";
import { openCheckpoint } from "../../ts/model/checkpoint.js";
import type { ModelConfig } from "../../ts/model/config.js";
import { estimateMemory } from "../../ts/model/estimate.js";
import { type OpenedModel, openModel } from "../../ts/model/open.js";
import { BLOCK_SIZE, type ModelSizes, type SizingOptions, sizeModel } from "../../ts/model/sizing.js";
import { cacheBytesPerToken, numCaches } from "../../ts/model/state.js";
import { modelPath } from "../helpers/fixtures.js";
import { refused } from "../helpers/mini.js";
import { TEST_MODEL_OPTIONS } from "../helpers/models.js";

const GB = 1e9;
const DEFAULTS = { maxSequences: 64, maxBatchTokens: 4096, cacheBytes: "auto" } as const;

const checkpoint = await openCheckpoint(modelPath("mini"));
const { config, hasMtp } = checkpoint;
checkpoint.close();
const CACHES = numCaches(config, hasMtp);

function sized(options: Partial<SizingOptions>, model: ModelConfig = config): ModelSizes {
  return sizeModel(model, { ...DEFAULTS, ...options }, CACHES);
}

const opened: OpenedModel[] = [];
afterEach(async () => {
  for (const model of opened.splice(0)) await model.close();
});

describe('cacheBytes "auto"', () => {
  it("holds every sequence's whole context where there is room", () => {
    const sizes = sized({ availableBytes: 100 * GB });
    expect(sizes.numBlocks * BLOCK_SIZE).toBe(64 * config.maxPositionEmbeddings);
    expect(sizes.allocatedBytes).toBe(sizes.cacheBytes + sizes.stateBytes + sizes.scratchBytes);
  });

  it.each([0.2, 0.5, 1, 2, 4])("takes half of what %d GB leave beside the rest", (gigabytes) => {
    const available = gigabytes * GB;
    const sizes = sized({ availableBytes: available });
    const rest = sizes.stateBytes + sizes.scratchBytes;
    expect(rest + 2 * sizes.cacheBytes).toBeLessThanOrEqual(available);
    expect(rest + 2 * sizes.cacheBytes).toBeGreaterThan(available - 2e6);
  });

  it("leaves room for converted weights", () => {
    const sizes = sized({ availableBytes: GB, convertedBytes: GB / 2 });
    expect(sizes.allocatedBytes).toBeLessThan(GB);
    expect(sizes.cacheBytes).toBeLessThan(GB / 4);
  });

  it("is refused where not even one block fits beside the rest", () => {
    expect(() => sized({ availableBytes: GB / 10 })).toThrow(refused("OUT_OF_MEMORY", "100000000 are there; no cacheBytes would fit"));
    expect(() => sized({ availableBytes: GB, convertedBytes: GB })).toThrow(refused("OUT_OF_MEMORY", 'leave dtype at "auto"'));
  });
});

describe("cacheBytes that do not fit", () => {
  const asked = { maxSequences: 4096, cacheBytes: 120 * GB, availableBytes: 24 * GB };

  it("are refused with what was asked, what is there and what would fit", () => {
    let message = "";
    try {
      sized(asked);
    } catch (error) {
      expect(error).toMatchObject({ code: "OUT_OF_MEMORY" });
      ({ message } = error as Error);
    }
    const [, bytes, there, fitting] = /asked for (\d+) bytes .* (\d+) are there; cacheBytes: (\d+) would fit/.exec(message) ?? [];
    expect(Number(bytes)).toBeGreaterThan(120 * GB);
    expect(Number(there)).toBe(24 * GB);
    expect(sized({ ...asked, cacheBytes: Number(fitting) }).cacheBytes).toBe(Number(fitting));
    const block = BLOCK_SIZE * cacheBytesPerToken(config, CACHES);
    expect(() => sized({ ...asked, cacheBytes: Number(fitting) + block })).toThrow(refused("OUT_OF_MEMORY"));
  });

  it("are refused by a load before it opens a device", async () => {
    const load = openModel(modelPath("mini"), { ...TEST_MODEL_OPTIONS, ...asked, device: "cuda" });
    await expect(load).rejects.toThrow(refused("OUT_OF_MEMORY", "cacheBytes"));
  });

  it("do no harm beyond what the sequences can use", () => {
    expect(sized({ cacheBytes: 120 * GB, availableBytes: 24 * GB }).cacheBytes).toBe(
      64 * config.maxPositionEmbeddings * cacheBytesPerToken(config, CACHES),
    );
  });
});

describe("limits of the operations", () => {
  it("a step's picks of experts are numbered with 31 bits", () => {
    const many = { ...config, topK: 40_000 };
    expect(() => sized({ maxBatchTokens: 65_536 }, many)).toThrow(
      refused("OPTION_INVALID", "maxBatchTokens: 65536 is not accepted: with topK 40000 (moe_topk) a step may have at most 53687 tokens"),
    );
  });

  it("so are a cache's rows, whatever memory there is", () => {
    const long = { ...config, maxPositionEmbeddings: 2 ** 31 - 1 };
    const sizes = sized({ maxSequences: 4096, availableBytes: Number.MAX_SAFE_INTEGER }, long);
    expect(sizes.numBlocks * sizes.blockSize).toBeLessThan(2 ** 31);
  });
});

describe.each(["mini", "tiny-b", "tiny-lite-a"] as const)("%s", (name) => {
  it.each(["auto", "float32", "bfloat16"] as const)("with dtype %s allocates what was counted", async (dtype) => {
    const model = await openModel(modelPath(name), { ...TEST_MODEL_OPTIONS, dtype });
    opened.push(model);
    const { sizes, runner } = model;
    const extra = runner.device.allocatedBytes - sizes.allocatedBytes;
    // The rotation's frequencies, the ring, the threads' scratch.
    expect(extra).toBeGreaterThanOrEqual(0);
    expect(extra).toBeLessThan(64 * 1024);
  });

  it("is estimated by the same sum", async () => {
    const { maxSequences, maxBatchTokens } = TEST_MODEL_OPTIONS;
    const context = 64;
    const estimate = await estimateMemory(modelPath(name), {
      ...{ context, batch: maxSequences, maxBatchTokens, dtype: "float32", allowUnknownTensors: false },
    });
    const { cacheBytes, stateBytes, scratchBytes, convertedBytes, allocatedBytes, totalBytes, weightBytes } = estimate;
    expect(cacheBytes).toBe(maxSequences * context * estimate.cacheBytesPerToken);
    expect(allocatedBytes).toBe(cacheBytes + stateBytes + scratchBytes + convertedBytes);
    const model = await openModel(modelPath(name), { ...TEST_MODEL_OPTIONS, dtype: "float32" });
    opened.push(model);
    expect(convertedBytes).toBe(model.sizes.convertedBytes);
    expect(totalBytes).toBeLessThanOrEqual(allocatedBytes + weightBytes);
    expect(totalBytes - allocatedBytes).toBeGreaterThan(0);
  });
});
