/**
 * What this machine has and what is missing, as a list of findings. Works without the addon.
 * @module
 */

import { execFile } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { LongcatError } from "../errors.js";
import { packageVersion } from "../runtime/addon.js";
import { describeProcessor } from "../runtime/devices.js";
import { findGpus } from "../runtime/gpus.js";
import { describeModel } from "./inspect.js";
import { checkDirectory } from "./load.js";

/** One thing that was looked for. */
export interface Finding {
  /** `node`, `glibc`, `addon`, `bundled model`, `CUDA driver`, `GPU`, `cmake` or `C++ compiler`. */
  name: string;
  /** Whether it is there and works; `null`: not there, and not needed. */
  ok: boolean | null;
  /** What was found, or what is wrong and how to mend it; may have several lines. */
  detail: string;
}

/** What {@link diagnose} found. */
export interface Diagnosis {
  /** Whether a model can be run. */
  ok: boolean;
  /** The package's version. */
  version: string;
  /** Such as `linux-x64`. */
  platform: string;
  findings: Finding[];
}

const OLDEST_NODE = 20;

/**
 * Looks at everything that the package needs or could use here: Node, C library, addon and its devices, the bundled checkpoint, a CUDA
 * driver, the tools of a build. Throws nothing: what is wrong is among the findings.
 *
 * @example
 * const { ok, findings } = await diagnose();
 * if (!ok) console.error(findings.filter((finding) => finding.ok === false));
 */
export async function diagnose(): Promise<Diagnosis> {
  const findings = await Promise.all([node(), libc(), addon(), bundledModel(), cudaDriver(), gpu(), tool("cmake"), compiler()]);
  return {
    ok: findings.every((finding) => finding.ok !== false),
    version: packageVersion(),
    platform: `${process.platform}-${process.arch}`,
    findings,
  };
}

function node(): Finding {
  const ok = Number(process.versions.node.split(".")[0]) >= OLDEST_NODE;
  return { name: "node", ok, detail: ok ? process.versions.node : `${process.versions.node}; ${OLDEST_NODE} or newer is needed` };
}

function libc(): Finding {
  const header = (process.report.getReport() as { header?: { glibcVersionRuntime?: string } }).header;
  const version = header?.glibcVersionRuntime;
  if (version === undefined) return { name: "glibc", ok: null, detail: "not found: the prebuilt addon needs it; build from source here" };
  return { name: "glibc", ok: true, detail: version };
}

/** The devices that the addon offers, or why it could not be loaded: every place looked at. */
async function addon(): Promise<Finding> {
  try {
    const { description, threads, isa } = await describeProcessor();
    return { name: "addon", ok: true, detail: `${addonFile()}: ${description}, ${threads} threads, ${isa}` };
  } catch (error) {
    return { name: "addon", ok: false, detail: (error as Error).message };
  }
}

/** The file that the addon was loaded from. */
function addonFile(): string {
  const { sharedObjects = [] } = process.report.getReport() as { sharedObjects?: string[] };
  return sharedObjects.find((path) => path.endsWith(".node")) ?? "loaded";
}

async function bundledModel(): Promise<Finding> {
  const name = "bundled model";
  const folder = checkDirectory(undefined);
  if (!existsSync(folder)) return { name, ok: false, detail: `${folder} is not there: install the package again` };
  try {
    await describeModel(folder);
    return { name, ok: true, detail: folder };
  } catch (error) {
    if (error instanceof LongcatError && error.code === "NATIVE_MISSING")
      return { name, ok: null, detail: "not checked: that takes the addon" };
    return { name, ok: false, detail: (error as Error).message };
  }
}

/** The GPUs that the addon can use, or why it can use none. The CPU does without. */
function gpu(): Finding {
  const name = "GPU";
  try {
    const { devices, reason } = findGpus();
    if (devices.length === 0) return { name, ok: null, detail: `none: ${reason ?? "no GPU was found"}` };
    const lines = devices.map(
      ({ ordinal, name: model, capability, memoryBytes, freeBytes }) =>
        `cuda:${ordinal} ${model}, compute capability ${capability}, ${gib(freeBytes)} of ${gib(memoryBytes)} GiB free`,
    );
    return { name, ok: true, detail: [...lines, ...(reason === null ? [] : [reason])].join("; ") };
  } catch (error) {
    if (error instanceof LongcatError && error.code === "NATIVE_MISSING")
      return { name, ok: null, detail: "not checked: that takes the addon" };
    return { name, ok: null, detail: `none: ${(error as Error).message}` };
  }
}

function gib(bytes: number): string {
  return (bytes / 2 ** 30).toFixed(1);
}

/** libcuda comes with the driver, which only GPUs need. */
async function cudaDriver(): Promise<Finding> {
  const driver = "/proc/driver/nvidia/version";
  const version = existsSync(driver) ? /Kernel Module\s+(?:for \S+\s+)?([\d.]+)/.exec(readFileSync(driver, "utf8"))?.[1] : undefined;
  const library = /libcuda\.so\.1 .*=> (\S+)/.exec(await output("/sbin/ldconfig", ["-p"]))?.[1];
  const there = [version === undefined ? "no kernel module" : `kernel module ${version}`, library ?? "no libcuda.so.1"].join(", ");
  return { name: "CUDA driver", ok: null, detail: there };
}

async function tool(program: string): Promise<Finding> {
  const line = (await output(program, ["--version"])).split("\n")[0] ?? "";
  return {
    name: program,
    ok: line === "" ? null : true,
    detail: line === "" ? "not found; needed only to build the addon from source" : line,
  };
}

async function compiler(): Promise<Finding> {
  const name = "C++ compiler";
  for (const program of ["c++", "g++", "clang++"]) {
    const found = await tool(program);
    if (found.ok) return { ...found, name };
  }
  return { ...(await tool("c++")), name };
}

/** What a program prints; empty if it cannot be run. */
function output(program: string, args: string[]): Promise<string> {
  return new Promise((resolve) => execFile(program, args, { timeout: 5000 }, (error, stdout) => resolve(error ? "" : stdout)));
}
