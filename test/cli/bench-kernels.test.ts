/** `longcat bench kernels`: which program it runs, what reaches it, what comes back. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { kernelsBeside } from "../../ts/runtime/kernels-program.js";
import { longcat } from "./longcat.js";

const folder = mkdtempSync(join(tmpdir(), "longcat-kernels-"));
afterAll(() => rmSync(folder, { recursive: true }));

it("finds the program in the addon's folder, else one above", () => {
  const release = join(folder, "build", "Release");
  mkdirSync(release, { recursive: true });
  const addon = join(release, "longcat.node");
  expect(() => kernelsBeside(addon)).toThrow(
    expect.objectContaining({ code: "NATIVE_MISSING", message: expect.stringContaining(`${join(release, "kernels")}: absent`) }),
  );
  expect(() => kernelsBeside(addon)).toThrow(/build it here with: .*build-native\.mjs.* longcat kernels$/);
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

it.each([
  [["no_such_op"], 1, /^no benchmark of "no_such_op"$/m],
  [["--shape", "giant"], 2, /^--shape giant: one of all, flash, lite, mini is wanted$/m],
  [["--tokens", "1,x"], 2, /^--tokens x: an integer from 1 is wanted$/m],
  [["--device", "tpu"], 2, /^--device tpu: cpu, cuda or cuda:N is wanted$/m],
])("hands on what the program says against %j", async (words, wantedCode, wantedWords) => {
  const { code, stdout, stderr } = await longcat(["bench", "kernels", ...words]);
  expect([code, stdout]).toEqual([wantedCode, ""]);
  expect(stderr).toMatch(wantedWords);
});
