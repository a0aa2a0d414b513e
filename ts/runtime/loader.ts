/**
 * Finds the addon: in node-gyp-build's order, and with an account of every place, since "module not found" helps nobody.
 *
 * 1. LONGCAT_NATIVE, if set: that file and no other.
 * 2. build/Release, then build/Debug, of the package's folder: built here.
 * 3. prebuilds/<platform>-<arch>: came with the package; the file whose tags fit (libc, ABI), most specific first.
 * @module
 */

import { closeSync, openSync, readdirSync, readSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { LongcatError } from "../errors.js";
import type { NativeAddon } from "./binding.js";
import { environment } from "./environment.js";

/** One place, and why it gave nothing. */
export interface Place {
  path: string;
  found: string;
}

/** node-gyp-build's rules for the names of prebuilt files. */
interface PrebuildRules {
  parseTags(file: string): { file: string } | undefined;
  matchTags(runtime: string, abi: string): (tags: { file: string } | undefined) => boolean;
  compareTags(runtime: string): (a: { file: string }, b: { file: string }) => number;
}

const require = createRequire(import.meta.url);

/**
 * Loads the addon of the package in `root`.
 *
 * @param version the package's; an addon of another version is not used.
 * @throws LongcatError NATIVE_MISSING: every place looked at with what was there, and the command that mends it.
 */
export function findAddon(root: string, version: string): NativeAddon {
  const explicit = environment.native;
  const looked: Place[] = [];
  for (const candidate of explicit === undefined ? candidates(root) : [{ path: explicit }]) {
    if ("found" in candidate) {
      looked.push(candidate);
      continue;
    }
    const result = tryLoad(candidate.path, version);
    if (typeof result !== "string") {
      loadedFile = candidate.path;
      return result;
    }
    looked.push({ path: candidate.path, found: result });
  }
  throw missing(root, explicit, looked);
}

let loadedFile: string | undefined;

/** The file that findAddon() loaded last; undefined if it has loaded none. */
export function addonFile(): string | undefined {
  return loadedFile;
}

/** Files to try, in order, and folders that hold none. */
function* candidates(root: string): Generator<Place | { path: string }> {
  for (const folder of [join(root, "build", "Release"), join(root, "build", "Debug")]) {
    const files = addonsIn(folder);
    if (files.length === 0) yield nothingIn(folder);
    for (const file of files) yield { path: join(folder, file) };
  }
  const prebuilds = join(root, "prebuilds", `${process.platform}-${process.arch}`);
  const rules = require("node-gyp-build") as PrebuildRules;
  const fitting = rules.matchTags("node", process.versions.modules);
  const tags = addonsIn(prebuilds).map((file) => ({ file, tags: rules.parseTags(file) }));
  const chosen = tags.flatMap(({ tags: parsed }) => (parsed && fitting(parsed) ? [parsed] : [])).sort(rules.compareTags("node"));
  if (tags.length === 0) yield nothingIn(prebuilds, others(root));
  for (const { file } of tags.filter(({ file }) => !chosen.some((tag) => tag.file === file))) {
    yield { path: join(prebuilds, file), found: "made for another C library or Node version" };
  }
  for (const { file } of chosen) yield { path: join(prebuilds, file) };
}

function addonsIn(folder: string): string[] {
  try {
    return readdirSync(folder)
      .filter((name) => name.endsWith(".node"))
      .sort();
  } catch {
    return [];
  }
}

function nothingIn(path: string, also = ""): Place {
  const there = statSync(path, { throwIfNoEntry: false });
  return { path, found: (there ? "no .node file in it" : "absent") + also };
}

/** What the package brings for other systems. */
function others(root: string): string {
  try {
    const names = readdirSync(join(root, "prebuilds"));
    return names.length > 0 ? ` (there is one for ${names.join(", ")})` : "";
  } catch {
    return "";
  }
}

/** The addon, or what is wrong with the file. */
function tryLoad(path: string, version: string): NativeAddon | string {
  const wrong = inspectFile(path);
  if (wrong) return wrong;
  try {
    const module = { exports: {} as NativeAddon };
    process.dlopen(module, path);
    const built = module.exports.version;
    return built === version ? module.exports : `built for version ${built} of this package, which is ${version}`;
  } catch (error) {
    return String((error as Error).message).split("\n")[0] ?? "cannot be loaded";
  }
}

/** ELF's e_machine of the architectures that Node runs on. */
const MACHINES: Record<number, string> = {
  3: "ia32",
  21: "ppc64",
  22: "s390x",
  40: "arm",
  62: "x64",
  183: "arm64",
  243: "riscv64",
  258: "loong64",
};

/** What a look at the file says against it; undefined: nothing. The loader's words are poor, and a file cut short would end the process. */
function inspectFile(path: string): string | undefined {
  try {
    const stats = statSync(path);
    if (!stats.isFile()) return "not a file";
    if (stats.size === 0) return "an empty file";
    return process.platform === "linux" ? inspectElf(path, stats.size) : undefined;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    return code === "ENOENT" || code === "ENOTDIR" ? "absent" : message;
  }
}

/** Checks an ELF file's header: for this architecture, and whole. Its last part is the table of sections, or a loaded segment. */
function inspectElf(path: string, size: number): string | undefined {
  const header = bytesOf(path, 0, ELF_HEADER_BYTES);
  if (header.length < ELF_HEADER_BYTES || header.readUInt32BE(0) !== 0x7f454c46) return "not a shared library (no ELF header)";
  const architecture = MACHINES[header[5] === 2 ? header.readUInt16BE(18) : header.readUInt16LE(18)] ?? "another architecture";
  if (architecture !== process.arch) return `built for ${architecture}, this is ${process.arch}`;
  if (header[4] !== 2 || header[5] !== 1) return undefined; // only 64-bit little-endian is looked into
  const sectionsEnd = Number(header.readBigUInt64LE(40)) + header.readUInt16LE(58) * header.readUInt16LE(60);
  const [entryBytes, entries] = [header.readUInt16LE(54), header.readUInt16LE(56)];
  const table = bytesOf(path, Number(header.readBigUInt64LE(32)), entryBytes * entries);
  let end = sectionsEnd;
  for (let at = 0; at + 56 <= table.length; at += entryBytes) {
    end = Math.max(end, Number(table.readBigUInt64LE(at + 8)) + Number(table.readBigUInt64LE(at + 32)));
  }
  return end > size ? `cut short: ${size} bytes of at least ${end}` : undefined;
}

const ELF_HEADER_BYTES = 64;

function bytesOf(path: string, position: number, count: number): Buffer {
  const file = openSync(path, "r");
  try {
    const bytes = Buffer.alloc(count);
    return bytes.subarray(0, readSync(file, bytes, 0, count, position));
  } finally {
    closeSync(file);
  }
}

function missing(root: string, explicit: string | undefined, looked: readonly Place[]): LongcatError {
  const list = looked.map(({ path, found }) => `\n  ${path}: ${found}`).join("");
  const mend =
    explicit === undefined
      ? `build it here with: ${buildCommand(root)}`
      : "correct or unset LONGCAT_NATIVE; no other place is tried while it is set";
  const what = explicit === undefined ? "no addon was found that can be loaded" : "LONGCAT_NATIVE names an addon that cannot be loaded";
  return new LongcatError(
    "NATIVE_MISSING",
    `${what} (${process.platform}-${process.arch}, Node ${process.versions.node}). Looked at:${list}\n${mend}`,
  );
}

/** The command that builds the addon of the package in `root`, with what that takes. */
export function buildCommand(root: string): string {
  const script = join(root, "scripts", "build-native.mjs");
  const build = `node ${/^[\w./-]+$/.test(script) ? script : JSON.stringify(script)}`;
  try {
    const resolve = createRequire(join(root, "package.json")).resolve;
    resolve("node-api-headers/package.json");
    resolve("node-addon-api/package.json");
    return build;
  } catch {
    return `npm install --no-save node-api-headers node-addon-api && ${build}`;
  }
}
