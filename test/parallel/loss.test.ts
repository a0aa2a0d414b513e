/** Ranks and leaders that die, stand still or never come: nobody waits for long, everybody is told who it was, nothing is left (field trial B19). */
import { type ChildProcess, spawn } from "node:child_process";
import { createServer, type AddressInfo, Socket } from "node:net";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, it, vi } from "vitest";
import { LongcatError } from "../../ts/errors.js";
import { Control } from "../../ts/parallel/control.js";
import type { RankFacts } from "../../ts/parallel/group.js";
import * as programs from "../../ts/parallel/programs.js";
import { ROOT } from "../helpers/paths.js";
import { childrenOf, gone } from "../helpers/processes.js";
import { group, longAnswer } from "./groups.js";

/** Longest time from a loss to the end of all calls: five seconds of silence, and some for a busy machine. */
const DEADLINE_MS = 9000;

describe("a rank that is lost under load", () => {
  it.each([
    ["is killed", "SIGKILL", /^rank 1 of 2 is lost: its process \d+ was ended by SIGKILL$/],
    ["stands still", "SIGSTOP", /^rank 1 of 2 is lost: nothing was heard of it for 5 s$/],
  ] as const)(
    "because it %s ends every call with COMM_ERROR naming it, leaves no process, and the next load works",
    async (_, signal, message) => {
      const before = childrenOf(process.pid);
      const some = await group(2);
      const pids = some.ranks.map(({ pid }) => pid);
      const calls = Array.from({ length: 8 }, (_, i) => longAnswer(some, i % 2));
      await Promise.all(calls.map(({ started }) => started));
      const startMs = performance.now();
      process.kill(pids[1]!, signal);
      for (const { done } of calls) {
        const error: LongcatError = await done.catch((one) => one);
        expect(error).toMatchObject({ code: "COMM_ERROR", message: expect.stringMatching(message) });
      }
      expect(performance.now() - startMs).toBeLessThan(DEADLINE_MS);
      expect(await some.lost).toMatchObject({ code: "COMM_ERROR", message: expect.stringMatching(message) });
      await expect(some.generate(0, "x", {}, () => undefined).done).rejects.toMatchObject({ code: "COMM_ERROR" });
      await some.close();
      await gone(pids);
      expect(childrenOf(process.pid)).toEqual(before);
      const next = await group(2);
      expect((await next.generate(1, "Once", { maxTokens: 2 }, () => undefined).done).tokens).toHaveLength(2);
    },
  );

  it("is none at a signal to the whole group of processes, of which the leader decides", async () => {
    const some = await group(2);
    for (const { pid } of some.ranks) for (const signal of ["SIGINT", "SIGHUP", "SIGTERM"]) process.kill(pid, signal);
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect((await some.generate(1, "Once", { maxTokens: 2 }, () => undefined).done).tokens).toHaveLength(2);
  });

  it("is one too whose connection for requests breaks, and nothing else", async () => {
    const connections = vi.spyOn(Socket.prototype, "setKeepAlive");
    const some = await group(2);
    const call = longAnswer(some, 1);
    await call.started;
    for (const { pid } of some.ranks) process.kill(pid, "SIGSTOP"); // they notice nothing
    for (const socket of connections.mock.contexts as Socket[]) socket.resetAndDestroy();
    vi.restoreAllMocks();
    const message = expect.stringMatching(/^rank [01] of 2 is lost: its connection was closed$/);
    await expect(call.done).rejects.toMatchObject({ code: "COMM_ERROR", message });
  });

  it("is told while nothing runs, too", async () => {
    const some = await group(2);
    process.kill(some.ranks[0]!.pid, "SIGKILL");
    expect((await some.lost).message).toMatch(/^rank 0 of 2 is lost: /);
  });
});

