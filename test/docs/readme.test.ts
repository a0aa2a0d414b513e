/** The TypeScript examples of README and guide run as they stand there; the two commands are on the README's first screen. */
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

function firstExample(markdown: string): string {
  return /```ts\n([\s\S]*?)```/.exec(markdown)?.[1] ?? "";
}

/** Compiles and runs a program within the repository, where "longcat-node" is this package itself. */
function run(source: string) {
  const folder = mkdtempSync(join(ROOT, "build", "example-"));
  try {
    writeFileSync(join(folder, "example.mts"), source);
    const diagnostics = compile(join(folder, "example.mts"));
    const { status, stdout, stderr } = spawnSync(process.execPath, [join(folder, "example.mjs")], { cwd: ROOT, encoding: "utf8" });
    return { diagnostics, status, stdout, stderr };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

describe("README", () => {
  it("names the two commands on its first screen", () => {
    const screen = README.split("\n").slice(0, 24).join("\n");
    expect(screen).toContain("npm run demo");
    expect(screen).toContain("npm test");
  });

  it("its example is about twenty lines, compiles and prints what the model says", () => {
    const example = firstExample(README);
    expect(example.split("\n").length).toBeLessThanOrEqual(24);
    const { stdout, ...rest } = run(example);
    expect(rest).toEqual({ diagnostics: [], status: 0, stderr: "" });
    for (const words of ["there was a curious", "9 + 4 = 13", "1783", " 42"]) expect(stdout).toContain(words);
  });

  it("links to pages that are there", () => {
    const links = [...README.matchAll(/\]\(([^)#]+)\)/g)].map((match) => match[1] ?? "").filter((link) => !link.includes("://"));
    expect(links.length).toBeGreaterThan(4);
    for (const link of links) expect(readFileSync(join(ROOT, link), "utf8").length, link).toBeGreaterThan(0);
  });
});

describe("guide", () => {
  it("its tool example calls the tool and reads the answer", () => {
    const guide = readFileSync(join(ROOT, "docs", "guide.md"), "utf8");
    const example = firstExample(guide.slice(guide.indexOf("## Tools")));
    const before = 'import { Engine, type Message } from "longcat-node";\nconst engine = await Engine.load();\n';
    const after = "console.log(first.toolCalls?.length, second.text);\nawait engine.close();\n";
    expect(run(before + example + after)).toEqual({ diagnostics: [], status: 0, stdout: "1 441 * 861 is 379701.\n", stderr: "" });
  });
});
