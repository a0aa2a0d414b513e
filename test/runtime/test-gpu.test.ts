/** scripts/test-gpu.mjs, where no GPU is needed: what it refuses. */
import { spawnSync } from "node:child_process";
import { expect, it } from "vitest";
import { ROOT } from "./devices.js";

it("refuses words of which one begins no test's name, though another does", () => {
  const { status, stderr } = spawnSync(process.execPath, ["scripts/test-gpu.mjs", "goldens", "nonsense"], { cwd: ROOT, encoding: "utf8" });
  expect([status, stderr]).toEqual([
    2,
    expect.stringMatching(/^usage error: no file begins with "nonsense"; there are .*goldens\.test\.js/),
  ]);
});
