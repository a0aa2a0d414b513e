// Builds the addon (and the `kernels` program in a checkout) with CMake into build/, with nothing but Node's own modules:
//   node scripts/build-native.mjs [longcat | kernels …]
// Takes cmake, a C++20 compiler, and ninja or make; for the CUDA backend also nvcc (CMakeLists.txt says from which version on), which CUDACXX may
// name. The environment variable LONGCAT_CUDA says whether: AUTO (default: where there is such an nvcc), ON (or fail), OFF;
// LONGCAT_CUDA_ARCHITECTURES for which cards. Does nothing if nothing changed since the last build.

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import * as os from "node:os";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const BUILD = join(ROOT, "build");
const STAMP = join(BUILD, "native-stamp.json");
const ADDON = join(BUILD, "Release", "longcat.node");

/** CMake's targets: the addon, and the operations' tests and benchmarks, whose sources only a checkout's commands use. */
const TARGETS = { longcat: ADDON, kernels: join(BUILD, "kernels") };
const ALL_TARGETS = existsSync(join(ROOT, "scripts", "run.mjs")) ? ["longcat", "kernels"] : ["longcat"];

/** Where a program is in PATH; undefined if nowhere. */
export function which(program) {
  if (program.includes("/")) return existsSync(program) ? program : undefined;
  for (const folder of (process.env.PATH ?? "").split(delimiter)) {
    const path = join(folder, program);
    try {
      accessSync(path, constants.X_OK);
      if (statSync(path).isFile()) return path;
    } catch {
      // not there
    }
  }
  return undefined;
}

/** What is needed and how each Linux family calls it. */
const TOOLS = [
  { name: "cmake", programs: ["cmake"], apt: "cmake", dnf: "cmake", apk: "cmake" },
  {
    name: "a C++ compiler",
    programs: process.env.CXX ? [process.env.CXX.split(" ")[0]] : ["c++", "g++", "clang++"],
    apt: "g++",
    dnf: "gcc-c++",
    apk: "g++",
  },
  { name: "ninja or make", programs: ["ninja", "ninja-build", "make"], apt: "make", dnf: "make", apk: "make" },
];

/** Throws an Error that says which tools are missing and how to get them. */
export function checkTools() {
  const missing = TOOLS.filter(({ programs }) => !programs.some(which));
  if (missing.length === 0) return;
  const packages = (family) => missing.map((tool) => tool[family]).join(" ");
  throw new Error(
    `${missing.map(({ name, programs }) => `${name} (${programs.join(", ")})`).join(" and ")} not found in PATH. Install with:\n` +
      `  Debian, Ubuntu:       apt-get install -y ${packages("apt")}\n` +
      `  Fedora, RHEL, Rocky:  dnf install -y ${packages("dnf")}\n` +
      `  Alpine:               apk add ${packages("apk")}`,
  );
}

/** Whether the CUDA backend is wanted, and the nvcc that would build it with what it says of itself; throws an Error for a wrong choice. */
export function cudaChoice(environment = process.env) {
  const mode = (environment.LONGCAT_CUDA || "AUTO").toUpperCase();
  if (!["AUTO", "ON", "OFF"].includes(mode)) throw new Error(`LONGCAT_CUDA=${environment.LONGCAT_CUDA}: AUTO, ON or OFF is wanted`);
  if (mode === "OFF") return { mode };
  const named = environment.CUDACXX;
  const nvcc = named ? which(named) : (which("nvcc") ?? which("/usr/local/cuda/bin/nvcc"));
  if (nvcc === undefined && (named || mode === "ON")) {
    throw new Error(
      named ? `CUDACXX=${named}: there is no such program` : "LONGCAT_CUDA=ON, but there is no nvcc in PATH; CUDACXX may name it",
    );
  }
  if (nvcc === undefined) return { mode };
  return { mode, nvcc, version: spawnSync(nvcc, ["--version"], { encoding: "utf8" }).stdout ?? "" };
}

/** Folders of node_api.h and napi.h, and the versions of the packages they are from. */
function headers() {
  const require = createRequire(join(ROOT, "package.json"));
  const found = (name) => {
    try {
      const file = require.resolve(`${name}/package.json`);
      return { folder: dirname(file), version: JSON.parse(readFileSync(file, "utf8")).version };
    } catch {
      throw new Error(`the package ${name} is not installed. Install with:\n  npm install --no-save node-api-headers node-addon-api`);
    }
  };
  const api = found("node-api-headers");
  const addonApi = found("node-addon-api");
  return { api: join(api.folder, "include"), addonApi: addonApi.folder, versions: [api.version, addonApi.version] };
}

function filesUnder(folder) {
  return readdirSync(folder, { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) => (entry.isDirectory() ? filesUnder(join(folder, entry.name)) : [join(folder, entry.name)]));
}

const sha256 = (text) => createHash("sha256").update(text).digest("hex");

/** A hash of what CMake takes from the environment, once, when it configures a folder. */
function compilerVariables(environment) {
  return sha256(JSON.stringify(["CXX", "CXXFLAGS", "LDFLAGS", "CUDAFLAGS", "CUDAHOSTCXX"].map((name) => environment[name] ?? null)));
}

/** A hash of everything that the result depends on. */
export function fingerprint(versions, cuda, environment = process.env) {
  const hash = createHash("sha256");
  const files = [
    ...filesUnder(join(ROOT, "native")),
    ...["CMakeLists.txt", "package.json", "scripts/build-native.mjs"].map((name) => join(ROOT, name)),
  ];
  for (const file of files) hash.update(file.slice(ROOT.length)).update("\0").update(readFileSync(file)).update("\0");
  const variables = [compilerVariables(environment), environment.LONGCAT_CUDA_ARCHITECTURES || null];
  return hash.update(JSON.stringify([versions, variables, cuda, process.arch])).digest("hex");
}

