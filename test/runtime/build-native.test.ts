/** The build script says what is missing and how to get it. */

import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterEach, beforeEach, expect, it } from "vitest";
import { ROOT } from "./devices.js";

let path: string;
beforeEach(() => {
  path = mkdtempSync(join(tmpdir(), "longcat-path-"));
});
afterEach(() => rmSync(path, { recursive: true, force: true }));

/** What checkTools says where PATH holds these programs alone. */
function complaint(programs: string[]): string {
  for (const program of programs) symlinkSync(process.execPath, join(path, program));
  const script = pathToFileURL(join(ROOT, "scripts", "build-native.mjs")).href;
  const source = `import { checkTools } from ${JSON.stringify(script)}; try { checkTools(); } catch (error) { process.stdout.write(error.message); }`;
  const env = { ...process.env, PATH: path, CXX: "" };
  return execFileSync(process.execPath, ["--input-type=module", "-e", source], { encoding: "utf8", env });
}

it("nothing, where everything is there", () => {
  expect(complaint(["cmake", "g++", "make"])).toBe("");
});

it("each missing tool by name, with the command of each package family", () => {
  const all = complaint([]);
  expect(all).toMatch(/cmake .* and a C\+\+ compiler .* not found/);
  expect(all).toMatch(/apt-get install -y cmake g\+\+ make\n/);
  expect(all).toMatch(/dnf install -y cmake gcc-c\+\+ make\n/);
});

it("only what is missing", () => {
  const one = complaint(["cmake", "ninja"]);
  expect(one).toMatch(/apt-get install -y g\+\+\n/);
  expect(one).not.toContain("install -y cmake");
});

/** What cudaChoice says with these variables, where PATH holds these programs alone. */
function choice(variables: Record<string, string>, programs: string[] = []): { mode?: string; nvcc?: string; error?: string } {
  for (const program of programs) symlinkSync(process.execPath, join(path, program));
  const script = pathToFileURL(join(ROOT, "scripts", "build-native.mjs")).href;
  const call = `cudaChoice({ PATH: process.env.PATH, ...${JSON.stringify(variables)} })`;
  const source = `import { cudaChoice } from ${JSON.stringify(script)};
    let said; try { said = ${call}; } catch (error) { said = { error: error.message }; } process.stdout.write(JSON.stringify(said));`;
  return JSON.parse(
    execFileSync(process.execPath, ["--input-type=module", "-e", source], { encoding: "utf8", env: { ...process.env, PATH: path } }),
  );
}

it("the CUDA backend where nvcc is, unless told otherwise", () => {
  expect(choice({}, ["nvcc"])).toMatchObject({ mode: "AUTO", nvcc: join(path, "nvcc") });
  expect(choice({ LONGCAT_CUDA: "OFF" })).toEqual({ mode: "OFF" });
  expect(choice({ LONGCAT_CUDA: "on" })).toMatchObject({ mode: "ON", nvcc: join(path, "nvcc") });
});

it("another build for other variables of the compilers, and for other cards", () => {
  const script = pathToFileURL(join(ROOT, "scripts", "build-native.mjs")).href;
  const variables = ["CXX", "CXXFLAGS", "LDFLAGS", "CUDAFLAGS", "CUDAHOSTCXX", "LONGCAT_CUDA_ARCHITECTURES"];
  const environments = JSON.stringify([{}, { HOME: "/x" }, ...variables.map((name) => ({ [name]: "x" }))]);
  const source = `import { fingerprint } from ${JSON.stringify(script)};
    process.stdout.write(JSON.stringify(${environments}.map((environment) => fingerprint([], { mode: "AUTO" }, environment))));`;
  const prints: string[] = JSON.parse(execFileSync(process.execPath, ["--input-type=module", "-e", source], { encoding: "utf8" }));
  expect(prints[1]).toBe(prints[0]);
  expect(new Set(prints).size).toBe(variables.length + 1);
});

it("a wrong choice by name", () => {
  expect(choice({ LONGCAT_CUDA: "maybe" }).error).toBe("LONGCAT_CUDA=maybe: AUTO, ON or OFF is wanted");
  expect(choice({ CUDACXX: "/nowhere/nvcc" }).error).toBe("CUDACXX=/nowhere/nvcc: there is no such program");
});
