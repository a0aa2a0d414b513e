/**
 * The `kernels` program: tests and benchmarks of the operations, built and shipped with the addon.
 * @module
 */

import { existsSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { LongcatError } from "../errors.js";
import { loadAddon } from "./addon.js";
import { addonFile, buildCommand } from "./loader.js";

/** The package's folder, from ts/runtime as from dist/runtime. */
const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/**
 * The program that belongs to an addon: in its folder (as a package brings it), or one above (where a build leaves it).
 *
 * @param addon path of the addon's file
 * @throws LongcatError NATIVE_MISSING naming both places and the command that builds it
 */
export function kernelsBeside(addon: string): string {
  const places = [join(dirname(addon), "kernels"), join(dirname(dirname(addon)), "kernels")];
  const program = places.find((path) => statSync(path, { throwIfNoEntry: false })?.isFile());
  if (program !== undefined) return program;
  throw new LongcatError(
    "NATIVE_MISSING",
    `the kernels program is not beside the addon. Looked at:${places.map((path) => `\n  ${path}: absent`).join("")}\n` +
      `build it here with: ${isClone() ? "npm run build" : `${buildCommand(ROOT)} longcat kernels`}`,
  );
}

/** Whether this is a clone, whose `npm run build` makes the program as well; a package does not bring that script. */
function isClone(): boolean {
  return existsSync(join(ROOT, "scripts", "run.mjs"));
}

/**
 * The `kernels` program beside the addon that this process uses.
 *
 * @throws LongcatError NATIVE_MISSING if there is no addon, or no program beside it
 */
export function kernelsProgram(): string {
  loadAddon();
  return kernelsBeside(addonFile() ?? ROOT);
}

/** The operations that the addon, and so the program, knows. */
export function operationNames(): string[] {
  return loadAddon()
    .ops()
    .map(({ name }) => name)
    .sort();
}
