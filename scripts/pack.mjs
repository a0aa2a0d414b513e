/**
 * Makes the package's tarball: compiles TypeScript afresh, puts the built addon where node-gyp-build looks for prebuilt ones and the
 * `kernels` program (longcat bench kernels) beside it, packs.
 *
 *   node scripts/pack.mjs [FOLDER]        default: the repository's root
 */
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { copyPage } from "./copy-page.mjs";

export const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));

/** Runs a program and returns its standard output; throws with its words if it fails. */
export function runProgram(program, args, options = {}) {
  const result = spawnSync(program, args, { cwd: ROOT, encoding: "utf8", maxBuffer: 1 << 28, ...options });
  if (result.error) throw result.error;
  if (result.status !== 0) throw new Error(`${program} ${args.join(" ")} ended with ${result.status}\n${result.stdout}${result.stderr}`);
  return result.stdout;
}

/** The addon that the last build left. */
export function builtAddon() {
  const folder = join(ROOT, "build", "Release");
  const name = existsSync(folder) ? readdirSync(folder).find((file) => file.endsWith(".node")) : undefined;
  if (name === undefined) throw new Error("there is no build/Release/*.node: run `npm run build` first");
  return join(folder, name);
}

/** Where node-gyp-build finds a prebuilt addon for this machine. The tag says which C library it needs. */
export function prebuildPath(packageFolder) {
  return join(packageFolder, "prebuilds", `linux-${process.arch}`, "longcat-node.glibc.node");
}

/** The operations' tests and benchmarks that the last build left. */
function builtKernels() {
  const path = join(ROOT, "build", "kernels");
  if (!existsSync(path)) throw new Error("there is no build/kernels: run `npm run build` first");
  return path;
}

/** Writes the tarball into `folder`; its path. */
export function pack(folder) {
  rmSync(join(ROOT, "dist"), { recursive: true, force: true });
  runProgram(process.execPath, ["node_modules/typescript/bin/tsc", "-p", "tsconfig.json"]);
  copyPage(ROOT);
  const prebuild = prebuildPath(ROOT);
  mkdirSync(dirname(prebuild), { recursive: true });
  copyFileSync(builtAddon(), prebuild);
  copyFileSync(builtKernels(), join(dirname(prebuild), "kernels"));
  const [packed] = JSON.parse(runProgram("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", folder]));
  return join(folder, packed.filename);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) console.log(pack(resolve(process.argv[2] ?? ROOT)));
