/**
 * Where a picture or a page goes: looked at before anything is measured, so that a mistyped folder costs no measurement.
 * @module
 */

import { accessSync, constants, statSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { LongcatError } from "../index.js";
import type { ParsedFlags } from "./flags.js";

/**
 * The file that `--svg`, or another flag, names, if it is given.
 *
 * @throws LongcatError OPTION_INVALID if nothing can be written there
 */
export function chartFile(flags: ParsedFlags, flag = "svg"): string | undefined {
  const file = flags.text(flag);
  if (file === undefined) return undefined;
  return attempt(`--${flag} ${file}`, () => {
    const there = statSync(file, { throwIfNoEntry: false });
    if (file === "" || there?.isDirectory()) throw new Error("is no name of a file");
    accessSync(there === undefined ? dirname(file) : file, constants.W_OK);
    return file;
  });
}

/** Writes the picture where one was asked for. Call it after the result is printed: what fails here must not lose that. */
export function writeChart(file: string | undefined, picture: () => string, flag = "svg"): void {
  if (file !== undefined) attempt(`--${flag} ${file}`, () => writeFileSync(file, picture()));
}

function attempt<T>(where: string, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    throw new LongcatError("OPTION_INVALID", `${where}: ${(cause as Error).message}`, { cause });
  }
}
