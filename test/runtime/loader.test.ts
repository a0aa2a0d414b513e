/** Finding the addon: what NATIVE_MISSING says of each place. */

import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { LongcatError } from "../../ts/errors.js";
import { loadAddon, packageVersion } from "../../ts/runtime/addon.js";
import { findAddon } from "../../ts/runtime/loader.js";
import { addonPath, ROOT } from "./devices.js";

const tuple = `${process.platform}-${process.arch}`;
let root: string;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "longcat loader é-"));
  vi.stubEnv("LONGCAT_NATIVE", "");
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(root, { recursive: true, force: true });
});

function place(path: string, content: string | Buffer): string {
  const full = join(root, path);
  mkdirSync(dirname(full), { recursive: true });
  writeFileSync(full, content);
  return full;
}

function placeAddon(path: string): string {
  const full = place(path, "");
  copyFileSync(addonPath(), full);
  return full;
}

function canResolve(resolve: () => string): boolean {
  try {
    return resolve() !== "";
  } catch {
    return false;
  }
}

function failure(version = packageVersion()): LongcatError {
  try {
    findAddon(root, version);
  } catch (error) {
    expect(error).toBeInstanceOf(LongcatError);
    expect((error as LongcatError).code).toBe("NATIVE_MISSING");
    return error as LongcatError;
  }
  throw new Error("an addon was found");
}

/** The addon's first bytes with another architecture in the header. */
function foreign(machine: number): Buffer {
  const bytes = Buffer.from(readFileSync(addonPath()).subarray(0, 4096));
  bytes.writeUInt16LE(machine, 18);
  return bytes;
}

describe("NATIVE_MISSING", () => {
  it("lists every place, and the command that mends it", () => {
    const { message } = failure();
    expect(message).toContain(`\n  ${join(root, "build", "Release")}: absent`);
    expect(message).toContain(`\n  ${join(root, "build", "Debug")}: absent`);
    expect(message).toContain(`\n  ${join(root, "prebuilds", tuple)}: absent`);
    expect(message).toContain(join(root, "scripts", "build-native.mjs"));
  });

  it("has the command install the headers, unless they are there", () => {
    const build = `node ${JSON.stringify(join(root, "scripts", "build-native.mjs"))}`;
    const command = () => /build it here with: (.*)$/.exec(failure().message)![1];
    place("package.json", "{}");
    const headersAbove = () => createRequire(join(root, "package.json")).resolve("node-api-headers/package.json");
    if (!canResolve(headersAbove)) expect(command()).toBe(`npm install --no-save node-api-headers node-addon-api && ${build}`);
    symlinkSync(join(ROOT, "node_modules"), join(root, "node_modules"));
    expect(command()).toBe(build);
  });

  it("says for which systems there is a prebuilt one", () => {
    place("prebuilds/plan9-mips/longcat-node.node", "x");
    expect(failure().message).toContain("(there is one for plan9-mips)");
  });

  it("says what is wrong with a file: empty, text, another architecture", () => {
    const empty = place(`prebuilds/${tuple}/longcat-node.node`, "");
    expect(failure().message).toContain(`${empty}: an empty file`);
    place(`prebuilds/${tuple}/longcat-node.node`, "not an addon\n");
    expect(failure().message).toContain(`${empty}: not a shared library (no ELF header)`);
    place(`prebuilds/${tuple}/longcat-node.node`, foreign(process.arch === "arm64" ? 62 : 183));
    expect(failure().message).toContain(`${empty}: built for ${process.arch === "arm64" ? "x64" : "arm64"}, this is ${process.arch}`);
  });

  it("says that a file was cut short, which the loader would die of", () => {
    const whole = readFileSync(addonPath());
    for (const bytes of [64, 4096, whole.length - 1]) {
      const cut = place("build/Release/longcat.node", whole.subarray(0, bytes));
      expect(failure().message).toContain(`${cut}: cut short: ${bytes} bytes of at least `);
    }
    place("build/Release/longcat.node", whole.subarray(0, 63));
    expect(failure().message).toContain("not a shared library");
  });

  it("gives the loader's own words for what is no addon", () => {
    const program = place("build/Release/longcat.node", readFileSync("/bin/ls"));
    expect(failure().message).toMatch(new RegExp(`${program}: .*(executable|dynamically load|self-register)`));
  });

  it("does not take an addon of another version, or for another C library", () => {
    const built = placeAddon("build/Release/longcat.node");
    expect(failure("99.0.0").message).toContain(`${built}: built for version ${packageVersion()} of this package, which is 99.0.0`);
    rmSync(built);
    const other = place(`prebuilds/${tuple}/longcat-node.abi1.node`, "x");
    expect(failure().message).toContain(`${other}: made for another C library or Node version`);
  });
});

describe("LONGCAT_NATIVE", () => {
  it("names the file that is loaded", () => {
    vi.stubEnv("LONGCAT_NATIVE", placeAddon("elsewhere/any name.node"));
    expect(findAddon(root, packageVersion()).version).toBe(packageVersion());
  });

  it("is not passed over in silence when it points nowhere, though another place has the addon", () => {
    placeAddon("build/Release/longcat.node");
    const nowhere = join(root, "nowhere.node");
    vi.stubEnv("LONGCAT_NATIVE", nowhere);
    const { message } = failure();
    expect(message).toContain("LONGCAT_NATIVE");
    expect(message).toContain(`${nowhere}: absent`);
    expect(message).not.toContain("build/Release");
    vi.stubEnv("LONGCAT_NATIVE", root);
    expect(failure().message).toContain(`${root}: not a file`);
  });
});

describe("the addon", () => {
  it("is found where it was built, before prebuilt ones, and passes over what cannot be loaded", () => {
    place("build/Release/longcat.node", "");
    placeAddon(`prebuilds/${tuple}/longcat-node.node`);
    expect(findAddon(root, packageVersion()).version).toBe(packageVersion());
  });

  it("is loaded once", () => {
    vi.stubEnv("LONGCAT_NATIVE", addonPath());
    expect(loadAddon()).toBe(loadAddon());
    expect(loadAddon().ops().length).toBe(32);
  });

  it("two copies at different paths work side by side", async () => {
    const [first, second] = ["one/a.node", "two/a.node"].map((path) => {
      vi.stubEnv("LONGCAT_NATIVE", placeAddon(path));
      return findAddon(root, packageVersion());
    });
    expect(first).not.toBe(second);
    for (const addon of [first!, second!]) {
      const device = addon.openDevice({ kind: "cpu", threads: 1 });
      await device.done(0);
      await device.close();
    }
  });
});
