/** `longcat bench speculate`: accepted lengths, speeds beside the formula, idle time. */
import { expect, it } from "vitest";
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
