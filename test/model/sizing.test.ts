/** What a load will allocate is known, and refused where it does not fit, before anything is allocated. */
import { afterEach, describe, expect, it, vi } from "vitest";
import { openCheckpoint, type StoredTensor } from "../../ts/model/checkpoint.js";
import type { ModelConfig } from "../../ts/model/config.js";
import { estimateMemory } from "../../ts/model/estimate.js";
import { type OpenedModel, openModel } from "../../ts/model/open.js";
import { BLOCK_SIZE, type ModelSizes, type SizingOptions, sizeModel } from "../../ts/model/sizing.js";
import { activationDTypeOf, placeNgramTables } from "../../ts/model/placement.js";
import { cacheBytesPerToken, numCaches, stateBytes } from "../../ts/model/state.js";
import { Device } from "../../ts/runtime/device.js";
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

describe("a GPU", () => {
  const MARGIN = 512 * 1024 * 1024;
  const gpu = { kind: "cuda", activationDType: "bfloat16", weightBytes: 2 * GB } as const;

  it("holds weights too, and latents of half the size", () => {
    const sizes = sized({ ...gpu, availableBytes: 80 * GB });
    const { weightBytes, cacheBytes, stateBytes, scratchBytes } = sizes;
    expect(sizes.allocatedBytes).toBe(weightBytes + cacheBytes + stateBytes + scratchBytes);
    expect(2 * cacheBytes).toBe(sized({ availableBytes: 80 * GB }).cacheBytes);
    expect(sizes.prompt.expandedRows).toBe(8192);
    expect(sized({ ...gpu, maxBatchTokens: 1, availableBytes: 80 * GB }).prompt.expandedRows).toBe(128);
  });

  it.each([4, 5])('gives "auto" caches 90 %% of what %d GB leave beside the rest and the graphs', (gigabytes) => {
    const { cacheBytes, allocatedBytes } = sized({ ...gpu, maxSequences: 1024, availableBytes: gigabytes * GB });
    const left = gigabytes * GB - MARGIN - (allocatedBytes - cacheBytes);
    expect(cacheBytes).toBeLessThanOrEqual(0.9 * left);
    expect(cacheBytes).toBeGreaterThan(0.9 * left - 1e6);
  });

  it("refuses weights that do not fit, saying so", () => {
    expect(() => sized({ ...gpu, availableBytes: 2 * GB })).toThrow(refused("OUT_OF_MEMORY", "weights 2000000000, "));
    expect(() => sized({ ...gpu, availableBytes: 2 * GB })).toThrow(
      refused("OUT_OF_MEMORY", `${2 * GB - MARGIN} are there; the weights alone do not fit`),
    );
  });
});

describe("ranks", () => {
  it("that do not fit are told that maxBatchTokens is to be lowered", () => {
    const shared = { sharding: { ranks: 2, fp8Dispatch: false } };
    const { allocatedBytes: least, cacheBytes: block } = sized({ ...shared, cacheBytes: "least", availableBytes: 100 * GB });
    const remedy = "lower maxBatchTokens, since scratch and window have room for the rows of all ranks";
    expect(() => sized({ ...shared, availableBytes: least - 1 })).toThrow(refused("OUT_OF_MEMORY", `no cacheBytes would fit; ${remedy}`));
    expect(() => sized({ ...shared, cacheBytes: 100 * block, availableBytes: least })).toThrow(
      refused("OUT_OF_MEMORY", `cacheBytes: ${block} would fit, more with a ${remedy}`),
    );
    expect(sized({ ...shared, maxBatchTokens: 2048, availableBytes: least - 1 }).cacheBytes).toBeGreaterThan(100 * block);
  });
});

describe("n-gram tables", () => {
  it("go to a GPU if they take a third of what it has left, or are told to", () => {
    expect(placeNgramTables("cuda", "auto", 100, 300)).toBe("device");
    expect(placeNgramTables("cuda", "auto", 101, 300)).toBe("host");
    expect(placeNgramTables("cuda", "auto", 100, null)).toBe("host");
    expect(placeNgramTables("cuda", "device", 1000, 300)).toBe("device");
    expect(placeNgramTables("cuda", "host", 1, 300)).toBe("host");
  });

  it("stay in host memory on the CPU", async () => {
    expect(placeNgramTables("cpu", "auto", 100, null)).toBe("host");
    const load = openModel(modelPath("tiny-lite-a"), { ...TEST_MODEL_OPTIONS, ngram: "device" });
    await expect(load).rejects.toThrow(refused("OPTION_INVALID", 'ngram: "device" needs a GPU, and this model runs on the CPU'));
    const model = await openModel(modelPath("tiny-lite-a"), { ...TEST_MODEL_OPTIONS, ngram: "host" });
    opened.push(model);
    expect(model.ngram).toBe("host");
  });
});

