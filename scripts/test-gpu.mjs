// The tests that need a GPU, with Node's own test runner: node scripts/test-gpu.mjs [--compile] [--allow-none] [file …]
// They run from compiled JavaScript in dist-test/, so that a machine with a GPU needs Node, the addon and the run-time dependencies alone.
// Where TypeScript is installed they are compiled first; --compile does only that.
// Exit code 1 if a test failed, or if there was no GPU and nothing was tested; --allow-none makes the latter 0.

import { spawnSync } from "node:child_process";
import { cpSync, existsSync, lstatSync, mkdirSync, readdirSync, rmSync, symlinkSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { argumentsOf, flag, wrongUsage } from "./arguments.mjs";

const USAGE = "npm run test:gpu [-- [--compile] [--allow-none] [file …]]";
const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const OUT = join(ROOT, "dist-test");
const TESTS = join(OUT, "test", "gpu");

/** What compiled code looks for beside itself, as in the repository. */
const LINKS = ["build", "prebuilds", "models", join("test", "fixtures")];

function run(args) {
  return spawnSync(process.execPath, args, { cwd: ROOT, stdio: "inherit" }).status ?? 1;
}

/** Compiles if it can; whether the tests are there. */
function compile() {
  const tsc = join(ROOT, "node_modules", "typescript", "bin", "tsc");
  if (existsSync(tsc)) {
    rmSync(OUT, { recursive: true, force: true });
    if (run([tsc, "-p", "tsconfig.gpu.json"]) !== 0) return false;
  }
  return existsSync(TESTS);
}

/** Makes dist-test/ look like the repository to the code in it. */
function link() {
  cpSync(join(ROOT, "package.json"), join(OUT, "package.json"));
  for (const name of LINKS) {
    const at = join(OUT, name);
    if (lstatSync(at, { throwIfNoEntry: false })) rmSync(at, { recursive: true });
    if (!existsSync(join(ROOT, name))) continue;
    mkdirSync(dirname(at), { recursive: true });
    symlinkSync(relative(dirname(at), join(ROOT, name)), at);
  }
}

/** Why there is no GPU to test on; undefined where there is one. */
async function whyNoGpu() {
  const { findGpus } = await import(pathToFileURL(join(OUT, "ts", "runtime", "gpus.js")));
  const { devices, reason } = findGpus();
  return devices.length > 0 ? undefined : (reason ?? "none was found");
}

/** The tests that `words` are the beginnings of; all without words. A word that begins no test's name is wrong usage. */
function chosen(words) {
  const there = readdirSync(TESTS).filter((name) => name.endsWith(".test.js"));
  const unknown = words.find((word) => !there.some((name) => name.startsWith(word)));
  if (unknown !== undefined) wrongUsage(USAGE, `no file begins with ${JSON.stringify(unknown)}; there are ${there.join(", ")}`);
  return there.filter((name) => words.length === 0 || words.some((word) => name.startsWith(word)));
}

async function main() {
  const { values, positionals: files } = argumentsOf(USAGE, { compile: flag, "allow-none": flag }, true);
  if (!compile()) {
    process.stderr.write("test-gpu: no compiled tests in dist-test/: run this where TypeScript is installed, and copy that folder\n");
    return 1;
  }
  const wanted = chosen(files);
  if (values.compile) return 0;
  link();
  const missing = await whyNoGpu();
  if (missing !== undefined) {
    process.stderr.write(`test-gpu: no GPU: nothing was tested: ${missing}\n`);
    return values["allow-none"] ? 0 : 1;
  }
  // One after another: they measure the GPU's memory.
  const failed = wanted.filter((name) => run(["--test", "--test-reporter=spec", join(TESTS, name)]) !== 0);
  if (failed.length > 0) process.stderr.write(`failed: ${failed.join(", ")}\n`);
  return failed.length > 0 ? 1 : 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`test-gpu: ${error.message}\n`);
  process.exitCode = 1;
}
