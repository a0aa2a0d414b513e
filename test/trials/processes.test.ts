/** The engine in workers, forks and copies, and every way for them to end (field trial B46). Each in a process of its own. */
import { execFile } from "node:child_process";
import { cpSync, mkdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { ROOT, temporaryFolder } from "../helpers/fixtures.js";

interface Ended {
  code: number | string | null;
  signal: string | null;
  stdout: string;
  stderr: string;
}

function run(name: string, ...args: string[]): Promise<Ended> {
  const program = join(ROOT, "test/trials/programs", `${name}.mjs`);
  return new Promise((resolve) => {
    execFile(process.execPath, [program, ...args], { timeout: 90_000 }, (error, stdout, stderr) => {
      resolve({ code: error ? (error.code ?? null) : 0, signal: error?.signal ?? null, stdout, stderr });
    });
  });
}

describe("B46", () => {
  it.each([
    ["process.exit(0) 5 ms after a generation began", "exit", [0]],
    ["terminate() at any moment of a load", "load", [1]],
    ["terminate() while it generates", "step", [1]],
  ])("twenty workers end by %s: no crash, their memory is free, the next engine answers", async (_, way, codes) => {
    const result = await run("leave", way);
    expect(result).toMatchObject({ code: 0, signal: null, stderr: "" });
    const { grown, ...said } = JSON.parse(result.stdout) as { grown: number };
    expect(said).toEqual({ codes, text: "136" });
    expect(grown).toBeLessThan(30);
  });

  it("a forked child has an engine of its own, with the same tokens", async () => {
    expect(await run("fork")).toEqual({ code: 0, signal: null, stderr: "", stdout: '{"same":true,"child":[0,null]}\n' });
  });

  it("two copies of the package at different paths live in one process", async () => {
    const copies = ["one", "two"].map((name) => {
      const folder = join(temporaryFolder(), name);
      mkdirSync(join(folder, "build"), { recursive: true });
      for (const part of ["dist", "package.json", "build/Release"]) cpSync(join(ROOT, part), join(folder, part), { recursive: true });
      for (const part of ["models", "node_modules"]) symlinkSync(join(ROOT, part), join(folder, part));
      return folder;
    });
    expect(await run("copies", ...copies)).toEqual({ code: 0, signal: null, stderr: "", stdout: "136 136 true\n136\n" });
  });

  it("an exception that nobody catches ends the process as Node does, process.exit with the program's own code", async () => {
    const thrown = await run("throws", "throw");
    expect(thrown).toMatchObject({ code: 1, signal: null });
    expect(thrown.stderr).toContain("nobody catches this");
    expect(await run("throws", "exit")).toEqual({ code: 7, signal: null, stdout: "", stderr: "" });
  });
});
