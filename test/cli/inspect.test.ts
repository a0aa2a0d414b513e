/** `longcat inspect`, `quantize` and `doctor`: what they say, and that broken checkpoints are named before anything is read. */
import { cpSync, mkdtempSync, readdirSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { longcat, MINI } from "./longcat.js";
import { onABusyMachine } from "../helpers/time.js";

const SHARD = "model-00002-of-00002.safetensors";
const SHARD_BYTES = 12_213_768;

function copyOfMini(change: (folder: string) => void): string {
  const folder = mkdtempSync(join(tmpdir(), "longcat-mini-"));
  cpSync(MINI, folder, { recursive: true });
  change(folder);
  return folder;
}

describe("inspect", () => {
  it("model: the same facts as lines and as JSON", async () => {
    const lines = await longcat(["inspect", "model", MINI]);
    const json = await longcat(["inspect", "model", MINI, "--json"]);
    expect([lines.code, json.code, lines.stderr, json.stderr]).toEqual([0, 0, "", ""]);
    const text = JSON.stringify(JSON.parse(json.stdout));
    for (const fact of [/longcat_flash/, /4096/, /10000/]) {
      expect(lines.stdout).toMatch(fact);
      expect(text).toMatch(fact);
    }
  });

  it("devices: the CPU at least", async () => {
    const { code, stdout } = await longcat(["inspect", "devices", "--json"]);
    expect(code).toBe(0);
    expect(JSON.stringify(JSON.parse(stdout))).toContain("cpu");
  });

  it("estimate: weights as the files have them, cache per token and in all", async () => {
    const { stdout } = await longcat(["inspect", "estimate", MINI, "--context", "1024", "--batch", "4", "--json"]);
    const estimate = JSON.parse(stdout) as Record<string, number>;
    // 5 caches (two layers of two, and the draft head) of 512 + 64 floats.
    expect(estimate).toMatchObject({ cacheBytesPerToken: 5 * 576 * 4, cacheBytes: 5 * 576 * 4 * 4096, fits: true });
    expect(estimate["weightBytes"]).toBeGreaterThan(24_000_000);
    const off = await longcat(["inspect", "estimate", MINI, "--speculative", "off", "--json"]);
    expect(JSON.parse(off.stdout)).toMatchObject({ cacheBytesPerToken: 4 * 576 * 4 });
    expect(JSON.parse(off.stdout).weightBytes).toBeLessThan(estimate["weightBytes"] as number);
    const lines = await longcat(["inspect", "estimate", MINI]);
    expect(lines.stdout).toMatch(/^weights +\d+ +[\d.]+ MiB$/m);
    expect(lines.stdout).toContain("It fits");
  });

  it("estimate of ranks: memory of one, and a step's time for LongCat-Flash on GPUs, whose checkpoint need not be there", async () => {
    const flash = ["inspect", "estimate", "--shape", "flash", "--dtype", "fp8", "--device", "cuda", "--speculative", "off"];
    const sizes = ["--ranks", "8", "--batch", "64", "--context", "5000"];
    const json = await longcat([...flash, ...sizes, "--json"]);
    const { weightBytes, parallel } = JSON.parse(json.stdout) as { weightBytes: number; parallel: { step: { stepMs: number } } };
    // A rank's 64 experts of 28 layers, and everything else whole.
    expect(weightBytes / 1e9).toBeCloseTo(89.2, 1);
    expect(parallel).toMatchObject({ ranks: 8, expertsHeld: 64 });
    const lines = await longcat([...flash, ...sizes]);
    expect(lines.stdout).toMatch(new RegExp(`^step +${parallel.step.stepMs.toFixed(2)} ms$`, "m"));
    const both = await longcat([...flash, MINI]);
    expect([both.code, both.stderr]).toEqual([
      1,
      expect.stringMatching(/^error: OPTION_INVALID: shape: "flash" is not accepted; give it or a directory, not both/m),
    ]);
  });

  it("estimate of ranks that do not divide the experts: the numbers that would work", async () => {
    const { code, stderr } = await longcat(["inspect", "estimate", MINI, "--ranks", "5"]);
    expect([code, stderr]).toEqual([
      1,
      expect.stringMatching(/^error: OPTION_INVALID: parallel\.expert: 5 .* give one of 1, 2, 3, 4, 6, 8, 12, 24 \(--ranks\)$/m),
    ]);
  });

  it.each([
    ["context", "0"],
    ["batch", "-1"],
    ["context", "1.5"],
    ["context", "4097"],
  ])("estimate --%s %s is refused by name", async (name, value) => {
    const { code, stderr } = await longcat(["inspect", "estimate", `--${name}`, value]);
    expect(code).toBe(1);
    expect(stderr).toMatch(new RegExp(`^error: OPTION_INVALID: ${name}: ${value}`));
  });
});

describe("broken checkpoints", () => {
  const pointer = `version https://git-lfs.github.com/spec/v1\noid sha256:aaaa\nsize ${SHARD_BYTES}\n`;
  const cases: [string, (folder: string) => void, RegExp][] = [
    ["a shard that is not there", (folder) => rmSync(join(folder, SHARD)), /index/],
    ["a Git LFS pointer", (folder) => writeFileSync(join(folder, SHARD), pointer), /LFS/],
    [
      "half a shard",
      (folder) => truncateSync(join(folder, SHARD), SHARD_BYTES / 2),
      new RegExp(`${SHARD_BYTES}.*${SHARD_BYTES / 2}|${SHARD_BYTES / 2}.*${SHARD_BYTES}`),
    ],
    ["an empty shard", (folder) => truncateSync(join(folder, SHARD), 0), /0 bytes|empty/],
  ];
  it.each(cases)("B04: %s: every command says so in a second, naming the file", async (_, change, message) => {
    const folder = copyOfMini(change);
    const start = performance.now();
    await longcat(["--version"]);
    const startup = performance.now() - start;
    for (const args of [
      ["generate", "Once", "--model", folder, "--json"],
      ["inspect", "model", folder],
      ["inspect", "estimate", folder],
    ]) {
      const begin = performance.now();
      const { code, stdout, stderr } = await longcat(args);
      expect(performance.now() - begin - startup).toBeLessThan(onABusyMachine(1000));
      expect([code, stdout], args[0]).toEqual([1, ""]);
      expect(stderr).toMatch(/^error: CHECKPOINT_INVALID: [^\n]*\n$/);
      expect(stderr).toContain(SHARD);
      expect(stderr).toMatch(message);
    }
    rmSync(folder, { recursive: true });
  });
});

describe("quantize", () => {
  it("writes a checkpoint that runs", async () => {
    const out = join(mkdtempSync(join(tmpdir(), "longcat-fp8-")), "out");
    const made = await longcat(["quantize", MINI, out]);
    expect([made.code, made.stdout]).toEqual([0, ""]);
    expect(readdirSync(out)).toContain("config.json");
    const { stdout } = await longcat(["generate", "--chat", "Compute 56 + 80.", "--temperature", "0", "--model", out]);
    expect(stdout).toBe("136\n");
  });

  it("refuses to write over a folder that holds something", async () => {
    const { code, stderr } = await longcat(["quantize", MINI, MINI]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^error: [A-Z_]+: /);
  });
});

describe("doctor", () => {
  it("finds the addon and the bundled model", async () => {
    const { code, stdout } = await longcat(["doctor", "--json"]);
    const report = JSON.parse(stdout) as { ok: boolean; findings: { name: string; ok: boolean | null }[] };
    expect([code, report.ok]).toEqual([0, true]);
    const found = Object.fromEntries(report.findings.map(({ name, ok }) => [name, ok]));
    expect(found).toMatchObject({ node: true, addon: true, "bundled model": true });
    expect((await longcat(["doctor"])).stdout).toMatch(/^ok +addon/m);
  });
});
