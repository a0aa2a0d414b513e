/**
 * `longcat doctor`: what this machine has, what is missing and how to mend it. Works without the addon.
 * @module
 */

import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { bundledCheckpoint } from "../engine/load.js";
import { inspect, LongcatError, listDevices } from "../index.js";
import { packageVersion } from "../runtime/addon.js";
import { type Command, JSON_FLAG } from "./command.js";
import { alignColumns, print, printJson } from "./output.js";

/** One line of the report. `ok: null`: not there, and not needed. */
interface Finding {
  name: string;
  ok: boolean | null;
  detail: string;
}

const OLDEST_NODE = 20;

export const doctorCommand: Command = {
  usage: ["doctor [--json]"],
  about:
    "Says what was found on this machine and what is missing. Exit code 1 if the addon cannot be loaded or the bundled model cannot be read.",
  flags: [JSON_FLAG],
  maxPositionals: 0,
  run: async (flags) => {
    const findings = [node(), libc(), await addon(), await bundledModel(), cudaDriver(), tool("cmake"), compiler()];
    const ok = findings.every((finding) => finding.ok !== false);
    if (flags.on("json")) await printJson({ ok, version: packageVersion(), platform: `${process.platform}-${process.arch}`, findings });
    else await print(`${describe(findings)}\n`);
    return ok ? 0 : 1;
  },
};

function describe(findings: readonly Finding[]): string {
  const word = (ok: boolean | null) => (ok === null ? "-" : ok ? "ok" : "MISSING");
  const rows = findings.map(({ name, ok, detail }) => [word(ok), name, detail.split("\n")[0] ?? ""]);
  const more = findings.flatMap(({ detail }) => detail.split("\n").slice(1));
  return [
    `longcat-node ${packageVersion()} on ${process.platform}-${process.arch}`,
    "",
    alignColumns(rows),
    ...(more.length > 0 ? ["", ...more] : []),
  ].join("\n");
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
    const devices = await listDevices();
    const cpu = devices.map(({ description, threads, isa }) => `${description}, ${threads} threads, ${isa}`).join("; ");
    return { name: "addon", ok: true, detail: `${addonFile()}: ${cpu}` };
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
  const folder = bundledCheckpoint();
  if (!existsSync(folder)) return { name, ok: false, detail: `${folder} is not there: install the package again` };
  try {
    await inspect(folder);
    return { name, ok: true, detail: folder };
  } catch (error) {
    if (error instanceof LongcatError && error.code === "NATIVE_MISSING")
      return { name, ok: null, detail: "not checked: that takes the addon" };
    return { name, ok: false, detail: (error as Error).message };
  }
}

/** libcuda comes with the driver; this version does not use it, so it may be missing. */
function cudaDriver(): Finding {
  const name = "CUDA driver";
  const driver = "/proc/driver/nvidia/version";
  const version = existsSync(driver) ? /Kernel Module\s+(?:for \S+\s+)?([\d.]+)/.exec(readFileSync(driver, "utf8"))?.[1] : undefined;
  const library = /libcuda\.so\.1 .*=> (\S+)/.exec(output("/sbin/ldconfig", ["-p"]))?.[1];
  const there = [version === undefined ? "no kernel module" : `kernel module ${version}`, library ?? "no libcuda.so.1"].join(", ");
  return { name, ok: null, detail: `${there}; this version runs on the CPU only` };
}

function tool(program: string): Finding {
  const line = output(program, ["--version"]).split("\n")[0] ?? "";
  return {
    name: program,
    ok: line === "" ? null : true,
    detail: line === "" ? "not found; needed only to build the addon from source" : line,
  };
}

function compiler(): Finding {
  for (const program of ["c++", "g++", "clang++"]) {
    const found = tool(program);
    if (found.ok) return { ...found, name: "C++ compiler" };
  }
  return { ...tool("c++"), name: "C++ compiler" };
}

/** What a program prints; empty if it cannot be run. */
function output(program: string, args: string[]): string {
  const result = spawnSync(program, args, { encoding: "utf8", timeout: 5000 });
  return result.status === 0 ? result.stdout : "";
}
