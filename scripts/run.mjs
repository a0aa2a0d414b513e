/**
 * What stands behind `npm run demo`, `npm test` and `npm run build`: checks the machine, installs the dependencies, builds the addon, compiles
 * the TypeScript, each only if something changed since the last time, then runs the demonstration or the tests.
 * Node built-ins only, since it runs before anything is installed.
 *
 *   node scripts/run.mjs demo                 the bundled checkpoint tells a story, adds and calls a tool
 *   node scripts/run.mjs test [vitest args]   every test
 *   node scripts/run.mjs build                the set-up alone
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { buildNative, checkTools, which } from "./build-native.mjs";
import { copyPage } from "./copy-page.mjs";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const STAMP = join(ROOT, "build", "setup-stamp.json");
const OLDEST_NODE = 20;

/** What a test can use beyond Node, a compiler and CMake. `npm test` names those that are missing. */
const OPTIONAL_TOOLS = [
  { tool: "objdump", for: "which functions of the addon use wide instructions, and its glibc floor" },
  { tool: "qemu-x86_64", for: "older processors, emulated" },
  { tool: "chromium", for: "the chat page, in a browser" },
  { tool: "clang++", for: "fuzzing the file readers, which .ci/run does (fuzz/run.sh)" },
];

class SetupError extends Error {}

const say = (text) => process.stderr.write(`${text}\n`);

/** Runs a program in the repository's root with our terminal; its exit code. */
function run(program, args, options = {}) {
  const result = spawnSync(program, args, { cwd: ROOT, stdio: "inherit", ...options });
  if (result.error) throw new SetupError(`could not start ${program}: ${result.error.message}`);
  return result.status ?? 1;
}

// ---- checks

function checkNode() {
  const major = Number(process.versions.node.split(".")[0]);
  if (major < OLDEST_NODE) {
    throw new SetupError(
      `Node ${process.versions.node} is too old: Node ${OLDEST_NODE} or newer is needed (https://nodejs.org/en/download)`,
    );
  }
  if (process.platform !== "linux") throw new SetupError(`${process.platform} is not supported: longcat-node runs on Linux`);
}

// ---- what changed

