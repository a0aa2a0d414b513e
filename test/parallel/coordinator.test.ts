/** Joining, agreeing, and hearing of losses, over real connections but without models (ts/parallel/coordinator.ts, control.ts). */
import { spawn } from "node:child_process";
import { connect } from "node:net";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, it, vi } from "vitest";
import { LongcatError } from "../../ts/errors.js";
import type { Round } from "../../ts/model/lockstep.js";
import type { Connection } from "../../ts/parallel/connection.js";
import { Control } from "../../ts/parallel/control.js";
import { Coordinator, type CoordinatorOptions } from "../../ts/parallel/coordinator.js";
import type { RankFacts } from "../../ts/parallel/group.js";
import { dial, introduce } from "../../ts/parallel/introduction.js";
import { Channel, Frame, type RankSetup } from "../../ts/parallel/messages.js";

const TOKEN = "secret";
const decode = { kind: "decode", sequences: 1, drafts: 0 } as const;

let open: { close?(): unknown; destroy?(): void }[] = [];
afterEach(() => {
  for (const one of open) void (one.destroy?.() ?? one.close?.());
  open = [];
  vi.useRealTimers();
});

/** What a coordinator has told its leader. */
async function coordinator(options: Partial<CoordinatorOptions> = {}) {
  const told = { progress: [] as unknown[], warnings: [] as string[], started: 0, quiet: 0 };
  let lose!: (loss: { error: LongcatError; rank: number | undefined }) => void;
  const lost = new Promise<{ error: LongcatError; rank: number | undefined }>((resolve) => {
    lose = resolve;
  });
  const made = await Coordinator.listen(
    {
      ...{ ranks: 2, address: "127.0.0.1", port: 0, token: TOKEN, connectMs: 5000, loadMs: 10_000, starter: "a test starts them" },
      ...{ setup: { directory: "there" } as RankSetup, ...options },
    },
    {
      onProgress: (progress) => told.progress.push(progress),
      onWarning: (message) => told.warnings.push(message),
      onStarted: () => {
        told.started += 1;
      },
      onLost: (error, rank) => lose({ error, rank }),
      onQuiet: () => {
        told.quiet += 1;
      },
    },
  );
  open.push(made);
  return { coordinator: made, told, lost };
}

/** A rank that has joined, and what it was told. */
async function join(port: number, rank: number, { ranks = 2, token = TOKEN, connectMs = 2000 } = {}) {
  const control = await Control.join({ address: "127.0.0.1", port, token, rank, ranks, connectMs });
  const rounds: Round[] = [];
  let closed = 0;
  let quiet = 0;
  let lose!: (error: LongcatError) => void;
  const lost = new Promise<LongcatError>((resolve) => {
    lose = resolve;
  });
  control.listen({
    onRound: (round) => rounds.push(round),
    onClose: () => {
      closed += 1;
    },
    onAllQuiet: () => {
      quiet += 1;
    },
    onLost: lose,
  });
  open.push(control);
  return { control, rounds, lost, closed: () => closed, quiet: () => quiet };
}

const facts = (rank: number) => ({ rank }) as RankFacts;