describe("activations", () => {
  it.each([
    ["mini", "auto", "bfloat16"],
    ["mini", "float32", "float32"],
    ["tiny-a", "auto", "float32"],
    ["tiny-a", "bfloat16", "bfloat16"],
  ] as const)("of %s with dtype %s are %s on a GPU, and float32 on the CPU", async (name, dtype, want) => {
    const headers = await openCheckpoint(modelPath(name));
    headers.close();
    expect(activationDTypeOf("cuda", headers, dtype)).toBe(want);
    expect(activationDTypeOf("cpu", headers, dtype)).toBe("float32");
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
    const block = BLOCK_SIZE * cacheBytesPerToken(config, CACHES, "float32");
    expect(() => sized({ ...asked, cacheBytes: Number(fitting) + block })).toThrow(refused("OUT_OF_MEMORY"));
  });

  it("are refused by a load before it opens a device", async () => {
    const openDevice = vi.spyOn(Device, "open");
    const load = openModel(modelPath("mini"), { ...TEST_MODEL_OPTIONS, ...asked });
    await expect(load).rejects.toThrow(refused("OUT_OF_MEMORY", "cacheBytes"));
    expect(openDevice).not.toHaveBeenCalled();
    openDevice.mockRestore();
  });

  it("do no harm beyond what the sequences can use", () => {
    expect(sized({ cacheBytes: 120 * GB, availableBytes: 24 * GB }).cacheBytes).toBe(
      64 * config.maxPositionEmbeddings * cacheBytesPerToken(config, CACHES, "float32"),
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

describe("a draft head that is not used", () => {
  it("takes no memory", async () => {
    const bytesOf = ({ entry }: StoredTensor) => entry.end - entry.begin;
    const head = [...checkpoint.tensors].filter(([name]) => name.startsWith("model.mtp."));
    const estimate = (maxDrafts: number) =>
      estimateMemory(modelPath("mini"), {
        ...{ device: "cuda:0", context: 64, batch: 1, maxBatchTokens: 64, allowUnknownTensors: false, maxDrafts },
      });
    const [without, used] = [await estimate(0), await estimate(1)];
    expect(used.weightBytes - without.weightBytes).toBe(head.reduce((sum, [, tensor]) => sum + bytesOf(tensor), 0));
    const caches = used.cacheBytes - without.cacheBytes + used.stateBytes - without.stateBytes;
    const scratch = used.scratchBytes - without.scratchBytes;
    expect(used.totalBytes - without.totalBytes - caches - scratch).toBeGreaterThanOrEqual(used.weightBytes - without.weightBytes);
  });
});

describe.each(["mini", "tiny-a", "tiny-lite-a"] as const)("%s", (name) => {
  it.each(["auto", "float32", "bfloat16"] as const)("with dtype %s allocates what was counted", async (dtype) => {
    const model = await openModel(modelPath(name), { ...TEST_MODEL_OPTIONS, dtype });
    opened.push(model);
    const { sizes, runner } = model;
    const extra = runner.device.allocatedBytes - sizes.allocatedBytes;
    // The rotation's frequencies, the ring, the threads' scratch.
    expect(extra).toBeGreaterThanOrEqual(0);
    expect(extra).toBeLessThan(64 * 1024);
  });

  it.each([1, 4])("with up to %d drafts allocates what was counted, which without a draft head is no more", async (maxDrafts) => {
    const model = await openModel(modelPath(name), { ...TEST_MODEL_OPTIONS, maxDrafts });
    opened.push(model);
    const without = await openModel(modelPath(name), TEST_MODEL_OPTIONS);
    opened.push(without);
    const { sizes, runner, checkpoint } = model;
    const extra = runner.device.allocatedBytes - sizes.allocatedBytes;
    expect(extra).toBeGreaterThanOrEqual(0);
    expect(extra).toBeLessThan(64 * 1024);
    if (!checkpoint.hasMtp) {
      expect(sizes).toEqual(without.sizes);
      expect(runner.limits.maxDrafts).toBe(0);
      return;
    }
    expect(runner.limits.maxDrafts).toBe(maxDrafts);
    expect([runner, without.runner].map(({ weights }) => weights.mtp !== null)).toEqual([true, false]);
    expect(sizes.numCaches).toBe(without.sizes.numCaches + 1);
    // Room for rows without a place: a slot's table and history, and a block of each cache.
    const { contextLength, blockSize, numCaches, activationDType } = sizes;
    const block = blockSize * cacheBytesPerToken(checkpoint.config, numCaches, activationDType);
    expect(sizes.stateBytes).toBe(
      stateBytes(checkpoint.config, { ...sizes, maxDrafts: 0 }) + 4 * (contextLength + contextLength / blockSize) + block,
    );
    expect(sizes.scratchBytes).toBeGreaterThan(without.sizes.scratchBytes);
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