/** All files under `path` (or the file itself), sorted. */
function filesUnder(path) {
  if (!existsSync(path)) return [];
  const entries = readdirSync(path, { withFileTypes: true, recursive: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
    .sort();
}

/** One hash over names and contents. */
function hashOf(files) {
  const hash = createHash("sha256");
  for (const file of files) {
    if (!existsSync(file)) continue;
    hash.update(file.slice(ROOT.length)).update("\0").update(readFileSync(file)).update("\0");
  }
  return hash.digest("hex");
}

const inRoot = (...names) => names.map((name) => join(ROOT, name));

function readJson(path) {
  try {
    return JSON.parse(readFileSync(path, "utf8"));
  } catch {
    return null;
  }
}

function writeStamp(changes) {
  mkdirSync(dirname(STAMP), { recursive: true });
  writeFileSync(STAMP, `${JSON.stringify({ ...readJson(STAMP), ...changes }, null, 2)}\n`);
}

// ---- steps

/** Whether every package of the lock is installed in the version that the lock names. */
function dependenciesInstalled() {
  const wanted = readJson(join(ROOT, "package-lock.json"))?.packages;
  const there = readJson(join(ROOT, "node_modules", ".package-lock.json"))?.packages;
  if (!wanted || !there) return false;
  return Object.entries(wanted).every(
    ([name, entry]) => name === "" || entry.optional || entry.devOptional || entry.peer || there[name]?.version === entry.version,
  );
}

/** How to start npm: by the one that started us, else by PATH. */
function npmCommand() {
  const started = process.env.npm_execpath;
  if (started && /npm-cli\.[cm]?js$/.test(started) && existsSync(started)) return [process.execPath, started];
  const npm = which("npm");
  if (npm) return [npm];
  const beside = join(dirname(process.execPath), "npm");
  if (existsSync(beside)) return [beside];
  throw new SetupError("npm was not found in PATH: install it (Debian, Ubuntu: apt-get install -y npm) and run the same command again");
}

function installDependencies() {
  if (dependenciesInstalled()) return;
  say("[1/3] Installing dependencies (npm ci) …");
  const [program, ...first] = npmCommand();
  const args = [...first, "ci", "--include=dev", "--ignore-scripts", "--no-audit", "--no-fund"];
  if (run(program, args) !== 0) throw new SetupError("npm ci failed; its own words are above");
}

const ADDON = join(ROOT, "build", "Release", "longcat.node");

/** The demonstration needs the addon alone; tests run the operations' own program too. */
async function buildTargets(targets) {
  if (!existsSync(ADDON)) say("[2/3] Building the native addon with CMake (a few minutes the first time) …");
  await asSetupError(() => buildNative({ targets }));
}

/** Runs a step whose failure is the machine's, not this script's: its message is all that is shown. */
async function asSetupError(step) {
  try {
    return await step();
  } catch (error) {
    throw new SetupError(error.message);
  }
}

function compileTypeScript() {
  const sources = [...filesUnder(join(ROOT, "ts")), ...inRoot("tsconfig.json", "package-lock.json")];
  const typescript = hashOf(sources);
  if (
    existsSync(join(ROOT, "dist", "index.js")) &&
    existsSync(join(ROOT, "dist", "server", "page", "index.html")) &&
    readJson(STAMP)?.typescript === typescript
  )
    return;
  say("[3/3] Compiling TypeScript …");
  if (run(process.execPath, ["node_modules/typescript/bin/tsc", "-p", "tsconfig.json"]) !== 0) {
    rmSync(join(ROOT, "dist", ".tsbuildinfo"), { force: true });
    throw new SetupError("TypeScript did not compile; the errors are above");
  }
  copyPage(ROOT);
  writeStamp({ typescript });
}

async function setUp(targets) {
  checkNode();
  // Before anything is downloaded.
  if (!existsSync(ADDON)) await asSetupError(checkTools);
  installDependencies();
  await buildTargets(targets);
  compileTypeScript();
}

// ---- the commands

/** The operations' own tests, without Node. */
function testKernels() {
  say("\nbuild/kernels test");
  return run(join(ROOT, "build", "kernels"), ["test"]);
}

/** Says what the tests left out, and for want of what. */
function reportSkipped(resultsFile) {
  const suites = readJson(resultsFile)?.testResults ?? [];
  const tests = suites.flatMap((suite) => suite.assertionResults ?? []);
  const skipped = tests.filter((test) => ["skipped", "pending", "todo"].includes(test.status)).map((test) => test.fullName);
  const missing = OPTIONAL_TOOLS.filter((entry) => !which(entry.tool));
  if (skipped.length === 0 && missing.length === 0) return say("Nothing was skipped.");
  say("Skipped:");
  for (const name of skipped) say(`  ${name.trim()}`);
  for (const entry of missing) say(`  ${entry.for}: no ${entry.tool} on this machine`);
}

function runTests(args) {
  const results = join(ROOT, "build", "test-results.json");
  rmSync(results, { force: true });
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${results}`];
  const whole = args.length === 0;
  const kernels = whole ? testKernels() : 0;
  const vitest = run(process.execPath, ["node_modules/vitest/vitest.mjs", "run", ...reporters, ...args]);
  if (whole) reportSkipped(results);
  if (kernels !== 0) say("The operations' tests (kernels test) failed; see above.");
  return kernels || vitest;
}

const USAGE = "usage: npm run demo | npm test [-- vitest arguments] | npm run build";

async function main() {
  const [command, ...args] = process.argv.slice(2);
  if (!["demo", "test", "build"].includes(command)) throw new SetupError(USAGE);
  if (command !== "test" && args.length > 0) throw new SetupError(`unexpected argument ${JSON.stringify(args[0])}; ${USAGE}`);
  await setUp(command === "demo" ? ["longcat"] : ["longcat", "kernels"]);
  if (command === "demo") return run(process.execPath, ["dist/cli/demo.js"]);
  if (command === "test") return runTests(args);
  return 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  say(`\n${error.message}`);
  process.exitCode = 1;
}