/** The targets that are there, built from what has this fingerprint. */
function targetsBuilt(now) {
  try {
    const { fingerprint: then, targets } = JSON.parse(readFileSync(STAMP, "utf8"));
    return then === now ? targets.filter((target) => existsSync(TARGETS[target])) : [];
  } catch {
    return [];
  }
}

/** Runs a program; throws with its output if it fails. `variables` are set for it. */
function run(program, args, quiet, variables = {}) {
  const result = spawnSync(program, args, {
    cwd: ROOT,
    env: { ...process.env, ...variables },
    stdio: quiet ? "pipe" : ["ignore", "inherit", "inherit"],
    encoding: "utf8",
    maxBuffer: 1 << 28,
  });
  if (result.error) throw new Error(`${program} cannot be run: ${result.error.message}`);
  if (result.status === 0) return;
  const output = quiet ? `:\n${`${result.stdout}${result.stderr}`.split("\n").slice(-60).join("\n")}` : "; its own words are above";
  throw new Error(`${program} ${args[0]} … failed${output}`);
}

/** A folder configured elsewhere (a moved checkout, another generator), with other compilers' variables, or with another nvcc or none, cannot be used again. */
function forgetForeignConfiguration(generator, { mode, nvcc }) {
  const cache = join(BUILD, "CMakeCache.txt");
  if (!existsSync(cache)) return;
  const value = (name) => new RegExp(`^${name}:[A-Z]+=(.*)$`, "m").exec(readFileSync(cache, "utf8"))?.[1];
  const home = value("CMAKE_HOME_DIRECTORY");
  const here = home !== undefined && existsSync(home) && realpathSync(home) === realpathSync(ROOT);
  const nvccThen = value("CMAKE_CUDA_COMPILER");
  const sameNvcc = mode === "OFF" || nvccThen === nvcc || (nvcc === undefined && !existsSync(nvccThen ?? ""));
  const sameVariables = value("LONGCAT_COMPILER_VARIABLES") === compilerVariables(process.env);
  if (here && sameNvcc && sameVariables && value("CMAKE_GENERATOR") === generator && existsSync(value("CMAKE_CXX_COMPILER") ?? "")) return;
  rmSync(cache);
  rmSync(join(BUILD, "CMakeFiles"), { recursive: true, force: true });
}

/**
 * Builds what is out of date.
 *
 * @param {{ quiet?: boolean, targets?: ("longcat" | "kernels")[] }} options quiet: the tools' output is shown only if they fail;
 *   targets: the addon alone, or the `kernels` program too; default: what a checkout or an installed package has
 * @returns {Promise<{ path: string, built: boolean }>} the addon, and whether anything had to be done
 */
export async function buildNative({ quiet = false, targets = ALL_TARGETS } = {}) {
  const { api, addonApi, versions } = headers();
  const cuda = cudaChoice();
  const now = fingerprint(versions, cuda);
  const before = targetsBuilt(now);
  if (targets.every((target) => before.includes(target))) return { path: ADDON, built: false };
  checkTools();
  const cmake = which("cmake");
  const generator = which("ninja") || which("ninja-build") ? "Ninja" : "Unix Makefiles";
  const jobs = Number(process.env.CMAKE_BUILD_PARALLEL_LEVEL) || os.availableParallelism();
  mkdirSync(BUILD, { recursive: true });
  forgetForeignConfiguration(generator, cuda);
  rmSync(STAMP, { force: true });
  const options = [
    "-DCMAKE_BUILD_TYPE=Release",
    `-DNODE_API_HEADERS=${api}`,
    `-DNODE_ADDON_API=${addonApi}`,
    `-DLONGCAT_CUDA=${cuda.mode}`,
    process.env.LONGCAT_CUDA_ARCHITECTURES
      ? `-DLONGCAT_CUDA_ARCHITECTURES=${process.env.LONGCAT_CUDA_ARCHITECTURES}`
      : "-ULONGCAT_CUDA_ARCHITECTURES", // what an earlier build was told
    `-DLONGCAT_COMPILER_VARIABLES=${compilerVariables(process.env)}`, // kept in the cache alone
    "--no-warn-unused-cli",
  ];
  run(cmake, ["-S", ROOT, "-B", BUILD, "-G", generator, ...options], quiet, cuda.nvcc ? { CUDACXX: cuda.nvcc } : {});
  run(cmake, ["--build", BUILD, "--target", ...targets, "--parallel", String(jobs)], quiet);
  for (const target of targets) if (!existsSync(TARGETS[target])) throw new Error(`the build ended without ${TARGETS[target]}`);
  writeFileSync(STAMP, `${JSON.stringify({ fingerprint: now, targets: [...new Set([...before, ...targets])] })}\n`);
  return { path: ADDON, built: true };
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === realpathSync(fileURLToPath(import.meta.url))) {
  try {
    const targets = process.argv.slice(2);
    const unknown = targets.find((target) => !Object.hasOwn(TARGETS, target));
    if (unknown !== undefined) throw new Error(`unknown target ${JSON.stringify(unknown)}; there are ${Object.keys(TARGETS).join(", ")}`);
    const { path, built } = await buildNative(targets.length > 0 ? { targets } : {});
    console.log(built ? `built ${path}` : `${path} is up to date`);
  } catch (error) {
    console.error(error.message);
    process.exitCode = 1;
  }
}
