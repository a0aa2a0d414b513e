/** The README's TypeScript example runs as it stands there; the two commands are on its first screen. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { describe, expect, it } from "vitest";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const README = readFileSync(join(ROOT, "README.md"), "utf8");

/** Compiles one file beside itself, with types; what the compiler has to say. */
function compile(file: string): string[] {
  const program = ts.createProgram([file], {
    module: ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind.NodeNext,
    target: ts.ScriptTarget.ES2022,
    lib: ["lib.es2023.d.ts", "lib.esnext.disposable.d.ts"],
    types: ["node"],
    strict: true,
    skipLibCheck: true,
  });
  const { diagnostics } = program.emit();
  return [...ts.getPreEmitDiagnostics(program), ...diagnostics].map((entry) => ts.flattenDiagnosticMessageText(entry.messageText, "\n"));
}

describe("README", () => {
  it("names the two commands on its first screen", () => {
    const screen = README.split("\n").slice(0, 24).join("\n");
    expect(screen).toContain("npm run demo");
    expect(screen).toContain("npm test");
  });

  it("its example is about twenty lines, compiles and prints what the model says", () => {
    const example = /```ts\n([\s\S]*?)```/.exec(README)?.[1] ?? "";
    expect(example.split("\n").length).toBeLessThanOrEqual(24);
    // Within the repository, so that "longcat-node" is this package itself.
    const folder = mkdtempSync(join(ROOT, "build", "readme-"));
    try {
      writeFileSync(join(folder, "example.mts"), example);
      expect(compile(join(folder, "example.mts"))).toEqual([]);
      const { status, stdout, stderr } = spawnSync(process.execPath, [join(folder, "example.mjs")], { cwd: ROOT, encoding: "utf8" });
      expect([status, stderr]).toEqual([0, ""]);
      expect(stdout).toContain("there was a curious");
      expect(stdout).toContain("9 + 4 = 13");
      expect(stdout).toContain("1783");
      expect(stdout).toContain(" 42");
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  it("links to pages that are there", () => {
    const links = [...README.matchAll(/\]\(([^)#]+)\)/g)].map((match) => match[1] ?? "").filter((link) => !link.includes("://"));
    expect(links.length).toBeGreaterThan(4);
    for (const link of links) expect(readFileSync(join(ROOT, link), "utf8").length, link).toBeGreaterThan(0);
  });
});
