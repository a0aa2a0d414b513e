/**
 * The addon, loaded when first needed: importing the package never fails for want of it.
 * @module
 */

import { readFileSync } from "node:fs";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import type { NativeAddon } from "./binding.js";
import { findAddon } from "./loader.js";
import { translateErrors } from "./native-error.js";

/** The package's folder, from ts/runtime as from dist/runtime. */
const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

let addon: NativeAddon | undefined;

/**
 * The addon of this package.
 *
 * @throws LongcatError NATIVE_MISSING, with every place that was looked at and the command that mends it
 */
export function loadAddon(): NativeAddon {
  addon ??= findAddon(ROOT, packageVersion());
  return addon;
}

/** The version in package.json. */
export function packageVersion(): string {
  return (JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as { version: string }).version;
}

/**
 * Bytes that this process could allocate now: the machine's available memory within the container's limit.
 *
 * @throws LongcatError NATIVE_MISSING
 */
export function availableMemoryBytes(): number {
  return loadAddon().availableMemory();
}

/**
 * What benchmarks are compared with, measured here and now: bytes/s reading a buffer of that size, flop/s of multiply-adds.
 *
 * @throws LongcatError NATIVE_MISSING, OUT_OF_MEMORY
 */
export function measure(threads: number, bufferBytes: number): { readBytesPerSecond: number; flopsPerSecond: number } {
  return translateErrors(() => loadAddon().measure(threads, bufferBytes));
}
