/** Quantising to block FP8: the same bytes as the reference, and nothing left behind when it fails. */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { openCheckpoint } from "../../ts/model/checkpoint.js";
import { quantizeCheckpoint } from "../../ts/model/quantize.js";
import { openSafetensors, quantizeFp8 } from "../../ts/runtime/files.js";
import {
  copyModel,
  editConfig,
  editTensors,
  float32Tensor,
  modelPath,
  readSafetensors,
  ROOT,
  temporaryFolder,
  valuesOf,
  writeSafetensors,
} from "../helpers/fixtures.js";

const hashes = JSON.parse(readFileSync(join(ROOT, "test/fixtures/mini-fp8/hashes.json"), "utf8")) as Record<
  string,
  { dtype: string; shape: number[]; sha256: string }
>;

describe("mini in block FP8", () => {
  const output = join(temporaryFolder(), "deeper", "mini-fp8");
  const progress: [number, number][] = [];
  beforeAll(() => quantizeCheckpoint(modelPath("mini"), output, { onProgress: (done, total) => progress.push([done, total]) }));

  it("has every tensor of the reference, byte for byte", () => {
    const tensors = readSafetensors(join(output, "model.safetensors"));
    const found = Object.fromEntries(
      [...tensors].map(([name, { dtype, shape, data }]) => [
        name,
        { dtype, shape, sha256: createHash("sha256").update(data).digest("hex") },
      ]),
    );
    expect(found).toEqual(hashes);
  });
  it("opens as a checkpoint with its draft head", async () => {
    const checkpoint = await openCheckpoint(output);
    expect(checkpoint.config.quantization).toEqual({ method: "fp8", blockSize: 128 });
    expect(checkpoint.hasMtp).toBe(true);
    expect(checkpoint.warnings).toEqual([]);
    checkpoint.close();
  });
  it("keeps every tensor aligned to its elements", () => {
    const file = openSafetensors(join(output, "model.safetensors"));
    for (const { begin, storedDtype } of file.entries) expect(begin % { F32: 4, BF16: 2, F8_E4M3: 1 }[storedDtype]!).toBe(0);
    file.close();
  });
  it("brings the tokenizer and the configs along", () => {
    expect(readdirSync(output).sort()).toEqual([
      "config.json",
      "generation_config.json",
      "model.safetensors",
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
    expect(JSON.parse(readFileSync(join(output, "config.json"), "utf8"))).toEqual({
      ...JSON.parse(readFileSync(join(modelPath("mini"), "config.json"), "utf8")),
      quantization_config: { quant_method: "fp8", fmt: "e4m3", activation_scheme: "dynamic", weight_block_size: [128, 128] },
    });
  });
  it("tells how far it is, once a tensor", () => {
    expect(progress).toHaveLength(215);
    expect(progress[0]).toEqual([1, 215]);
    expect(progress.at(-1)).toEqual([215, 215]);
  });
  it("is not quantised again", async () => {
    await expect(quantizeCheckpoint(output, join(temporaryFolder(), "out"))).rejects.toMatchObject({ code: "CHECKPOINT_UNSUPPORTED" });
  });
});

it("shards beyond a size, with an index that opens", async () => {
  const output = join(temporaryFolder(), "out");
  await quantizeCheckpoint(modelPath("tiny-lite-a"), output, { maxFileBytes: 400_000 });
  const names = readdirSync(output).filter((name) => name.endsWith(".safetensors"));
  expect(names.length).toBeGreaterThan(2);
  const tensors = new Map(names.flatMap((name) => [...readSafetensors(join(output, name))]));
  expect(tensors.get("model.layers.0.self_attn.0.o_proj.weight")).toMatchObject({ dtype: "F8_E4M3", shape: [96, 128] });
  expect(tensors.get("model.ngram_embeddings.post_projs.0.weight")!.dtype).toBe("F32");
  const checkpoint = await openCheckpoint(output);
  expect(checkpoint.files).toHaveLength(names.length);
  checkpoint.close();
});

it("leaves modules alone that disable_quant_module lists", async () => {
  const input = copyModel("tiny-a");
  editConfig(input, (config) => void (config.disable_quant_module = ["self_attn"]));
  const output = join(temporaryFolder(), "out");
  await quantizeCheckpoint(input, output);
  const tensors = readSafetensors(join(output, "model.safetensors"));
  expect(tensors.get("model.layers.0.self_attn.0.o_proj.weight")!.dtype).toBe("F32");
  expect(tensors.get("model.layers.0.mlps.0.up_proj.weight")!.dtype).toBe("F8_E4M3");
  (await openCheckpoint(output)).close();
});

describe("the output folder", () => {
  const refused = async (output: string, input = modelPath("tiny-a")) =>
    expect(quantizeCheckpoint(input, output)).rejects.toMatchObject({ code: "OPTION_INVALID" });
  it("may be there and empty", async () => {
    const output = temporaryFolder();
    await quantizeCheckpoint(modelPath("tiny-a"), output);
    expect(readdirSync(output)).toContain("model.safetensors");
  });
  it("may need folders above it; where none can be made that is said", async () => {
    const output = join(temporaryFolder(), "a/b/out");
    await quantizeCheckpoint(modelPath("tiny-a"), output);
    expect(readdirSync(output)).toContain("model.safetensors");
    await refused("/proc/nowhere/out");
    await refused("/dev/null/out");
  });
  it("that is the input, full, a file or no path is refused", async () => {
    const input = copyModel("tiny-a");
    await refused(input, input);
    await refused(join(input, "."), input);
    const full = temporaryFolder();
    writeFileSync(join(full, "precious"), "x");
    await refused(full);
    await refused(join(full, "precious"));
    await refused(join(full, "precious", "below"));
    await refused("");
    await refused("a\0b");
    expect(readFileSync(join(full, "precious"), "utf8")).toBe("x");
    expect(readdirSync(input).sort()).toEqual(["config.json", "model.safetensors"]);
  });
  it("does not appear when the work fails", async () => {
    const input = copyModel("tiny-a");
    editTensors(
      join(input, "model.safetensors"),
      (t) =>
        void t.set("model.layers.1.mlps.1.up_proj.weight", float32Tensor([160, 96], new Float32Array(160 * 96).fill(Infinity, 500, 501))),
    );
    const parent = temporaryFolder();
    await expect(quantizeCheckpoint(input, join(parent, "out"))).rejects.toMatchObject({
      code: "CHECKPOINT_INVALID",
      message: expect.stringMatching(/mlps\.1\.up_proj.*infinite/),
    });
    expect(readdirSync(parent)).toEqual([]);
  });
  it("does not appear when the input is no checkpoint", async () => {
    const parent = temporaryFolder();
    await expect(quantizeCheckpoint(join(parent, "nowhere"), join(parent, "out"))).rejects.toMatchObject({ code: "CHECKPOINT_INVALID" });
    expect(readdirSync(parent)).toEqual([]);
  });
  it("does not appear when it is stopped", async () => {
    const parent = temporaryFolder();
    const controller = new AbortController();
    const onProgress = (done: number) => void (done === 5 && controller.abort());
    await expect(
      quantizeCheckpoint(modelPath("tiny-a"), join(parent, "out"), { onProgress, signal: controller.signal }),
    ).rejects.toMatchObject({ code: "ABORTED" });
    expect(readdirSync(parent)).toEqual([]);
  });
});

describe("quantizeFp8", () => {
  /** Quantises one matrix through a file. */
  function quantised(shape: number[], values: ArrayLike<number>) {
    const path = join(temporaryFolder(), "x.safetensors");
    writeSafetensors(path, new Map([["x", float32Tensor(shape, values)]]));
    const file = openSafetensors(path);
    const out = quantizeFp8(file, file.entries[0]!);
    file.close();
    rmSync(path);
    return out;
  }
  /** A row whose scale is 1: values, then 448. */
  const codesOf = (values: number[]) => {
    const { data, scale } = quantised([1, values.length + 1], [...values, 448]);
    expect([...scale]).toEqual([1]);
    return [...data.subarray(0, values.length)];
  };

  it("gives back every code from its value", () => {
    const codes = Array.from({ length: 256 }, (_, c) => c).filter((c) => (c & 0x7f) !== 0x7f);
    const values = valuesOf({ dtype: "F8_E4M3", shape: [254], data: Uint8Array.from(codes) });
    for (let i = 0; i < codes.length; i += 100) expect(codesOf([...values.slice(i, i + 100)])).toEqual(codes.slice(i, i + 100));
  });
  it("rounds to the nearest, ties to even, denormals and the step to normals included", () => {
    const unit = 2 ** -9;
    expect(codesOf([0.5 * unit, 0.500001 * unit, 1.5 * unit, 2.5 * unit, 7.5 * unit, 7.4999 * unit, -0.5 * unit, -0])).toEqual([
      0, 1, 2, 2, 8, 7, 0x80, 0x80,
    ]);
    expect(codesOf([1.0625, 1.0626, 1.1875, 17, 19, 432, 439.9, -1.0625])).toEqual([0x38, 0x39, 0x3a, 0x58, 0x5a, 0x7e, 0x7e, 0xb8]);
  });
  it("gives NaN its own code and does not let it into the scale", () => {
    const { data, scale } = quantised([1, 3], [Number.NaN, -2, 1]);
    expect(data[0]).toBe(0x7f);
    expect(scale[0]).toBe(Math.fround(2 / 448));
  });
  it("gives zeros a scale above zero", () => {
    const { data, scale } = quantised([2, 2], [0, 0, 0, 0]);
    expect([...data]).toEqual([0, 0, 0, 0]);
    expect(scale[0]).toBe(Math.fround(Math.fround(1e-12) / 448));
  });
  it("takes each block of 128 × 128 by itself, the ragged last ones too", () => {
    const [rows, columns] = [130, 257];
    const values = Float32Array.from(
      { length: rows * columns },
      (_, i) => 1 + Math.floor(i / columns / 128) * 3 + Math.floor((i % columns) / 128),
    );
    const { data, scale } = quantised([rows, columns], values);
    expect([...scale]).toEqual([1, 2, 3, 4, 5, 6].map((v) => Math.fround(v / 448)));
    expect(new Set(data)).toEqual(new Set([0x7e]));
  });
  it("refuses what is no float matrix, and a file that is closed", () => {
    const path = join(temporaryFolder(), "x.safetensors");
    writeSafetensors(
      path,
      new Map([
        ["v", float32Tensor([2], [1, 2])],
        ["b", { dtype: "U8", shape: [1, 2], data: new Uint8Array(2) }],
      ]),
    );
    const file = openSafetensors(path);
    for (const entry of file.entries)
      expect(() => quantizeFp8(file, entry)).toThrow(expect.objectContaining({ code: "CHECKPOINT_INVALID" }));
    expect(() => quantizeFp8(file, { ...file.entries[0]!, begin: 3 })).toThrow(expect.objectContaining({ code: "INTERNAL" }));
    expect(() => quantizeFp8({} as never, file.entries[0]!)).toThrow(expect.objectContaining({ code: "INTERNAL" }));
    const entry = file.entries[0]!;
    file.close();
    expect(() => quantizeFp8(file, entry)).toThrow(expect.objectContaining({ code: "DISPOSED" }));
  });
});
