/** `longcat bench kernels`: which program it runs, what reaches it and what does not, what comes back. */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, it } from "vitest";
import { findGpus } from "../../ts/runtime/gpus.js";
import { kernelsBeside, operationNames } from "../../ts/runtime/kernels-program.js";
import { longcat } from "./longcat.js";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "longcat-kernels-"));
afterAll(() => rmSync(folder, { recursive: true }));

it("finds the program in the addon's folder, else one above", () => {
  const release = join(folder, "build", "Release");
  mkdirSync(release, { recursive: true });
  const addon = join(release, "longcat.node");
  expect(() => kernelsBeside(addon)).toThrow(
    expect.objectContaining({ code: "NATIVE_MISSING", message: expect.stringContaining(`${join(release, "kernels")}: absent`) }),
  );
  expect(() => kernelsBeside(addon)).toThrow(/build it here with: npm run build$/);
  writeFileSync(join(folder, "build", "kernels"), "");
  expect(kernelsBeside(addon)).toBe(join(folder, "build", "kernels"));
  writeFileSync(join(release, "kernels"), "");
  expect(kernelsBeside(addon)).toBe(join(release, "kernels"));
});

it("measures one operation: a JSON document with ceilings and rows, and a roofline", async () => {
  const svg = join(folder, "roofline.svg");
  const words = [
    "bench",
    "kernels",
    "rms_norm",
    "--device",
    "cpu",
    "--shape",
    "mini",
    "--tokens",
    "1,16",
    "--threads",
    "1",
    "--json",
    "--svg",
    svg,
  ];
  const { code, stdout, stderr } = await longcat(words);
  expect([code, stderr]).toEqual([0, ""]);
  const report = JSON.parse(stdout);
  expect(report.ceilings).toEqual({ gigabytesPerSecond: expect.any(Number), mmaTeraflops: null, fmaTeraflops: expect.any(Number) });
  expect(report.rows.map((row: { op: string; model: string; tokens: number }) => [row.op, row.model, row.tokens])).toEqual([
    ["rms_norm", "mini", 1],
    ["rms_norm", "mini", 16],
  ]);
  for (const { microseconds, bytes, gigabytesPerSecond, share, bound } of report.rows) {
    expect(gigabytesPerSecond).toBeCloseTo(bytes / microseconds / 1e3, 1);
    expect(share).toBeGreaterThan(0);
    expect(bound).toMatch(/^(memory|fma)$/);
  }
  const picture = readFileSync(svg, "utf8");
  expect(picture.match(/<circle[^>]*><title>rms_norm, mini 256, \d+ tokens/g)).toHaveLength(2);
  expect(picture).toMatch(/f32 multiply-add: [\d.]+ TFLOP\/s/);
});

it("names the operations that the program knows", () => {
  const program = kernelsBeside(resolve(process.env["LONGCAT_NATIVE"] ?? join(ROOT, "build", "Release", "longcat.node")));
  const { status, stderr } = spawnSync(program, ["bench", "no_such_op"], { encoding: "utf8" });
  expect([status, stderr]).toEqual([2, expect.stringContaining(`there are ${operationNames().join(", ")};`)]);
});

it.each([
  [["no_such_op"], 2, `usage error: no operation "no_such_op"; there are ${operationNames().join(", ")}\n`],
  [["--shape", "giant"], 2, 'usage error: --shape: "giant" is none of flash, lite, mini, all\n'],
  [["--tokens", "1,x"], 2, 'usage error: --tokens: "x" is not a number\n'],
  [["--device", "tpu"], 2, 'usage error: --device: "tpu" is none of auto, cpu, cuda, cuda:N\n'],
  [["--device", "cpu", "--fp8-activations"], 2, "usage error: --fp8-activations needs a GPU, and the processor is measured\n"],
  [["--svg", "/nowhere/a.svg"], 1, "error: OPTION_INVALID: --svg /nowhere/a.svg: ENOENT: no such file or directory, access '/nowhere'\n"],
])("refuses %j before the program runs", async (words, wantedCode, wantedWords) => {
  expect(await longcat(["bench", "kernels", ...words])).toMatchObject({ code: wantedCode, stdout: "", stderr: wantedWords });
});

it.skipIf(findGpus().devices.length > 0)(
  "refuses a GPU that is not there in the engine's words, and takes the processor for auto",
  async () => {
    for (const words of [
      ["--device", "cuda"],
      ["--isa", "cuda-bf16"],
    ]) {
      const { code, stdout, stderr } = await longcat(["bench", "kernels", "rms_norm", ...words]);
      expect([code, stdout]).toEqual([1, ""]);
      expect(stderr).toMatch(/^error: DEVICE_UNAVAILABLE: device "cuda": .*; give "cpu" or "auto"\n$/);
    }
    const auto = await longcat(["bench", "kernels", "rms_norm", "--device", "auto", "--shape", "mini", "--tokens", "1", "--json"]);
    expect([auto.code, JSON.parse(auto.stdout).device]).toEqual([0, expect.stringMatching(/^processor/)]);
  },
);

it("warns of a flag that changes nothing on the processor", async () => {
  const words = ["--device", "cpu", "--shape", "mini", "--tokens", "1", "--json", "--no-batch-invariant"];
  const { code, stderr } = await longcat(["bench", "kernels", "rms_norm", ...words]);
  expect([code, stderr]).toEqual([0, "warning: batchInvariant: false has no effect on the CPU: its bits are the same in any batch\n"]);
});
