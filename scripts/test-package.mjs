/**
 * Tests the package as users get it: packs it, checks the tarball, installs it with scripts disabled into empty folders and runs it.
 *
 *   node scripts/test-package.mjs
 */
import { spawnSync } from "node:child_process";
import { chmodSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { pack, prebuildPath, ROOT, runProgram } from "./pack.mjs";

let [passed, failed] = [0, 0];

/** One check: `body` throws if it does not hold. */
function check(name, body) {
  try {
    body();
    passed++;
    console.log(`ok    ${name}`);
  } catch (error) {
    failed++;
    console.log(`FAIL  ${name}\n${String(error.message).replace(/^/gm, "      ")}`);
  }
}

function expect(condition, text) {
  if (!condition) throw new Error(text);
}

const bin = (name) => join(ROOT, "node_modules", ".bin", name);

/** Runs the installed package's `longcat` in `app`, as `npx longcat` does; never throws. */
function longcat(app, args, options = {}) {
  return spawnSync("npx", ["--no-install", "longcat", ...args], { cwd: app, encoding: "utf8", ...options });
}

/** Runs a module that imports the installed package; its standard output. */
function evaluate(app, source) {
  return runProgram(process.execPath, ["--input-type=module", "-e", source], { cwd: app });
}

/** An empty project with the tarball installed, scripts disabled. */
function install(folder, tarball, ...flags) {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "package.json"), JSON.stringify({ name: "app", private: true, type: "module" }));
  const args = ["install", tarball, "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", ...flags];
  runProgram("npm", args, { cwd: folder });
  return folder;
}

const STORY = ["generate", "Once upon a time", "--max-tokens", "16", "--temperature", "0"];

function expectStory(result) {
  expect(result.status === 0, `ended with ${result.status ?? result.signal}: ${result.stderr}`);
  expect(result.stdout.startsWith(", there was a curious"), `printed ${JSON.stringify(result.stdout)}`);
}

// ---- the tarball

const work = mkdtempSync(join(tmpdir(), "longcat-package-"));
chmodSync(work, 0o755);
const tarball = pack(work);
const files = runProgram("tar", ["-tzf", tarball]).trim().split("\n");
const manifest = JSON.parse(runProgram("tar", ["-xzOf", tarball, "package/package.json"]));

check("the tarball holds what is needed and no more", () => {
  const needed = [
    "dist/index.js",
    "dist/index.d.ts",
    "dist/cli/main.js",
    "dist/ai-sdk/index.js",
    "dist/server/index.js",
    "dist/server/page/index.html",
    "models/mini/config.json",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
  ];
  for (const file of needed) expect(files.includes(`package/${file}`), `${file} is not in it`);
  const prebuild = prebuildPath("package");
  for (const file of [prebuild, join(dirname(prebuild), "kernels")]) expect(files.includes(file), `${file} is not in it`);
  const strange = files.filter((file) => /binding\.gyp|\/test\/|tsbuildinfo|\/ts\/|node_modules/.test(file));
  expect(strange.length === 0, `it holds ${strange.join(", ")}`);
});

