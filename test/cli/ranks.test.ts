/** `--ranks`: processes that one command starts, and processes that a launcher starts, of which the first one answers. */
import type { ChildProcess } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { describe, expect, it } from "vitest";
import { childrenOf } from "../helpers/processes.js";
import { type Finished, longcat, type RunOptions } from "./longcat.js";

const RANKS = ["--device", "cpu", "--ranks", "2", "--cache-bytes", "33554432"];
const STORY = ["generate", "Once upon a time", "--temperature", "0", "--max-tokens", "12", ...RANKS];

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** The variables of two processes as torchrun sets them. */
async function launched(): Promise<(rank: number) => Record<string, string>> {
  const all = { WORLD_SIZE: "2", LOCAL_WORLD_SIZE: "2", MASTER_ADDR: "127.0.0.1", MASTER_PORT: String(await freePort()) };
  return (rank) => ({ ...all, RANK: String(rank), LOCAL_RANK: String(rank), TORCHELASTIC_RUN_ID: `test-${process.pid}` });
}

/** Runs the same command as both processes. */
async function both(args: readonly string[], options: [RunOptions?, RunOptions?] = []): Promise<[Finished, Finished]> {
  const env = await launched();
  return Promise.all([0, 1].map((rank) => longcat(args, { ...options[rank], env: env(rank) }))) as Promise<[Finished, Finished]>;
}

/** Does something once, when the output has come so far. */
const once = (pattern: RegExp, act: (child: ChildProcess, found: RegExpExecArray) => void) => {
  let done = false;
  return (child: ChildProcess, text: string) => {
    const found = pattern.exec(text);
    if (done || found === null) return;
    done = true;
    act(child, found);
  };
};

describe("--ranks", () => {
  it("starts the ranks, and gives the answer of one", async () => {
    const [many, one] = await Promise.all([longcat(STORY), longcat(STORY.filter((word) => word !== "--ranks" && word !== "2"))]);
    expect(many).toEqual({ ...one, stderr: many.stderr });
    expect(many).toMatchObject({ code: 0, stderr: "" });
    const scored = await longcat(["score", "Once upon", "--json", ...RANKS]);
    expect(JSON.parse(scored.stdout)).toMatchObject({ logprobs: [null, expect.any(Number)] });
  });

  it("is ended by Ctrl-C with its ranks", async () => {
    const endless = ["generate", "Once upon a time", "--ignore-eos", "--max-tokens", "2000", ...RANKS];
    const { code, stderr } = await longcat(endless, { onOutput: once(/\S/, (child) => child.kill("SIGINT")) });
    expect([code, stderr]).toEqual([130, expect.stringContaining("ABORTED")]);
  });
});

/** Resolves when a rank's process holds a window, which comes last in its load. */
async function hasLoaded(pid: number): Promise<void> {
  while (!readFileSync(`/proc/${pid}/maps`, "utf8").includes("memfd:")) await new Promise((resolve) => setTimeout(resolve, 20));
}

describe("a rank that is killed", () => {
  // The only call runs on rank 0.
  it.each([
    [0, []],
    [1, []],
    [0, ["--json"]],
    [1, ["--json"]],
  ])("rank %i, %j: is an error of the command", async (rank, more) => {
    const endless = ["generate", "Once upon a time", "--ignore-eos", "--max-tokens", "3000", ...more, ...RANKS];
    let ranks: number[] = [];
    const kill = async (leader: ChildProcess): Promise<void> => {
      while (ranks.length < 2) {
        await new Promise((resolve) => setTimeout(resolve, 20));
        ranks = childrenOf(leader.pid!).sort((a, b) => a - b);
      }
      await hasLoaded(ranks[rank]!);
      await new Promise((resolve) => setTimeout(resolve, 500));
      process.kill(ranks[rank]!, "SIGKILL");
    };
    const { code, stderr } = await longcat(endless, { onStart: (child) => void kill(child) });
    expect([code, stderr]).toEqual([1, expect.stringMatching(`^error: COMM_ERROR: rank ${rank} of 2 is lost: its process .* SIGKILL\n$`)]);
  });
});

describe("processes of a launcher", () => {
  it("the first answers, the other works for it and says so", async () => {
    const [leader, follower] = await both(STORY);
    expect(leader).toMatchObject({ code: 0, stdout: (await longcat(STORY)).stdout });
    expect(follower).toMatchObject({ code: 0, stdout: "", stderr: "rank 1 of 2 works for rank 0 until that ends\n" });
  });

  it("one that needs no prompt reads none", async () => {
    const [leader, follower] = await both(
      ["generate", "-", "--max-tokens", "4", "--temperature", "0", ...RANKS],
      [{ input: "Once upon a time" }],
    );
    expect([leader.code, follower.code, follower.stdout]).toEqual([0, 0, ""]);
  });

  it("serve: one server, which ends the other process when it has ended", async () => {
    const statuses: number[] = [];
    const processes: ChildProcess[] = [];
    const ready = once(/listening on (\S+)\n(?:.*\n)*?ready: mini/, async (child, [, url]) => {
      processes.push(child);
      const body = JSON.stringify({ prompt: "Once", max_tokens: 4 });
      const headers = { "Content-Type": "application/json" };
      statuses.push((await fetch(`${url}/v1/completions`, { method: "POST", headers, body })).status);
      for (const one of processes) one.kill("SIGTERM");
    });
    const [leader, follower] = await both(
      ["serve", "--port", "0", ...RANKS],
      [{ onErrorOutput: ready }, { onErrorOutput: once(/works for rank 0/, (child) => processes.push(child)) }],
    );
    expect(statuses).toEqual([200]);
    expect([leader.code, follower.code]).toEqual([0, 0]);
    expect(follower.stderr).not.toContain("listening");
  });

  it("a process that is killed ends the others with COMM_ERROR and exit code 1", async () => {
    const endless = ["generate", "Once upon a time", "--ignore-eos", "--max-tokens", "2000", ...RANKS];
    let leads = false;
    let follows: ChildProcess | undefined;
    const killFollower = () => leads && follows?.kill("SIGKILL");
    const [leader, follower] = await both(endless, [
      {
        onOutput: once(/\S{2}/, () => {
          leads = true;
          killFollower();
        }),
      },
      {
        onErrorOutput: once(/works for rank 0/, (child) => {
          follows = child;
          killFollower();
        }),
      },
    ]);
    expect(follower.signal).toBe("SIGKILL");
    expect([leader.code, leader.stderr]).toEqual([1, expect.stringMatching(/^error: COMM_ERROR: rank 1 of 2 is lost/m)]);

    const [killed, left] = await both(endless, [{ onOutput: once(/\S{2}/, (child) => child.kill("SIGKILL")) }]);
    expect(killed.signal).toBe("SIGKILL");
    expect([left.code, left.stderr]).toEqual([1, expect.stringMatching(/^error: COMM_ERROR: /m)]);
  });
});
