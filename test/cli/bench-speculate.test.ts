/** `longcat bench speculate`: accepted lengths, speeds beside the formula, idle time. */
import { expect, it } from "vitest";
import { modelPath } from "../helpers/paths.js";
import { longcat } from "./longcat.js";

it("measures acceptance by drafts and speeds by batch, as one JSON document", async () => {
  const flags = ["--device", "cpu", "--batch", "1,3", "--drafts", "1,2", "--tokens", "24", "--runs", "1", "--json"];
  const { code, stdout } = await longcat(["bench", "speculate", "Once upon a time", ...flags]);
  expect(code).toBe(0);
  const report = JSON.parse(stdout);
  expect(report).toMatchObject({ device: "cpu", drafts: [1, 2], batches: [1, 3], tokens: 24, prompts: ["Once upon a time"] });
  const [one, two, ...speeds] = report.results;
  expect(one).toMatchObject({ kind: "acceptance", drafts: 1, shares: [expect.any(Number)] });
  expect(two.shares).toHaveLength(2);
  expect(one.acceptedLength).toBeCloseTo(1 + one.shares[0], 9);
  expect(one.shares[0]).toBeGreaterThan(0.5);
  expect(speeds.map(({ batch, drafts }: { batch: number; drafts: unknown }) => [batch, drafts])).toEqual(
    [1, 3].flatMap((batch) => ["off", 1, 2, "auto", "off, alone"].map((drafts) => [batch, drafts])),
  );
  for (const batch of [1, 3]) {
    const [off, ...others] = speeds.filter((speed: { batch: number }) => speed.batch === batch);
    expect(off).toMatchObject({ drafts: "off", draftUs: 0, predictedSpeedup: null });
    for (const speed of [off, ...others]) {
      expect(speed.tokensPerSecond).toBeGreaterThan(0);
      expect(speed.idleShare).toBeLessThan(1);
    }
    for (const [i, { shares }] of [one, two].entries()) {
      const { verifyUs, draftUs, predictedSpeedup } = others[i];
      expect(draftUs).toBeGreaterThan(0);
      const length = shares.reduceRight((sum: number, share: number) => 1 + share * sum, 1);
      expect(predictedSpeedup).toBeCloseTo((length * off.verifyUs) / (verifyUs + draftUs), 9);
    }
    for (const auto of others.slice(2)) expect(auto).toMatchObject({ verifyUs: null, draftUs: null, predictedSpeedup: null });
  }
});

it("prints aligned lines, and refuses what cannot be", async () => {
  const { code, stdout } = await longcat([
    "bench",
    "speculate",
    "--device",
    "cpu",
    "--batch",
    "1",
    "--drafts",
    "1",
    "--tokens",
    "12",
    "--runs",
    "1",
  ]);
  expect(code).toBe(0);
  expect(stdout).toMatch(/^1 draft .*tokens a step {2}accepted by place +\d/m);
  expect(stdout).toMatch(/^batch +1 {2}1 draft .*times {2}predicted +\d.*idle/m);
  expect(await longcat(["bench", "speculate", "--drafts", "5"])).toMatchObject({ code: 2, stderr: expect.stringContaining("--drafts: 5") });
  expect(await longcat(["bench", "speculate", "--speculative", "2"])).toMatchObject({ code: 2 });
});

it("has a cache for its rows, not for as many contexts", async () => {
  const words = ["--device", "cpu", "--batch", "2", "--drafts", "1", "--tokens", "10", "--runs", "1", "--json"];
  const { memoryBytes } = JSON.parse((await longcat(["bench", "speculate", ...words])).stdout);
  // 16 answers at once, of 256 + 10 tokens and what is behind them, and the scratch of a step of 4096 tokens.
  expect(memoryBytes).toBeLessThan(256 * 1024 ** 2);
});

it.each<[string[], number, RegExp]>([
  [["--batch", "1,4", "--max-sequences", "2"], 1, /OPTION_INVALID: batch: 4 rows of \d+ tokens do not run at once; .* at most 2$/m],
  [["--batch", "4", "--cache-bytes", "3000000"], 1, /OPTION_INVALID: batch: 4 rows of \d+ tokens do not run at once/],
  [
    ["--tokens", "5000"],
    1,
    /OPTION_INVALID: tokens: 5000 after a prompt of 12 is more than the context of 4096 .* at most 4074 are accepted$/m,
  ],
  [["--model", modelPath("tiny-a")], 1, /OPTION_INVALID: .*tiny-a: this checkpoint has no draft head/],
  [["--tokens", "2"], 2, /--tokens: 2 is not a whole number from 10/],
  [["--drafts", "1,2,1"], 2, /--drafts: 1 is given twice/],
  [["--batch", "4,4"], 2, /--batch: 4 is given twice/],
  [["--temperature", "-1"], 2, /--temperature: -1 is not a number of at least 0/],
])("refuses %j before anything is measured", async (words, wanted, message) => {
  const { code, stdout, stderr } = await longcat(["bench", "speculate", "--device", "cpu", ...words]);
  expect([code, stdout]).toEqual([wanted, ""]);
  expect(stderr).toMatch(message);
  expect(stderr.trimEnd().split("\n")).toHaveLength(1);
});