describe("a load", () => {
  it("gives the ranks' own error", async () => {
    const before = childrenOf(process.pid);
    await expect(group(2, "mini", { cacheBytes: 1 })).rejects.toMatchObject({
      code: "OUT_OF_MEMORY",
      message: expect.stringMatching(/^rank [01] of 2: /),
    });
    expect(childrenOf(process.pid)).toEqual(before);
  });

  it("ends when a rank is killed in its midst", async () => {
    const before = childrenOf(process.pid);
    const loading = group(2);
    loading.catch(() => undefined);
    while (childrenOf(process.pid).length < before.length + 2) await new Promise((resolve) => setTimeout(resolve, 5));
    process.kill(childrenOf(process.pid).find((pid) => !before.includes(pid))!, "SIGKILL");
    await expect(loading).rejects.toMatchObject({
      code: "COMM_ERROR",
      message: expect.stringMatching(/^rank [01] of 2 is lost: its process/),
    });
    expect(childrenOf(process.pid)).toEqual(before);
  });

  it("ends when a rank stands still in its midst", async () => {
    const before = childrenOf(process.pid);
    let stopped: number | undefined;
    const stop = (): void => {
      if (stopped !== undefined) return;
      stopped = childrenOf(process.pid).find((pid) => !before.includes(pid))!;
      process.kill(stopped, "SIGSTOP");
    };
    await expect(group(2, "mini", { onProgress: stop })).rejects.toMatchObject({
      code: "COMM_ERROR",
      message: expect.stringMatching(/^rank [01] of 2 is lost: nothing was heard of it for 5 s$/),
    });
    expect(stopped).toBeDefined();
    expect(childrenOf(process.pid)).toEqual(before);
  });

  it("ends when ranks are lost that had loaded, before all their connections were there", async () => {
    const [address, port, token] = ["127.0.0.1", await freePort(), "secret"];
    // Ranks that come first, say that they have loaded, and are no more when the true ones are refused.
    const place = { index: 0, processes: 1, localIndex: 0, localProcesses: 1, address, port, token, launcher: "a test" };
    const loading = group(2, "mini", {}, { place });
    loading.catch(() => undefined);
    const first = await Promise.all([0, 1].map((rank) => Control.join({ address, port, token, rank, ranks: 2, connectMs: 10_000 })));
    for (const [rank, control] of first.entries()) control.ready({ rank } as RankFacts);
    await first[0]!.started;
    await first[1]!.close();
    await expect(loading).rejects.toMatchObject({ code: "COMM_ERROR", message: expect.stringMatching(/^rank [01] of 2 is lost: /) });
  });

  it("leaves nothing that keeps the process alive where its first part fails", async () => {
    const servers = (): number => process.getActiveResourcesInfo().filter((name) => name === "TCPServerWrap").length;
    const before = servers();
    vi.spyOn(programs, "programFile").mockImplementation(() => {
      throw new LongcatError("INTERNAL", "it is not built");
    });
    await expect(group(2)).rejects.toMatchObject({ code: "INTERNAL", message: "it is not built" });
    vi.restoreAllMocks();
    await vi.waitFor(() => expect(servers()).toBe(before));
  });

  it("stops when its signal fires", async () => {
    const before = childrenOf(process.pid);
    const controller = new AbortController();
    const loading = group(2, "mini", { signal: controller.signal });
    setTimeout(() => controller.abort(new Error("changed my mind")), 50);
    await expect(loading).rejects.toMatchObject({ code: "ABORTED", cause: new Error("changed my mind") });
    expect(childrenOf(process.pid)).toEqual(before);
  });

  it("ends with what its listener throws", async () => {
    const thrown = new Error("the bar is broken");
    const onProgress = (): never => {
      throw thrown;
    };
    await expect(group(2, "mini", { onProgress })).rejects.toBe(thrown);
  });
});