check("the pages that its README links to are in it, and no others of docs", () => {
  const pages = [...readFileSync(join(ROOT, "README.md"), "utf8").matchAll(/\]\(([^)#:]+)\)/g)].map(([, link]) => `package/${link}`);
  const missing = pages.filter((page) => !files.includes(page));
  expect(pages.length > 0 && missing.length === 0, `${missing.join(", ") || "no links"}`);
  const strange = files.filter((file) => file.startsWith("package/docs/") && !/^package\/docs\/[\w-]+\.md$/.test(file));
  expect(strange.length === 0, `it holds ${strange.join(", ")}`);
});

check("it has no install scripts", () => {
  const scripts = Object.keys(manifest.scripts ?? {}).filter((name) => /^(pre|post)|install|prepare/.test(name));
  expect(scripts.length === 0, `package.json has ${scripts.join(", ")}`);
  expect(manifest.gypfile === false, "gypfile is not false");
});

check("publint --strict", () => runProgram(bin("publint"), ["--strict", tarball]));
check("are the types right (ES modules)", () => runProgram(bin("attw"), ["--profile", "esm-only", tarball]));

check("the addon needs no newer glibc than package.json states", () => {
  const symbols = spawnSync("objdump", ["-T", prebuildPath(ROOT)], { encoding: "utf8", maxBuffer: 1 << 26 });
  if (symbols.error) return console.log("      skipped: no objdump on this machine");
  const versions = [...symbols.stdout.matchAll(/\bGLIBC_(\d+)\.(\d+)/g)].map(([, major, minor]) => Number(major) * 1000 + Number(minor));
  const [, major, minor] = /(\d+)\.(\d+)/.exec(manifest.config.glibc) ?? [];
  const newest = Math.max(...versions);
  expect(newest <= Number(major) * 1000 + Number(minor), `it needs GLIBC_2.${newest % 1000}, stated is ${manifest.config.glibc}`);
  expect(!/GLIBCXX_/.test(symbols.stdout), "it needs the C++ library of the machine");
});

// ---- an ordinary install

const app = install(join(work, "app"), tarball);
const installed = join(app, "node_modules", "longcat-node");
const addon = prebuildPath(installed);

check("npx longcat generate tells the story", () => expectStory(longcat(app, STORY)));
check("doctor --json finds the addon", () => {
  const report = JSON.parse(longcat(app, ["doctor", "--json"]).stdout);
  expect(report.ok === true, JSON.stringify(report));
});
check("import, listDevices, inspect, Engine.load", () => {
  const source = `import { Engine, inspect, listDevices } from "longcat-node";
    const gpus = await listDevices();
    const { name } = await inspect.processor();
    const engine = await Engine.load();
    const { text } = await engine.generate({ messages: [{ role: "user", content: "Compute 56 + 80." }] }, { temperature: 0 });
    await engine.close();
    console.log(gpus.every(({ kind }) => kind === "cuda"), name, text);`;
  expect(evaluate(app, source) === "true cpu 136\n", "devices or sum are wrong");
});
check("import longcat-node/server: a server of one's own", () => {
  const source = `import { Engine } from "longcat-node";
    import { ApiServer, pageFiles } from "longcat-node/server";
    const server = await ApiServer.listen({ port: 0 }, pageFiles());
    const engine = await Engine.load();
    server.serve(engine);
    const statuses = await Promise.all(["/health", "/", "/v1/models"].map(async (path) => (await fetch(server.url + path)).status));
    await server.drain();
    await engine.close();
    console.log(statuses.join());`;
  expect(evaluate(app, source) === "200,200,200\n", "health, page or models are wrong");
});
check("a TypeScript program compiles against it", () => {
  const source =
    'import { Engine, LongcatError } from "longcat-node";\nexport const load: Promise<Engine> = Engine.load();\nvoid LongcatError;\n';
  writeFileSync(join(app, "use.ts"), source);
  const options = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2022", "--lib", "es2023,esnext.disposable"];
  const types = ["--types", "node", "--typeRoots", join(ROOT, "node_modules", "@types")];
  runProgram(process.execPath, [join(ROOT, "node_modules/typescript/bin/tsc"), ...options, ...types, "use.ts"], { cwd: app });
});

// ---- other places

check("installed without optional packages", () => expectStory(longcat(install(join(work, "bare"), tarball, "--omit=optional"), STORY)));
check("in a folder with spaces and non-ASCII letters", () =>
  expectStory(longcat(install(join(work, "mit Leerzeichen", "größe 猫"), tarball), STORY)),
);
check("in a folder that cannot be written", () => {
  runProgram("chmod", ["-R", "a-w,a+rX", app]);
  // Root may write anywhere: be nobody, whose home is nowhere.
  const user = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : {};
  const result = spawnSync(process.execPath, [join(installed, "dist/cli/main.js"), ...STORY], { cwd: app, encoding: "utf8", ...user });
  runProgram("chmod", ["-R", "u+w", app]);
  expectStory(result);
});

// ---- the addon missing or broken

/** Everything but running a model works; running one says NATIVE_MISSING, where it looked and what would mend it. */
function expectMissing(words, environment = {}) {
  const env = { ...process.env, ...environment };
  expect(longcat(app, ["--help"], { env }).status === 0, "--help does not work");
  const run = longcat(app, STORY, { env });
  expect(run.status === 1 && run.stdout === "", `generate ended with ${run.status ?? run.signal}: ${run.stdout}${run.stderr}`);
  expect(/^error: NATIVE_MISSING: /.test(run.stderr), `generate said ${run.stderr}`);
  for (const word of words) expect(run.stderr.includes(word), `generate does not say ${JSON.stringify(word)}: ${run.stderr}`);
  const doctor = longcat(app, ["doctor", "--json"], { env });
  expect(doctor.status === 1, `doctor ended with ${doctor.status ?? doctor.signal}: ${doctor.stderr}`);
  for (const word of words) expect(doctor.stdout.includes(word), `doctor does not say ${JSON.stringify(word)}: ${doctor.stdout}`);
  runProgram(process.execPath, ["--input-type=module", "-e", 'await import("longcat-node")'], { cwd: app, env });
}

const whole = join(work, "addon.node");
copyFileSync(addon, whole);

check("the prebuilt addon deleted", () => {
  rmSync(addon);
  expectMissing(["prebuilds", "build"]);
});
check("the prebuilt addon truncated to nothing", () => {
  copyFileSync(whole, addon);
  truncateSync(addon, 0);
  expectMissing([addon]);
});
check("a text instead of the prebuilt addon", () => {
  writeFileSync(addon, "not an addon\n");
  expectMissing([addon]);
});
check("the prebuilt addon of another processor", () => {
  const bytes = readFileSync(whole);
  // e_machine of the ELF header: 183 is AArch64, 62 x86-64.
  bytes.writeUInt16LE(process.arch === "arm64" ? 62 : 183, 18);
  writeFileSync(addon, bytes);
  expectMissing([addon]);
});
copyFileSync(whole, addon);
check("LONGCAT_NATIVE names a file that is not there", () =>
  expectMissing(["LONGCAT_NATIVE", "/nowhere.node"], { LONGCAT_NATIVE: "/nowhere.node" }),
);
check("whole again, it runs again", () => expectStory(longcat(app, STORY)));

rmSync(work, { recursive: true, force: true });
expect(!existsSync(work), "the temporary folder is still there");
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