describe("joining", () => {
  it("gives each rank the leader's setup, and starts when all are ready", async () => {
    const { coordinator: made, told } = await coordinator();
    const ranks = [await join(made.port, 0), await join(made.port, 1)];
    expect(ranks[1]?.control.setup).toEqual({ directory: "there" });
    ranks[0]?.control.ready(facts(0));
    await vi.waitFor(() => expect(told.started).toBe(0));
    ranks[1]?.control.ready(facts(1));
    await Promise.all(ranks.map(({ control }) => control.started));
    expect(told.started).toBe(1);
  });

  it("hands everybody's bytes to everybody, by rank, whoever came first", async () => {
    const { coordinator: made } = await coordinator();
    const [b, a] = [await join(made.port, 1), await join(made.port, 0)];
    const gathered = [b.control.gather("name", Uint8Array.of(7)), b.control.gather("other", Uint8Array.of(9))];
    gathered.push(a.control.gather("other", Uint8Array.of(4)), a.control.gather("name", new Uint8Array(300_000).fill(3)));
    const [first, second, third, fourth] = await Promise.all(gathered);
    expect([first?.[0]?.length, first?.[1]?.[0]]).toEqual([300_000, 7]);
    expect(fourth).toEqual(first);
    expect(second?.map((bytes) => bytes[0])).toEqual([4, 9]);
    expect(third).toEqual(second);
  });

  it("sums progress once all ranks have told theirs, and tells each warning once", async () => {
    const { coordinator: made, told } = await coordinator();
    const ranks = [await join(made.port, 0), await join(made.port, 1)];
    for (const { control } of ranks) control.warn("one");
    ranks[0]?.control.progress(5, 10);
    await vi.waitFor(() => expect(told.warnings).toEqual(["one"]));
    ranks[1]?.control.progress(1, 20);
    ranks[1]?.control.warn("two");
    await vi.waitFor(() => expect(told.warnings).toEqual(["one", "two"]));
    expect(told.progress).toEqual([{ doneBytes: 6, totalBytes: 30 }]);
  });

  it.each([
    ["another token", { token: "wrong" }, 1, "another token"],
    ["a rank beyond the group's", { ranks: 3 }, 2, "this leader's group has 2 ranks"],
    ["a rank that is there already", {}, 0, "rank 0 of 2 has joined already"],
  ])("refuses %s, and goes on", async (_, how, rank, why) => {
    const { coordinator: made } = await coordinator();
    await join(made.port, 0);
    await expect(join(made.port, rank, how)).rejects.toMatchObject({ code: "COMM_ERROR", message: expect.stringContaining(why) });
    await join(made.port, 1);
  });

  it("lets no stranger send much, or say nothing for long", async () => {
    const { coordinator: made } = await coordinator();
    const socket = connect(made.port, "127.0.0.1");
    const closed = new Promise((resolve) => socket.once("close", resolve));
    socket.write("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    await closed;
  });

  it("names the ranks that did not come", async () => {
    const { coordinator: made, lost } = await coordinator({ ranks: 6, connectMs: 200 });
    const { port } = made;
    const ranks = [await join(port, 0, { ranks: 6 }), await join(port, 2, { ranks: 6 })];
    const { error } = await lost;
    expect(error).toMatchObject({ code: "COMM_ERROR" });
    expect(error.message).toBe(
      `ranks 1, 3–5 of 6 did not connect to the leader at port ${port} of 127.0.0.1 within 0.2 s; a test starts them`,
    );
    for (const rank of ranks) expect((await rank.lost).message).toBe(error.message);
  });

  it("names the ranks that did not load", async () => {
    const { coordinator: made, lost } = await coordinator({ loadMs: 300 });
    for (const rank of [0, 1]) (await join(made.port, rank)).control.ready(facts(0));
    const slow = await coordinator({ loadMs: 300 });
    (await join(slow.coordinator.port, 0)).control.ready(facts(0));
    await join(slow.coordinator.port, 1);
    expect((await slow.lost).error.message).toBe("rank 1 of 2 did not load; for 0.3 s no rank has read anything");
    expect(await Promise.race([lost, "nothing"])).toBe("nothing");
  });

  it("tells a rank's own error, whose load failed", async () => {
    const { coordinator: made, lost } = await coordinator();
    const ranks = [await join(made.port, 0), await join(made.port, 1)];
    const waiting = ranks[0]?.control.gather("windows", Uint8Array.of(1));
    ranks[1]?.control.fail(new Error("not ours"));
    expect((await lost).error).toMatchObject({ code: "INTERNAL", message: "rank 1 of 2: not ours" });
    await expect(waiting).rejects.toMatchObject({ code: "INTERNAL", message: "rank 1 of 2: not ours" });
  });

  it("gives up where there is no leader", async () => {
    const { coordinator: made } = await coordinator();
    const { port } = made;
    made.destroy();
    await expect(join(port, 1, { connectMs: 300 })).rejects.toMatchObject({
      code: "COMM_ERROR",
      message: expect.stringMatching(new RegExp(`^rank 1 of 2 found no leader at 127.0.0.1:${port} within 0.3 s: .*ECONNREFUSED`)),
    });
  });
});

describe("agreeing", () => {
  it("gives rounds in order: those that a rank asked for, and those that it joins", async () => {
    const { coordinator: made } = await coordinator();
    const [a, b] = [await join(made.port, 0), await join(made.port, 1)];
    a.control.works(true);
    expect(await a.control.agree(decode)).toEqual({ ...decode, round: 0 });
    expect(await a.control.agree({ ...decode, sequences: 5 })).toEqual({ ...decode, sequences: 5, round: 1 });
    b.control.works(true);
    await vi.waitFor(() => expect(b.rounds.map(({ round }) => round)).toEqual([0, 1]));
    const both = [a.control.agree(decode), b.control.agree({ kind: "prompt", sequences: 2, drafts: 0 })];
    expect(await Promise.all(both)).toEqual(Array(2).fill({ kind: "prompt", sequences: 2, drafts: 0, round: 2 }));
    expect(a.rounds).toEqual([]);
  });

  it("does not wait for long for a rank that works on something else", async () => {
    const { coordinator: made } = await coordinator();
    const [a, b] = [await join(made.port, 0), await join(made.port, 1)];
    b.control.works(true);
    a.control.works(true);
    expect(await a.control.agree(decode)).toMatchObject({ round: 0 });
    await vi.waitFor(() => expect(b.rounds).toHaveLength(1));
  });
});

describe("a loss", () => {
  /** A group that serves. */
  async function serving(options: Partial<CoordinatorOptions> = {}) {
    const made = await coordinator(options);
    const { ranks = 2 } = options;
    const joined = [];
    for (let rank = 0; rank < ranks; rank++) joined.push(await join(made.coordinator.port, rank, { ranks }));
    for (const [rank, { control }] of joined.entries()) control.ready(facts(rank));
    await Promise.all(joined.map(({ control }) => control.started));
    return { ...made, ranks: joined };
  }

  it("of a connection is told to all who wait, naming the rank", async () => {
    const { lost, ranks } = await serving();
    for (const { control } of ranks) control.works(true);
    await Promise.all(ranks.map(({ control }) => control.gather("all work", new Uint8Array(0))));
    const waiting = ranks[0]?.control.agree(decode);
    void ranks[1]?.control.close();
    const expected = { code: "COMM_ERROR", message: "rank 1 of 2 is lost: its connection was closed" };
    expect(await lost).toMatchObject({ rank: 1, error: expected });
    await expect(waiting).rejects.toMatchObject(expected);
    await expect(ranks[0]?.control.agree(decode)).rejects.toMatchObject(expected);
    await expect(ranks[0]?.control.gather("late", new Uint8Array(0))).rejects.toMatchObject(expected);
  });

  it("of a process says how it ended, if the leader knows", async () => {
    const { coordinator: made, lost, ranks } = await serving();
    void ranks[1]?.control.close();
    made.ended(1, "its process 7 was ended by SIGKILL");
    expect((await lost).error.message).toBe("rank 1 of 2 is lost: its process 7 was ended by SIGKILL");
  });

  it("of a rank's connection to the leader's main thread is one too", async () => {
    const { coordinator: made, lost } = await serving();
    made.disconnected(1, "its connection broke: read ETIMEDOUT");
    expect((await lost).error.message).toBe("rank 1 of 2 is lost: its connection broke: read ETIMEDOUT");
  });

  it("is the fault of the rank that ended, though another one has noticed it first", async () => {
    const { lost, ranks } = await serving({ ranks: 3 });
    ranks[0]?.control.fail(new LongcatError("COMM_ERROR", "remote process exited"));
    await new Promise((resolve) => setTimeout(resolve, 50));
    void ranks[2]?.control.close();
    const { error, rank } = await lost;
    expect([rank, error.message]).toEqual([2, "rank 2 of 3 is lost: its connection was closed"]);
  });

  it("keeps the words of who noticed it", async () => {
    const { coordinator: made, lost, ranks } = await serving();
    ranks[0]?.control.fail(new LongcatError("CUDA_ERROR", "an illegal address"));
    await new Promise((resolve) => setTimeout(resolve, 450));
    made.disconnected(1, "its connection broke");
    const { error } = await lost;
    expect(error).toMatchObject({
      message: "rank 1 of 2 is lost: its connection broke",
      cause: { code: "CUDA_ERROR", message: "rank 0 of 2: an illegal address" },
    });
  });

  it("is none of a rank whose main thread stands still for a while, as long as its heart beats", async () => {
    const { coordinator: made, lost } = await coordinator({ loadMs: 100_000 });
    const { control } = await join(made.port, 0);
    const program = fileURLToPath(new URL("programs/stall.mjs", import.meta.url));
    const child = spawn(process.execPath, [program, String(made.port), TOKEN, "1", "2", "8"], { stdio: ["ignore", "pipe", "inherit"] });
    open.push({ destroy: () => child.kill("SIGKILL") });
    const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
    expect(await lines.next()).toMatchObject({ value: "still" });
    const awake = control.gather("awake", Uint8Array.of(0));
    expect(await Promise.race([awake.then(() => "awake"), lost])).toBe("awake");
    expect(await lines.next()).toMatchObject({ value: "awake" });
    child.kill("SIGSTOP");
    expect((await lost).error.message).toBe("rank 1 of 2 is lost: nothing was heard of it for 5 s");
  });

  it("is one of a rank whose main thread stands still for a minute, though its heart beats", async () => {
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
    const { coordinator: made, lost } = await coordinator({ ranks: 1 });
    const connection = async (channel: number): Promise<Connection> => {
      const one = await introduce(await dial("127.0.0.1", made.port, 5000), { channel, rank: 0, token: TOKEN }, 5000);
      one.trust({ onFrame: () => undefined, onEnd: () => undefined });
      open.push(one);
      return one;
    };
    const control = await connection(Channel.control);
    const heart = await connection(Channel.heart);
    control.sendValue(Frame.value, { type: "ready", facts: facts(0) });
    for (let s = 0; s < 60; s++) await second();
    expect(await Promise.race([lost, "nothing"])).toBe("nothing");
    await second();
    expect((await lost).error.message).toBe("rank 0 of 1 is lost: its main thread has stood still for 60 s");

    async function second(): Promise<void> {
      heart.send(Frame.beat);
      await new Promise((resolve) => setTimeout(resolve, 10));
      vi.advanceTimersByTime(1000);
    }
  });

  it("of a rank that cannot go on gives its reason", async () => {
    const { lost, ranks } = await serving();
    ranks[1]?.control.fail(new Error("a step failed"));
    expect((await lost).error).toMatchObject({ code: "COMM_ERROR", message: "rank 1 of 2 is lost: INTERNAL: a step failed" });
  });

  it("is the fault of the one that all wait for in the end", async () => {
    const { lost, ranks } = await serving({ ranks: 3 });
    ranks[0]?.control.stuck(1, 30_000);
    ranks[1]?.control.stuck(2, 30_000);
    expect(await lost).toMatchObject({
      rank: 2,
      error: { message: "rank 2 of 3 is lost: others have waited for it for 30 s within a step" },
    });
  });

  it("is the fault of the one that does not wait, where nobody knows for whom", async () => {
    const { lost, ranks } = await serving({ ranks: 3 });
    for (const rank of [0, 2]) ranks[rank]?.control.stuck(undefined, 30_000);
    expect(await lost).toMatchObject({
      rank: 1,
      error: { message: "rank 1 of 3 is lost: others have waited for it for 30 s within a step" },
    });
  });

  it("is the fault of the one that does not wait, where others wait in a circle", async () => {
    const { lost, ranks } = await serving({ ranks: 3 });
    ranks[0]?.control.stuck(1, 30_000);
    ranks[1]?.control.stuck(0, 30_000);
    expect(await lost).toMatchObject({ rank: 2, error: { message: expect.stringContaining("rank 2 of 3 is lost") } });
  });

  it("is nobody's fault where all wait", async () => {
    const { lost, ranks } = await serving();
    for (const { control } of ranks) control.stuck(undefined, 30_000);
    expect(await lost).toEqual({
      rank: undefined,
      error: expect.objectContaining({ code: "COMM_ERROR", message: "all 2 ranks have waited for one another for 30 s within a step" }),
    });
  });

  it("of the leader ends every rank", async () => {
    const { coordinator: made, ranks } = await serving();
    made.destroy();
    for (const [rank, { lost }] of ranks.entries())
      expect(await lost).toMatchObject({ code: "COMM_ERROR", message: `rank ${rank} of 2 has lost its leader: its connection was closed` });
  });

  it("is none where the group is closed: first all are quiet, then all end", async () => {
    const { coordinator: made, told, lost, ranks } = await serving();
    made.close();
    await vi.waitFor(() => expect(ranks.map(({ closed }) => closed())).toEqual([1, 1]));
    ranks[0]?.control.quiet();
    expect(told.quiet).toBe(0);
    ranks[1]?.control.quiet();
    await vi.waitFor(() => expect(ranks.map(({ quiet }) => quiet())).toEqual([1, 1]));
    for (const { control } of ranks) await control.close();
    expect(told.quiet).toBe(1);
    expect(await Promise.race([lost, new Promise((resolve) => setTimeout(resolve, 300, "nothing"))])).toBe("nothing");
  });
});