/** Processes of a group, each a program of its own. */
describe("processes", () => {
  const started: Program[] = [];
  afterEach(() => {
    for (const { child } of started.splice(0)) child.kill("SIGKILL");
  });

  /** A program that leads or follows as these variables say. */
  class Program {
    readonly child: ChildProcess;
    readonly stderr: string[] = [];
    readonly ended: Promise<number | string | null>;
    readonly #told: Record<string, unknown>[] = [];
    #listener: (() => void) | undefined;

    constructor(env: Record<string, string>, ranks = 2, options: object = {}) {
      const program = fileURLToPath(new URL("programs/process.mjs", import.meta.url));
      this.child = spawn(process.execPath, [program, String(ranks), JSON.stringify(options)], {
        cwd: ROOT,
        env: { ...process.env, ...env },
      });
      createInterface(this.child.stdout!).on("line", (line) => {
        this.#told.push(JSON.parse(line) as Record<string, unknown>);
        this.#listener?.();
      });
      createInterface(this.child.stderr!).on("line", (line) => this.stderr.push(line));
      this.ended = new Promise((resolve) => this.child.once("exit", (code, signal) => resolve(signal ?? code)));
      started.push(this);
    }

    /** What it says next. */
    async next(): Promise<Record<string, unknown>> {
      while (this.#told.length === 0) await new Promise<void>((resolve) => (this.#listener = resolve));
      return this.#told.shift()!;
    }

    say(line: string): void {
      this.child.stdin!.write(`${line}\n`);
    }
  }

  /** What torchrun tells process `index` of two on this host. */
  async function torchrun(index: number, port: number, more: Record<string, string> = {}): Promise<Record<string, string>> {
    const place = { RANK: String(index), WORLD_SIZE: "2", LOCAL_RANK: String(index), LOCAL_WORLD_SIZE: "2" };
    return { ...place, MASTER_ADDR: "127.0.0.1", MASTER_PORT: String(port), ...more };
  }

  it("of a killed leader are gone at once", async () => {
    const leader = new Program({});
    const { pids } = await leader.next();
    expect(childrenOf(leader.child.pid!).sort()).toEqual([...(pids as number[])].sort());
    leader.child.kill("SIGKILL");
    await gone(pids as number[], 3000);
  });

  it.each([0, 50, 150, 400])("whose leader is killed %i ms after they were started are gone at once", async (ms) => {
    const leader = new Program({});
    let ranks: number[] = [];
    while (ranks.length < 2) {
      await new Promise((resolve) => setTimeout(resolve, 2));
      ranks = childrenOf(leader.child.pid!);
    }
    await new Promise((resolve) => setTimeout(resolve, ms));
    leader.child.kill("SIGKILL");
    await gone(ranks, 3000);
  });

  it("end with a leader that ends without closing", async () => {
    const leader = new Program({});
    const { pids } = await leader.next();
    leader.say("leave");
    expect(await leader.ended).toBe(0);
    await gone(pids as number[], 3000);
  });

  it("that only wait for a call learn that its rank is lost", async () => {
    const leader = new Program({});
    const { pids } = (await leader.next()) as { pids: number[] };
    leader.say("leave busy");
    expect(await leader.next()).toEqual({ busy: true });
    process.kill(pids[0]!, "SIGKILL");
    for (let said = await leader.next(); said["code"] !== "COMM_ERROR"; said = await leader.next())
      expect(Object.keys(said)).toEqual([expect.stringMatching(/^(busy|ended)$/)]);
    expect(await leader.ended).toBe(0);
    await gone(pids);
  });

  it("that a launcher started make one group; the leader ends it", async () => {
    const port = await freePort();
    const [leader, member] = [new Program(await torchrun(0, port), 4), new Program(await torchrun(1, port), 4)];
    expect(await member.next()).toEqual({ rank: 2, ranks: 4 });
    const { pids } = (await leader.next()) as { pids: number[] };
    expect(childrenOf(leader.child.pid!).sort()).toEqual(pids.slice(0, 2).sort());
    expect(childrenOf(member.child.pid!).sort()).toEqual(pids.slice(2).sort());
    leader.say("answer");
    expect(((await leader.next()) as { tokens: number[] }).tokens).toHaveLength(8);
    leader.say("close");
    expect(await leader.next()).toEqual({ closed: true });
    expect(await member.next()).toEqual({ ended: null });
    await gone(pids);
  });

  it.each([
    ["member", "SIGKILL", 0, /^rank 1 of 2 is lost: its connection was closed$/],
    ["leader", "SIGKILL", 1, /^rank 1 of 2 has lost its leader: its connection was closed$/],
  ] as const)("end when the %s is killed", async (who, signal, survivor, message) => {
    const port = await freePort();
    const programs = [new Program(await torchrun(0, port)), new Program(await torchrun(1, port))];
    const { pids } = (await programs[0]!.next()) as { pids: number[] };
    await programs[1]!.next();
    programs[1 - survivor]!.child.kill(signal);
    expect(await programs[survivor]!.next(), who).toEqual({ ended: expect.stringMatching(message) });
    await gone(pids);
  });

  it("name a rank that is never started", async () => {
    const port = await freePort();
    const leader = new Program(await torchrun(0, port), 2, { parallel: { joinTimeoutMs: 3000 } });
    expect(await leader.next()).toEqual({
      code: "COMM_ERROR",
      message: `rank 1 of 2 did not connect to the leader at port ${port} of 127.0.0.1 within 3 s; a launcher started 2 processes`,
    });
    expect(await leader.ended).toBe(1);
  });

  it("name a leader that is never started", async () => {
    const port = await freePort();
    const member = new Program(await torchrun(1, port), 2, { parallel: { joinTimeoutMs: 1000 } });
    expect(await member.next()).toMatchObject({
      code: "COMM_ERROR",
      message: expect.stringMatching(`^rank 1 of 2 found no leader at 127.0.0.1:${port} within 1 s`),
    });
  });

  it("refuse a stray with another token", async () => {
    const port = await freePort();
    const leader = new Program(await torchrun(0, port, { LONGCAT_PARALLEL_TOKEN: "mine" }));
    const stray = new Program(await torchrun(1, port, { LONGCAT_PARALLEL_TOKEN: "theirs" }));
    expect(await stray.next()).toEqual({ code: "COMM_ERROR", message: "rank 1 of 2: refused: this leader's group has another token" });
    const member = new Program(await torchrun(1, port, { LONGCAT_PARALLEL_TOKEN: "mine" }));
    expect(await member.next()).toEqual({ rank: 1, ranks: 2 });
    expect(Object.keys(await leader.next())).toEqual(["pids"]);
  });

  it("cannot share out ranks unevenly", async () => {
    const member = new Program(await torchrun(1, 1), 3);
    expect(await member.next()).toEqual({
      code: "OPTION_INVALID",
      message: "parallel.expert: 3 ranks cannot be shared out among the 2 processes that a launcher started; give a multiple of 2",
    });
  });

  it("write with their ranks' numbers in front, at stderr", async () => {
    const leader = new Program({ NODE_OPTIONS: "--trace-exit" });
    const { pids } = (await leader.next()) as { pids: number[] };
    leader.say("close");
    await leader.ended;
    await gone(pids);
    expect(leader.stderr.filter((line) => line.startsWith("[rank 1] "))).not.toEqual([]);
  });
});

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => resolve(port));
    });
  });
}
