/** `longcat bench layer` and `bench prefill`, and `bench decode` with random weights: what they print, and what they refuse. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { describeWhere } from "../../ts/cli/bench-flags.js";
import { LAYER_OPERATIONS } from "../../ts/model/layer-cost.js";
import { temporaryFolder } from "../helpers/fixtures.js";
import { longcat } from "./longcat.js";

/** Runs a bench on the CPU for its document. */
async function document(...words: string[]) {
  const { code, stdout, stderr } = await longcat(["bench", ...words, "--device", "cpu", "--threads", "2", "--json"]);
  expect([code, stderr]).toEqual([0, ""]);
  return JSON.parse(stdout);
}

it("counts and measures packed latent caches", async () => {
  const steps = ["--batch", "2", "--context", "40", "--prompt", "20", "--samples", "1"];
  const [fp8, plain] = [await document("layer", ...steps, "--cache-dtype", "fp8"), await document("layer", ...steps)];
  expect(fp8.cacheDType).toBe("fp8");
  const bytesOf = (report: typeof fp8) => report.results[0].operations.find(({ op }: { op: string }) => op === "mla_decode").bytes;
  expect(bytesOf(fp8)).toBeLessThan(bytesOf(plain));
});

it("measures every operation of a layer and the whole, for decode steps and prompts", async () => {
  const svg = join(temporaryFolder(), "layer.svg");
  const steps = ["--batch", "1,3", "--context", "20", "--prompt", "40"];
  const report = await document("layer", "--dtype", "fp8", "--experts-held", "4", "--samples", "1", ...steps, "--svg", svg);
  expect(report).toMatchObject({
    shape: "mini",
    dtype: "fp8",
    expertsHeld: 4,
    experts: 24,
    layers: 2,
    device: "cpu",
    gpu: null,
    activations: "float32",
    cacheDType: "float32",
    samples: 1,
  });
  expect(report.notes).toEqual([
    "4 of 24 experts are held: expert e is expert e mod 4",
    expect.stringMatching(/^all weights together take [\d.]+ MiB: operations may find them in the device's cache$/),
  ]);
  expect(report.results.map(({ kind, batch, rows, context }: Record<string, unknown>) => [kind, batch, rows, context])).toEqual([
    ["decode", 1, 1, 21],
    ["decode", 3, 3, 21],
    ["prompt", 1, 40, 0],
  ]);
  for (const result of report.results) {
    const names = LAYER_OPERATIONS.map(([op]) => (op === "mla_decode" && result.kind === "prompt" ? "mla_prefill" : op));
    expect(result.operations.map(({ op }: { op: string }) => op)).toEqual(names);
    const sum = (field: string) => result.operations.reduce((total: number, row: Record<string, number>) => total + row[field]!, 0);
    expect(sum("us")).toBeCloseTo(result.sumUs, 3);
    expect(Math.abs(sum("bytes") - result.bytes)).toBeLessThan(20);
    expect(Math.abs(sum("flops") - result.flops)).toBeLessThan(20);
    for (const { op, us, bytes, flops, gigabytesPerSecond, floorUs, shareOfFloor } of result.operations) {
      expect(us).toBeGreaterThan(0);
      expect(bytes).toBeGreaterThan(0);
      if (op !== "rms_norm" && op !== "moe_experts") expect(flops, op).toBeGreaterThan(0);
      expect(gigabytesPerSecond).toBeCloseTo(bytes / us / 1e3, 3);
      expect(shareOfFloor).toBeCloseTo(floorUs / us, 6);
    }
    expect(result.serialUs).toBeGreaterThan(0);
    expect(result.overlapUs).toBeGreaterThan(0);
    expect(result.ffnExpertsPerToken).toBeLessThanOrEqual(6);
    expect(result.distinctExperts).toBeLessThanOrEqual(24);
  }
  const picture = readFileSync(svg, "utf8");
  expect(picture.match(/<rect [^>]*fill="#1f4e86"/g)).toHaveLength(3 * (LAYER_OPERATIONS.length + 2));
});

it("measures steps that verify drafts: as many sequences, more rows", async () => {
  const { results } = await document("layer", "--samples", "1", "--batch", "2", "--context", "20", "--queries", "3");
  const [{ kind, batch, queries, rows, context, operations }] = results;
  expect({ kind, batch, queries, rows, context }).toEqual({ kind: "decode", batch: 2, queries: 3, rows: 6, context: 21 });
  expect(operations).toHaveLength(LAYER_OPERATIONS.length);
});

it("measures a layer as one rank of many: as many rows for each of the held experts as asked for", async () => {
  const share = ["--experts-held", "3", "--expert-rows", "4"];
  const report = await document("layer", "--batch", "2,5", "--prompt", "9", "--samples", "1", ...share);
  expect(report).toMatchObject({ expertsHeld: 3, expertRows: 4, experts: 24 });
  expect(report.notes[0]).toBe("3 of 24 experts are held: one rank of many");
  expect(report.results.map(({ rows }: { rows: number }) => rows)).toEqual([2, 5, 9]);
  for (const { operations, rows, ffnExpertsPerToken, distinctExperts } of report.results) {
    expect([ffnExpertsPerToken, distinctExperts]).toEqual([12 / rows, 3]);
    const { bytes, flops } = operations.find(({ op }: { op: string }) => op === "moe_experts");
    expect(bytes).toBe(3 * 3 * 256 * 128 * 2 + rows * 2 * 256 * 4);
    expect(flops).toBe(2 * 12 * 3 * 256 * 128);
    expect(operations.find(({ op }: { op: string }) => op === "moe_route").us).toBeGreaterThan(0);
  }
});

it.each([
  [["--expert-rows", "8"], [16]],
  [["--expert-rows", "8", "--queries", "2"], [16]],
  [["--expert-rows", "30"], [20]],
])("leaves out the usual batches that have too few rows for %j", async (words, batches) => {
  const { results } = await document("layer", "--experts-held", "4", "--samples", "1", ...words);
  expect(results.map(({ batch }: { batch: number }) => batch)).toEqual(batches);
});

it("tells of flags that change nothing on the CPU, and goes on", async () => {
  const told = "batchInvariant: false has no effect on the CPU: its bits are the same in any batch";
  const layer = await document("layer", "--batch", "1", "--samples", "1", "--no-batch-invariant");
  expect(layer.notes).toContain(told);
  const prefill = await document("prefill", "--random-weights", "--tokens", "4", "--runs", "1", "--no-batch-invariant");
  expect(prefill.notes).toEqual([told]);
});

it("names the GPU that it ran on, or the CPU's threads and instructions", () => {
  expect(describeWhere({ device: "cuda", gpu: "NVIDIA H100 80GB HBM3", threads: 1, isa: "9.0" })).toBe(
    "cuda (NVIDIA H100 80GB HBM3, compute capability 9.0)",
  );
  expect(describeWhere({ device: "cpu", gpu: null, threads: 8, isa: "avx2" })).toBe("cpu (8 threads, avx2)");
});

it("prints an aligned line an operation", async () => {
  const { code, stdout, stderr } = await longcat(["bench", "layer", "--device", "cpu", "--batch", "2", "--samples", "1"]);
  expect(code).toBe(0);
  expect(stderr).toMatch(/^a layer of mini on cpu \(/);
  const lines = stdout.trimEnd().split("\n").slice(1);
  expect(lines).toHaveLength(LAYER_OPERATIONS.length + 3);
  for (const line of lines) expect(line).toMatch(/^\S.* +[\d.]+ µs +-?[\d.]+ GB\/s +-?[\d.]+ TFLOP\/s +-?[\d.]+ %$/);
  expect(new Set(lines.map((line) => line.indexOf(" µs"))).size).toBe(1);
});

it("measures prompts of a checkpoint and of random weights", async () => {
  const mini = await document("prefill", "--tokens", "8,100", "--runs", "1", "--max-batch-tokens", "100");
  expect(mini).toMatchObject({ shape: null, layers: 2, dtype: "as stored", maxBatchTokens: 100, runs: 1, notes: [] });
  const random = await document(
    "prefill",
    "--random-weights",
    "--layers",
    "3",
    "--tokens",
    "8,100",
    "--runs",
    "1",
    "--max-batch-tokens",
    "64",
  );
  expect(random).toMatchObject({ model: "random weights", shape: "mini", layers: 3, dtype: "bfloat16", maxBatchTokens: 64 });
  for (const [{ results }, chunks] of [
    [mini, 1],
    [random, 2],
  ]) {
    expect(results.map((result: Record<string, number>) => [result["tokens"], result["chunks"]])).toEqual([
      [8, 1],
      [100, chunks],
    ]);
    for (const { tokens, ms, tokensPerSecond, flops, teraflops } of results) {
      expect(tokensPerSecond).toBeCloseTo((1000 * tokens) / ms, 3);
      expect(teraflops).toBeCloseTo(flops / ms / 1e9, 6);
    }
  }
});

it("decodes with random weights: the engine's speed beside the runner's", async () => {
  const words = ["--random-weights", "--shape", "mini", "--layers", "3", "--dtype", "fp8", "--experts-held", "2", "--context", "40"];
  const report = await document("decode", ...words, "--batch", "1,5", "--tokens", "6", "--runs", "1");
  expect(report).toMatchObject({ shape: "mini", layers: 3, dtype: "fp8", expertsHeld: 2, promptTokens: 40, tokens: 6 });
  expect(report.memoryBytes).toBeGreaterThan(1e6);
  expect(report.results.map(({ batch }: { batch: number }) => batch)).toEqual([1, 5]);
  for (const result of report.results) {
    for (const [name, value] of Object.entries(result)) expect(value, name).toBeGreaterThan(0);
    expect(result.runnerStepUs).toBeCloseTo((1e6 * result.batch) / result.runnerTokensPerSecond, 3);
    expect(result.runnerShareOfFloor).toBeCloseTo((1000 * result.floorMs) / result.runnerStepUs, 6);
  }
});

it.each([
  [["layer", "--shape", "giant"], 2, 'usage error: --shape: "giant" is none of flash, lite, mini'],
  [["layer", "--dtype", "int4"], 2, 'usage error: --dtype: "int4" is none of bfloat16, fp8, float32'],
  [["layer", "--device", "tpu"], 2, 'usage error: --device: "tpu" is none of auto, cpu, cuda, cuda:N'],
  [["layer", "--batch", "0"], 2, "usage error: --batch: 0 is not a whole number from 1 to 1024"],
  [
    ["layer", "--device", "cpu", "--experts-held", "25"],
    1,
    "error: OPTION_INVALID: experts held: 25 is not accepted: the model has 1 to 24",
  ],
  [
    ["layer", "--queries", "2", "--prompt", "128"],
    2,
    "usage error: --queries are rows of decode steps, and --prompt measures prompts; give --batch too",
  ],
  [["layer", "--expert-rows", "4"], 2, "usage error: --expert-rows needs --experts-held"],
  [
    ["layer", "--device", "cpu", "--batch", "8,2", "--experts-held", "3", "--expert-rows", "5"],
    1,
    "error: OPTION_INVALID: expert rows: 5 for each of 3 experts are 15 picks, 6 a row; give steps of 3 rows or more (batch, prompt), not of 2",
  ],
  [["prefill", "--layers", "2"], 2, "usage error: --layers needs --random-weights"],
  [["prefill", "--random-weights", "--model", "x"], 2, "usage error: --model and --random-weights exclude each other"],
  [["prefill", "--device", "cpu", "--tokens", "5000"], 1, "error: OPTION_INVALID: tokens: 5000 is more than the context of 4096"],
  [
    ["prefill", "--random-weights", "--device", "cpu", "--cache-bytes", "1000"],
    1,
    'error: OPTION_INVALID: cacheBytes: 1000 does not go with random weights; give "auto"',
  ],
  [
    ["decode", "--random-weights", "--device", "cpu", "--debug", "poison"],
    1,
    'error: OPTION_INVALID: debug: "poison" does not go with random weights; give "off"',
  ],
  [
    ["decode", "--random-weights", "--device", "cpu", "--ngram", "host"],
    1,
    'error: OPTION_INVALID: ngram: "host" does not go with random weights; give "auto"',
  ],
  [
    ["decode", "--random-weights", "--device", "cpu", "--allow-unknown-tensors"],
    1,
    "error: OPTION_INVALID: allowUnknownTensors: true does not go with random weights; give false",
  ],
  [["decode", "--shape", "mini"], 2, "usage error: --shape needs --random-weights"],
  [["decode", "--device", "cpu", "--dtype", "fp8"], 1, 'error: OPTION_INVALID: dtype: "fp8"'],
])("refuses %j", async (words, wantedCode, wantedWords) => {
  const { code, stdout, stderr } = await longcat(["bench", ...words]);
  expect([code, stdout]).toEqual([wantedCode, ""]);
  expect(stderr.slice(0, wantedWords.length)).toBe(wantedWords);
});
