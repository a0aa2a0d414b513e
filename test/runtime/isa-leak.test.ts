/**
 * The finished addon runs on any x86-64: instructions that not every processor has stand only in functions that are chosen at run time,
 * which are all in namespaces avx2 and avx512. And it shows the world nothing but its entry.
 */

import { spawn, spawnSync } from "node:child_process";
import { createInterface } from "node:readline";
import { expect, it } from "vitest";
import { addonPath } from "./devices.js";

const found = spawnSync("objdump", ["--version"]).error === undefined;
const unless = found && process.arch === "x64" ? it : it.skip;
if (!found) console.log("skipped: test/runtime/isa-leak.test.ts needs objdump (apt-get install -y binutils)");
if (process.arch !== "x64") console.log("skipped: test/runtime/isa-leak.test.ts is about x86-64");

unless("AVX instructions stand only in namespaces avx2 and avx512", { timeout: 120_000 }, async () => {
  const objdump = spawn("objdump", ["-d", "-C", "--no-show-raw-insn", addonPath()], { stdio: ["ignore", "pipe", "inherit"] });
  let name = "";
  let wide = 0;
  const leaks = new Set<string>();
  for await (const line of createInterface({ input: objdump.stdout })) {
    const label = /^[0-9a-f]+ <(.*)>:$/.exec(line);
    if (label) name = label[1]!;
    // Every AVX instruction's name begins with v; verr and verw are older.
    else if (/^\s+[0-9a-f]+:\t(?:\{\w+\} )?v(?!err|erw)/.test(line) || /%[yz]mm\d/.test(line)) {
      if (/\bavx(2|512)::/.test(name)) wide++;
      else leaks.add(name);
    }
  }
  expect([...leaks]).toEqual([]);
  expect(wide).toBeGreaterThan(1000);
});

unless("exports nothing but the module's entry", () => {
  const { stdout } = spawnSync("objdump", ["-T", addonPath()], { encoding: "utf8", maxBuffer: 1 << 26 });
  const defined = stdout.split("\n").filter((line) => / \.(text|data|rodata|bss|data\.rel\.ro)\t/.test(line));
  const names = defined.map((line) => line.trim().split(/\s+/).at(-1));
  expect(names.sort()).toEqual(["napi_register_module_v1", "node_api_module_get_api_version_v1"]);
});
