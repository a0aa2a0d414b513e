/** scripts/test-gpu.mjs, where no GPU is needed: what it refuses, and that what it runs needs no more than is there. */
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { expect, it } from "vitest";
import { ROOT } from "./devices.js";

it("refuses words of which one begins no test's name, though another does", () => {
  const { status, stderr } = spawnSync(process.execPath, ["scripts/test-gpu.mjs", "goldens", "nonsense"], { cwd: ROOT, encoding: "utf8" });
  expect([status, stderr]).toEqual([
    2,
    expect.stringMatching(/^usage error: no file begins with "nonsense"; there are .*goldens\.test\.js/),
  ]);
});

it("runs tests that import Node's own modules and this repository's alone, as do their helpers: beside a GPU there may be no others", () => {
  const tests = join(ROOT, "test");
  const files = readdirSync(join(tests, "gpu")).map((name) => join(tests, "gpu", name));
  const others: string[] = [];
  for (const file of files) {
    for (const [, from] of readFileSync(file, "utf8").matchAll(/(?:\bfrom |^import |\bimport\()"([^"]+)"/gm)) {
      if (from!.startsWith("node:")) continue;
      if (!from!.startsWith(".")) others.push(`${relative(tests, file)}: ${from}`);
      const path = join(dirname(file), from!.replace(/\.js$/, ".ts"));
      if (path.startsWith(`${tests}/helpers/`) && !files.includes(path)) files.push(path); // to be looked at as well
    }
  }
  expect(others).toEqual([]);
  expect(files.map((file) => relative(tests, file))).toContain("helpers/runs.ts");
});
