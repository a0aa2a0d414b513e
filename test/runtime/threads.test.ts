/** Worker threads and the process's end: no crash, no hang, the program's own exit code. Each in a process of its own. */

import { execFile, spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { addonPath } from "./devices.js";

interface Ended {
  code: number | string | null;
  signal: string | null;
  stdout: string;
  stderr: string;
}

function runProgram(name: string, args: string[] = [], flags: string[] = [], prefix: string[] = []): Promise<Ended> {
  const program = fileURLToPath(new URL(`./programs/${name}.mjs`, import.meta.url));
  const env = { ...process.env, LONGCAT_ADDON: addonPath(), NODE_OPTIONS: "" };
  const [command, ...rest] = [...prefix, process.execPath, ...flags, program, ...args];
  return new Promise((resolve) => {
    execFile(command!, rest, { env, timeout: 90_000 }, (error, stdout, stderr) => {
      resolve({ code: error ? (error.code ?? null) : 0, signal: error?.signal ?? null, stdout, stderr });
    });
  });
}

const ended = (code: number, stdout: string | RegExp) => ({
  code,
  signal: null,
  stdout: typeof stdout === "string" ? stdout : expect.stringMatching(stdout),
});

describe("worker threads", { timeout: 120_000 }, () => {
  it("compute the same as the main thread, at once, and again after others have ended", async () => {
    const result = await runProgram("threads");
    expect(result).toMatchObject(ended(0, /^\[/));
    const sums = JSON.parse(result.stdout) as string[];
    expect(sums).toHaveLength(4);
    expect(new Set(sums).size).toBe(1);
  });

  it("may leave by process.exit in mid-step, twenty times", async () => {
    const result = await runProgram("exits", ["20"]);
    expect(result).toMatchObject(ended(0, `${JSON.stringify(new Array(20).fill(0))}\n`));
  });

  it("may be terminated in mid-step", async () => {
    expect(await runProgram("terminate")).toMatchObject(ended(0, "terminated\n"));
  });
});

describe("the engine", { timeout: 120_000 }, () => {
  it("generates the same in every thread, survives the end of others, and does not keep the process alive", async () => {
    const result = await runProgram("engine");
    expect(result).toMatchObject({ code: 0, signal: null });
    const [first, ...others] = JSON.parse(result.stdout) as string[];
    expect(first!.split(" ")).toHaveLength(24);
    expect(others).toEqual([first, first, first]);
  });
});

describe("the process", { timeout: 120_000 }, () => {
  it("ends though a device is open and idle", async () => {
    expect(await runProgram("ends", ["unused"])).toMatchObject(ended(0, "end\n"));
    expect(await runProgram("ends", ["idle"])).toMatchObject(ended(0, "end\n"));
  });

  it("waits for what a promise waits for", async () => {
    expect(await runProgram("ends", ["pending"])).toMatchObject(ended(0, "end\ndone\n"));
  });

  it("may leave by process.exit in mid-step with a code of its own", async () => {
    expect(await runProgram("ends", ["exit"])).toMatchObject(ended(7, "end\n"));
  });

  it("ends with Node's own code after an exception in mid-step that nobody catches", async () => {
    const result = await runProgram("terminate", ["throw"]);
    expect(result).toMatchObject(ended(1, "terminated\n"));
    expect(result.stderr).toContain("nobody catches this");
  });

  it("collects devices that were forgotten", async () => {
    expect(await runProgram("ends", ["collected"], ["--expose-gc"])).toMatchObject(ended(0, "end\n"));
  });
});

/** Runs a command as a user who has no other processes and may have 60 threads. Only root can do that, and root itself has no such limit. */
const LIMITED = "setpriv --reuid 54321 --regid 54321 --clear-groups prlimit --nproc=60".split(" ");
const [limiter, ...limits] = LIMITED;
const canLimit =
  process.getuid?.() === 0 &&
  spawnSync(limiter!, [...limits, process.execPath, "-e", `fs.accessSync(${JSON.stringify(addonPath())}, fs.constants.R_OK)`]).status === 0;

describe("a system that starts few threads", { timeout: 120_000 }, () => {
  it.skipIf(!canLimit)(
    "refuses a device of many, says how many there may be, and opens one of that many (needs root, setpriv, prlimit)",
    async () => {
      const refusal = "DEVICE_UNAVAILABLE: this system lets the process start only N of 1000 threads; give threads: N\n";
      expect(await runProgram("limited", [], [], LIMITED)).toMatchObject(ended(0, `${refusal.repeat(3)}end\n`));
    },
  );
});
