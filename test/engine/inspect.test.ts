/** What can be asked without an engine: inspect, quantize, diagnose, version. Every argument is checked, by name. */
import { existsSync, mkdtempSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { diagnose, inspect, type QuantizeOptions, quantize, version } from "../../ts/index.js";
import { modelPath } from "../helpers/paths.js";

const refused = (named: string, code = "OPTION_INVALID") => expect.objectContaining({ code, message: expect.stringContaining(named) });

describe("inspect.estimate", () => {
  it("takes the bundled checkpoint, its context and one sequence if nothing is said; null means absent", async () => {
    const { availableBytes, maxCachedTokens, ...estimate } = await inspect.estimate();
    expect(estimate).toMatchObject({ context: 4096, batch: 1, fits: true });
    expect(Math.min(availableBytes ?? 0, maxCachedTokens ?? 0)).toBeGreaterThan(0);
    expect(await inspect.estimate(null, null)).toMatchObject(estimate);
    expect(await inspect.estimate(null, { context: null, batch: null, device: null, maxBatchTokens: null })).toMatchObject(estimate);
  });

  it("counts the cache for context × batch: two latents a layer, and the draft head's where it is used", async () => {
    expect(await inspect.estimate(null, { context: 1024, batch: 4 })).toMatchObject({ cacheBytes: 5 * 576 * 4 * 4096 });
    expect(await inspect.estimate(null, { context: 1024, batch: 4, speculative: "off" })).toMatchObject({ cacheBytes: 4 * 576 * 4 * 4096 });
  });

  it("refuses drafts that the checkpoint cannot make, as a load does", async () => {
    const tiny = modelPath("tiny-a");
    const words = "speculative: { drafts: 2 } needs a draft head, and the checkpoint has none";
    await expect(inspect.estimate(tiny, { speculative: { drafts: 2 } })).rejects.toEqual(refused(words));
    expect(await inspect.estimate(tiny, { speculative: "auto" })).toMatchObject(
      await inspect.estimate(tiny, { speculative: "off" }).then(({ availableBytes, maxCachedTokens, ...rest }) => rest),
    );
  });

  it("counts the copies of converted weights beside what stays mapped", async () => {
    const { convertedBytes, ...stored } = await inspect.estimate();
    const float32 = await inspect.estimate(null, { dtype: "float32" });
    expect(convertedBytes).toBe(0);
    // Each converted matrix takes four bytes a weight instead of two.
    expect(float32.totalBytes - stored.totalBytes).toBe(float32.convertedBytes / 2);
    expect(float32.allocatedBytes - stored.allocatedBytes).toBe(float32.convertedBytes);
  });

  it("one of many ranks: its own experts are counted, and what an exchange moves", async () => {
    const whole = await inspect.estimate(null, { batch: 8 });
    const rank = await inspect.estimate(null, { batch: 8, parallel: { expert: 4 } });
    expect(whole.parallel).toBe(null);
    // Two layers of 24 bfloat16 experts, three matrices of 256 × 128 each: of four, three are elsewhere.
    const expertBytes = 2 * 2 * 24 * 3 * 256 * 128;
    expect(whole.weightBytes - rank.weightBytes).toBe((3 / 4) * expertBytes);
    expect([whole.windowBytes, rank.windowBytes > 4 * 4096 * 256 * 4]).toEqual([0, true]);
    expect(rank.parallel).toMatchObject({ ranks: 4, expertsHeld: 6, step: null });
    // Float32 rows on the CPU; with places and weights of at most 6 experts each.
    expect(rank.parallel!.exchange).toMatchObject({ networkRows: 0, dispatchRowBytes: 4 * 256 + 6 * 8, combineRowBytes: 4 * 256 });
    const fp8 = await inspect.estimate(null, { batch: 8, parallel: { expert: 4, dispatchDType: "fp8" } });
    expect(fp8.parallel!.exchange).toMatchObject({ dispatchRowBytes: 256 + 2 * 4 + 6 * 8, combineRowBytes: 4 * 256 });
    expect((await inspect.estimate(null, { parallel: { expert: 1 } })).parallel).toBe(null);
  });

  it.each<[object, string]>([
    [
      { parallel: { expert: 5 } },
      "parallel.expert: 5 is not accepted: 24 experts cannot be shared out evenly among as many ranks; give one of 1, 2, 3, 4, 6, 8, 12, 24",
    ],
    [{ parallel: { expert: 0 } }, "parallel.expert: 0"],
    [{ parallel: { expert: 2, dispatchDType: "int8" } }, 'parallel.dispatchDType: "int8"'],
    [{ parallel: { experts: 2 } }, "did you mean expert?"],
    [{ contxt: 5 }, 'unknown option "contxt": did you mean context?'],
    [{ context: "8" }, 'context: "8" is not accepted; give a whole number from 1 to 4096'],
    [{ context: 0 }, "context: 0"],
    [{ context: 4097 }, "context: 4097 is not accepted; give a whole number from 1 to 4096, the model's context"],
    [{ context: Number.NaN }, "context: NaN"],
    [{ batch: 1.5 }, "batch: 1.5"],
    [{ batch: 4097 }, "batch: 4097"],
    [{ maxBatchTokens: Number.NaN }, "maxBatchTokens: NaN"],
    [{ maxBatchTokens: 65537 }, "maxBatchTokens: 65537"],
    [{ dtype: "int4" }, 'dtype: "int4"'],
    [{ device: "tpu" }, 'device: "tpu"'],
    [{ allowUnknownTensors: "yes" }, 'allowUnknownTensors: "yes"'],
    [[], "options"],
  ])("%j is refused by name", async (options, named) => {
    await expect(inspect.estimate(null, options as never)).rejects.toEqual(refused(named));
  });

  it("a model of built-in sizes, whose checkpoint need not be there", async () => {
    const mini = await inspect.estimate(null, { device: "cpu" });
    const { weightBytes, cacheBytes, totalBytes } = await inspect.estimate(null, { shape: "mini", device: "cpu" });
    expect(cacheBytes).toBe(mini.cacheBytes);
    // The bundled checkpoint has bfloat16 matrices too; its routers may be stored otherwise.
    expect(Math.abs(weightBytes / mini.weightBytes - 1)).toBeLessThan(0.01);
    expect(totalBytes).toBeGreaterThan(weightBytes);
    const fp8 = await inspect.estimate(null, { shape: "mini", device: "cpu", dtype: "fp8" });
    expect(fp8.weightBytes).toBeLessThan(weightBytes);
    await expect(inspect.estimate(null, { shape: "giant" as never })).rejects.toEqual(refused('shape: "giant"'));
    await expect(inspect.estimate(null, { shape: "mini", dtype: "auto" })).rejects.toEqual(refused('dtype: "auto"'));
    await expect(inspect.estimate(modelPath("mini"), { shape: "mini" })).rejects.toEqual(refused("it or a directory, not both"));
  });

  it("no folder, a device that is not there", async () => {
    await expect(inspect.estimate("")).rejects.toEqual(refused('directory: ""'));
    await expect(inspect.estimate(5 as never)).rejects.toEqual(refused("directory: 5"));
    await expect(inspect.estimate("/nowhere")).rejects.toEqual(refused("/nowhere", "CHECKPOINT_INVALID"));
    await expect(inspect.estimate(null, { device: "cpu", ngram: "device" })).rejects.toEqual(refused('ngram: "device" needs a GPU'));
  });

  it("a GPU that is not here: what it would take, and nothing of what is free", async () => {
    const cpu = await inspect.estimate(null, { device: "cpu" });
    const gpu = await inspect.estimate(null, { device: "cuda:99" });
    expect(cpu).toMatchObject({ device: "cpu", activations: "float32", ngram: "none" });
    expect(gpu).toMatchObject({ device: "cuda", activations: "bfloat16", availableBytes: null, fits: null, maxCachedTokens: null });
    expect(2 * gpu.cacheBytes).toBe(cpu.cacheBytes);
    expect(gpu.totalBytes).toBe(gpu.allocatedBytes);
    const { cacheBytes, stateBytes, scratchBytes, weightBytes } = gpu;
    expect(gpu.totalBytes - cacheBytes - stateBytes - scratchBytes).toBeGreaterThanOrEqual(weightBytes);
    expect(gpu.totalBytes - cacheBytes - stateBytes - scratchBytes).toBeLessThan(weightBytes + 1e6);
    const float32 = await inspect.estimate(null, { device: "cuda:99", dtype: "float32" });
    expect(float32).toMatchObject({ activations: "float32", cacheBytes: cpu.cacheBytes });
    expect(float32.convertedBytes).toBeGreaterThan(2 * cpu.convertedBytes);
  });
});

describe("inspect", () => {
  it("is inspect.model; both check what they are given", async () => {
    expect(await inspect(null, null)).toEqual(await inspect.model());
    await expect(inspect("", {})).rejects.toEqual(refused('directory: ""'));
    await expect(inspect.model(null, { allowUnknownTensor: true } as never)).rejects.toEqual(refused("did you mean allowUnknownTensors?"));
    await expect(inspect.model(null, { allowUnknownTensors: 1 } as never)).rejects.toEqual(refused("allowUnknownTensors: 1"));
  });
});

describe("quantize", () => {
  const folder = () => join(mkdtempSync(join(tmpdir(), "longcat-fp8-")), "copy");

  it("writes the bundled checkpoint's copy, and says how far it is", async () => {
    const copy = folder();
    const done: number[] = [];
    await quantize(null, copy, { onProgress: (count, total) => done.push(count / total) });
    expect(done.at(-1)).toBe(1);
    expect(await inspect(copy)).toMatchObject({ parameters: (await inspect()).parameters });
  });

  it.each<[unknown, unknown, QuantizeOptions | object, string]>([
    ["", "out", {}, 'directory: ""'],
    [null, "", {}, 'output: ""'],
    [null, undefined, {}, "output: undefined"],
    [null, "out", { onprogress: () => undefined }, "did you mean onProgress?"],
    [null, "out", { maxFileBytes: 0 }, "maxFileBytes: 0"],
    [null, "out", { signal: true }, "signal: true"],
    [null, "out", { onWarning: "log" }, 'onWarning: "log"'],
  ])("%j to %j with %j is refused by name", async (input, output, options, named) => {
    await expect(quantize(input as never, output as never, options as never)).rejects.toEqual(refused(named));
  });

  it("an aborted one leaves nothing", async () => {
    const copy = folder();
    await expect(quantize(null, copy, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: "ABORTED" });
    expect(existsSync(copy)).toBe(false);
  });
});

describe("diagnose and version", () => {
  it("say what is here", async () => {
    const manifest = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as { version: string };
    expect(version).toBe(manifest.version);
    const { findings, ...facts } = await diagnose();
    expect(facts).toEqual({ ok: true, version, platform: `${process.platform}-${process.arch}` });
    expect(findings.map(({ name }) => name)).toEqual([
      "node",
      "glibc",
      "addon",
      "bundled model",
      "CUDA driver",
      "GPU",
      "cmake",
      "C++ compiler",
    ]);
  });
});
