/** The TypeScript examples of README and guide run as they stand there; the two commands are on the README's first screen. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
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

  it("its example is at most twenty lines, compiles and prints what the model says", () => {
    const example = firstExample(README);
    expect(example.trimEnd().split("\n").length).toBeLessThanOrEqual(20);
    const { stdout, ...rest } = run(example);
    expect(rest).toEqual({ diagnostics: [], status: 0, stderr: "" });
    for (const words of ["Once upon a time, there was a curious", "9 + 4 = 13", "\nAnswer: 1783\n", "\n12 + 30 = 42\n"])
      expect(stdout).toContain(words);
  });
});

describe("README, drafts", () => {
  it("its example says how many were accepted", () => {
    const { stdout, ...rest } = run(firstExample(README.slice(README.indexOf("### Drafts"))));
    expect(rest).toEqual({ diagnostics: [], status: 0, stderr: "" });
    expect(stdout).toMatch(/^\{ verified: \d+, accepted: \d+, share: 0\.\d+ \}\n$/);
  });
});

describe("pages", () => {
  const pages = ["README.md", "CHANGELOG.md", "bench/README.md", ...readdirSync(join(ROOT, "docs")).map((name) => `docs/${name}`)].filter(
    (page) => page.endsWith(".md"),
  );

  it.each(pages)("%s links to pages and headings that are there", (page) => {
    for (const [, link = "", heading] of readFileSync(join(ROOT, page), "utf8").matchAll(/\]\(([^)#]*)(?:#([^)]+))?\)/g)) {
      if (link.includes("://")) continue;
      const target = readFileSync(link === "" ? join(ROOT, page) : join(ROOT, dirname(page), link), "utf8");
      const headings = [...target.matchAll(/^#+ (.+)$/gm)].map(([, text = ""]) =>
        text
          .toLowerCase()
          .replace(/[^\w -]/g, "")
          .replaceAll(" ", "-"),
      );
      if (heading !== undefined) expect(headings, `${link}#${heading}`).toContain(heading);
    }
  });

  it("name files that are there", () => {
    for (const page of pages.filter((name) => name !== "CHANGELOG.md"))
      for (const [, path = ""] of readFileSync(join(ROOT, page), "utf8").matchAll(
        /`?\b((?:docs|ts|test|scripts|bench|models)\/[\w./-]*\w\.(?:md|ts|mjs))\b/g,
      ))
        expect(existsSync(join(ROOT, path)), `${page}: ${path}`).toBe(true);
  });
});

describe("guide", () => {
  it("its examples of several ranks answer as one rank does", () => {
    const guide = readFileSync(join(ROOT, "docs", "guide.md"), "utf8");
    const section = guide.slice(guide.indexOf("## Several ranks"), guide.indexOf("## Prompts"));
    const { stdout, ...rest } = run(firstExample(section));
    expect(rest).toEqual({ diagnostics: [], status: 0, stderr: "" });
    expect(stdout).toMatch(/^, there was a curious [\s\S]*\{ expert: 2, rank: 0, exchange: 'peer' \}\n\[ 24, 0 \]\n$/);
    const alone = run(firstExample(section.slice(section.lastIndexOf("```ts"))));
    expect(alone).toEqual({ diagnostics: [], status: 0, stderr: "", stdout: expect.stringMatching(/\S/) });
  });

  it("its tool example calls the tool and reads the answer", () => {
    const guide = readFileSync(join(ROOT, "docs", "guide.md"), "utf8");
    const example = firstExample(guide.slice(guide.indexOf("## Tools")));
    expect(run(example)).toEqual({ diagnostics: [], status: 0, stdout: "1 441 * 861 is 379701.\n", stderr: "" });
  });

  it("its AI SDK example answers and says what the router did", () => {
    const guide = readFileSync(join(ROOT, "docs", "guide.md"), "utf8");
    const { stdout, ...rest } = run(firstExample(guide.slice(guide.indexOf("## AI SDK"))));
    expect(rest).toEqual({ diagnostics: [], status: 0, stderr: "" });
    expect(stdout).toMatch(/^136 \{\s+ffnExpertsPerToken: [\d.]+,\s+zeroExpertShare: 0\.\d+\s+\}\n$/);
  });
});

describe("serving", () => {
  it("its example of a server in one's own program answers", () => {
    const page = readFileSync(join(ROOT, "docs", "serving.md"), "utf8");
    const { stdout, ...rest } = run(firstExample(page.slice(page.indexOf("## In a program of one's own"))));
    expect(rest).toEqual({ diagnostics: [], status: 0, stderr: "" });
    expect(stdout).toContain("text: ' 42'");
  });
});

it("every script that the pages and programs name is in package.json", () => {
  const { scripts } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as { scripts: Record<string, string> };
  const docs = readdirSync(join(ROOT, "docs")).filter((name) => name.endsWith(".md"));
  const pages = ["README.md", "bench/README.md", "scripts/run.mjs", ...docs.map((name) => join("docs", name))];
  const named = pages.flatMap((page) =>
    [...readFileSync(join(ROOT, page), "utf8").matchAll(/npm run ([\w:]*\w)/g)].map((match) => match[1]!),
  );
  expect(named).toContain("build");
  expect(named.filter((name) => !(name in scripts))).toEqual([]);
});
