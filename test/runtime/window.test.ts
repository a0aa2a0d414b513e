/** Windows between ranks: two devices of one process, ranks in processes of their own, what is refused, giving up, and what is left behind. */

import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it, onTestFinished } from "vitest";
import type { Device, HostWords, Queue, Tensor, Window } from "../../ts/runtime/device.js";
import { ops } from "../../ts/runtime/ops.js";
import { CONTROL_WORDS, exchangeWindowBytes, WINDOW_HEADER_BYTES, type WindowShape } from "../../ts/runtime/window.js";
import { addonPath, filled, openDevice } from "./devices.js";
import { sizes, tokensOfRank, weightsOf } from "./programs/exchange-data.mjs";

const commError = (words: RegExp) => expect.objectContaining({ code: "COMM_ERROR", message: expect.stringMatching(words) });
const internal = (words: RegExp) => expect.objectContaining({ code: "INTERNAL", message: expect.stringMatching(words) });

/** The windows of ranks that share out the experts of exchange-data.mjs. */
function shapeOf(ranks: number, fp8 = false): WindowShape {
  const { tokens, topK, experts, width } = sizes;
  return { ranks, tokens, width, slots: Math.min(topK, experts / ranks), activation: "float32", fp8 };
}

/** Experts [first, first + count) as stacks. */
function stacks(device: Device, queue: Queue, first: number, count: number): { gate: Tensor; up: Tensor; down: Tensor } {
  const { width, ffn } = sizes;
  const stackOf = (name: "gate" | "up" | "down", shape: number[]) =>
    device.stack(Array.from({ length: count }, (_, i) => filled(device, queue, shape, weightsOf(name, first + i))));
  return { gate: stackOf("gate", [ffn, width]), up: stackOf("up", [ffn, width]), down: stackOf("down", [width, ffn]) };
}

/** A rank with the tokens of exchange-data.mjs, over the typed runtime. */
class Rank {
  readonly device: Device;
  readonly queue: Queue;
  window: Window;
  readonly control: HostWords;
  readonly rank: number;
  readonly ranks: number;
  windows!: Tensor;
  readonly epoch: Tensor;
  readonly #fp8: boolean;

  constructor(rank: number, ranks: number, { fp8 = false, debug = "off" }: { fp8?: boolean; debug?: "off" | "poison" } = {}) {
    this.device = openDevice({ threads: 1, debug });
    this.queue = this.device.queue();
    this.window = this.device.window(exchangeWindowBytes(shapeOf(ranks, fp8)));
    this.control = this.device.hostWords(CONTROL_WORDS);
    this.epoch = this.device.tensor("int64", [1]);
    this.rank = rank;
    this.ranks = ranks;
    this.#fp8 = fp8;
  }

  join(handles: Uint8Array[]): void {
    this.windows = this.device.joinWindows(this.window, this.rank, handles);
  }

  /** The number of the exchange for which the rows of rank `source` are in the window (native/comm/window.h: rowsFlagOffset). */
  async exchangesFrom(source: number): Promise<number> {
    const epoch = new Int32Array(1);
    await this.queue.read(this.window.tensor, epoch, source * 128);
    return epoch[0]!;
  }

  /** Enqueues an exchange, or its first half alone; the output. */
  exchange(how: "whole" | "dispatch" = "whole"): Tensor {
    const { device, queue, rank, ranks, windows, window, epoch } = this;
    const { tokens, topK, experts, width, ffn } = sizes;
    const [local, slots] = [experts / ranks, Math.min(topK, experts / ranks)];
    const entries = ranks * tokens * slots;
    const mine = tokensOfRank(rank);
    const shared = {
      h: filled(device, queue, [tokens, width], mine.h),
      rows: filled(device, queue, [1], Int32Array.of(mine.rows)),
      windows,
      window: window.tensor,
      epoch,
      control: this.control.tensor,
      sendSlot: device.tensor("int32", [tokens, ranks]),
      slotPlan: device.tensor("int32", [ranks * tokens, slots]),
      rank,
      windowTokens: tokens,
      fp8: this.#fp8 ? 1 : 0,
    };
    const received = this.#fp8
      ? device.tensor("float32", [ranks * tokens, width])
      : window.tensor.view("float32", [ranks * tokens, width], WINDOW_HEADER_BYTES);
    const plan = { received, expertStart: device.tensor("int32", [local + 1]), planRow: device.tensor("int32", [entries]) };
    const partial = device.tensor("float32", [entries, width]);
    const out = device.tensor("float32", [tokens, width]);
    const [ids, weights] = [filled(device, queue, [tokens, topK], mine.ids), filled(device, queue, [tokens, topK], mine.weights)];
    const stack = stacks(device, queue, rank * local, local);
    const identityWeight = filled(device, queue, [tokens], mine.identity);
    ops.epDispatch(queue, { ...shared, ...plan, ids, weights, experts });
    if (how === "dispatch") return received;
    ops.moeExperts(queue, {
      ...plan,
      ...stack,
      h: received,
      hidden: device.tensor("float32", [entries, ffn]),
      partial,
      expected: tokens * topK,
    });
    ops.epCombine(queue, { ...shared, partial, identityWeight, out });
    return out;
  }
}

function joinedRanks(count: number, options: { fp8?: boolean; debug?: "off" | "poison" } = {}): Rank[] {
  const ranks = Array.from({ length: count }, (_, rank) => new Rank(rank, count, options));
  for (const rank of ranks) rank.join(ranks.map(({ window }) => window.handle));
  return ranks;
}

/** What one device that holds all experts makes of a rank's tokens. */
async function withoutExchange(rank: number): Promise<Float32Array> {
  const { tokens, topK, experts, width, ffn } = sizes;
  const device = openDevice({ threads: 1 });
  const queue = device.queue();
  const { rows, ids, weights, identity, h } = tokensOfRank(rank);
  const entries = Array.from({ length: rows * topK }, (_, i) => i).filter((i) => ids[i]! < experts);
  const sorted = entries.toSorted((a, b) => ids[a]! - ids[b]! || a - b);
  const slotPlan = Int32Array.from({ length: tokens * topK }, (_, i) => sorted.indexOf(i));
  const start = Int32Array.from({ length: experts + 1 }, (_, e) => sorted.filter((i) => ids[i]! < e).length);
  const planRow = Int32Array.from({ length: tokens * topK }, (_, i) => Math.floor((sorted[i] ?? 0) / topK));
  const out = device.tensor("float32", [tokens, width]);
  ops.moeExperts(queue, {
    ...stacks(device, queue, 0, experts),
    h: filled(device, queue, [tokens, width], h),
    weights: filled(device, queue, [tokens, topK], weights),
    identityWeight: filled(device, queue, [tokens], identity),
    expertStart: filled(device, queue, [experts + 1], start),
    planRow: filled(device, queue, [tokens * topK], planRow),
    slotPlan: filled(device, queue, [tokens, topK], slotPlan),
    hidden: device.tensor("float32", [tokens * topK, ffn]),
    partial: device.tensor("float32", [tokens * topK, width]),
    out,
    rows: filled(device, queue, [1], Int32Array.of(rows)),
    expected: 0,
  });
  return (await queue.readFloats(out)).subarray(0, rows * width);
}

function expectClose(got: ArrayLike<number>, want: Float32Array): void {
  expect(got).toHaveLength(want.length);
  for (let i = 0; i < want.length; i++) expect(Math.abs(got[i]! - want[i]!)).toBeLessThan(1e-5 * Math.max(1, Math.abs(want[i]!)));
}

/** Starts test/runtime/programs/rank.mjs; `handle`: of its window. */
async function startRank(rank: number, ranks: number, task: string, steps = 1): Promise<{ child: ChildProcess; handle: string }> {
  const env = {
    ...process.env,
    LONGCAT_ADDON: addonPath(),
    WINDOW_BYTES: String(exchangeWindowBytes(shapeOf(ranks))),
    NODE_OPTIONS: "",
  };
  const program = fileURLToPath(new URL("./programs/rank.mjs", import.meta.url));
  const child = fork(program, [String(rank), String(ranks), task, String(steps)], { env });
  onTestFinished(() => void child.kill("SIGKILL"));
  const [{ handle }] = (await once(child, "message")) as [{ handle: string }];
  return { child, handle };
}

const hex = (handle: Uint8Array) => Buffer.from(handle).toString("hex");
const bytes = (handle: string) => new Uint8Array(Buffer.from(handle, "hex"));
const mappedWindows = () =>
  readFileSync("/proc/self/maps", "utf8")
    .split("\n")
    .filter((line) => line.includes("longcat-window")).length;

describe("ranks in one process", () => {
  it("make of their tokens what one rank with all experts makes", async () => {
    for (const count of [1, 2, 4]) {
      const ranks = joinedRanks(count);
      for (let step = 0; step < 3; step++) {
        const outs = ranks.map((rank) => rank.exchange());
        for (const [r, rank] of ranks.entries()) {
          const out = (await rank.queue.readFloats(outs[r]!)).subarray(0, tokensOfRank(r).rows * sizes.width);
          expectClose(out, await withoutExchange(r));
        }
      }
    }
  });

  it("do so with poisoned outputs, which spares rows that have already come", async () => {
    const ranks = joinedRanks(2, { debug: "poison" });
    for (let step = 0; step < 4; step++) {
      const [early, late] = (step % 2 === 0 ? ranks : ranks.toReversed()) as [Rank, Rank];
      const outs: Tensor[] = [];
      outs[early.rank] = early.exchange();
      await expect.poll(() => late.exchangesFrom(early.rank), { interval: 1 }).toBe(step + 1);
      outs[late.rank] = late.exchange();
      for (const [r, rank] of ranks.entries()) {
        const out = (await rank.queue.readFloats(outs[r]!)).subarray(0, tokensOfRank(r).rows * sizes.width);
        expectClose(out, await withoutExchange(r));
      }
    }
  });

  it("take rows as FP8", async () => {
    const ranks = joinedRanks(2, { fp8: true });
    const outs = ranks.map((rank) => rank.exchange());
    for (const [r, rank] of ranks.entries()) {
      const out = await rank.queue.readFloats(outs[r]!);
      const want = await withoutExchange(r);
      const distance = Math.hypot(...want.map((value, i) => value - out[i]!)) / Math.hypot(...want);
      expect(distance).toBeGreaterThan(1e-5);
      expect(distance).toBeLessThan(0.05);
    }
  });

  it("count a window's bytes as the operations do", async () => {
    for (const fp8 of [false, true]) {
      const needed = exchangeWindowBytes(shapeOf(1, fp8));
      const rank = new Rank(0, 1, { fp8 });
      rank.join([rank.window.handle]);
      rank.exchange();
      await rank.queue.done();
      rank.window = { ...rank.window, tensor: rank.window.tensor.view("uint8", [needed - 1]) };
      expect(() => rank.exchange()).toThrow(internal(new RegExp(`window must have ${needed} bytes`)));
    }
  });
});

describe("a rank that waits", () => {
  it("says for whom after a second, and gives up when it is told to", async () => {
    const [rank] = joinedRanks(2);
    rank!.exchange();
    const done = rank!.queue.done();
    expect(rank!.control.get(1)).toBe(0);
    const begin = performance.now();
    while (rank!.control.get(1) === 0 && performance.now() - begin < 10_000) await new Promise((resolve) => setTimeout(resolve, 20));
    expect(rank!.control.get(1)).toBe(2);
    expect(performance.now() - begin).toBeGreaterThan(900);
    rank!.control.set(0, 1);
    await expect(done).rejects.toEqual(
      commError(/^operation "ep_dispatch" on queue 0 failed: the exchange was given up while waiting for rank 1$/),
    );
    expect(rank!.control.get(1)).toBe(0);
  });

  it("uses next to no processor time", async () => {
    const [rank] = joinedRanks(2);
    rank!.exchange("dispatch");
    const before = process.cpuUsage();
    await new Promise((resolve) => setTimeout(resolve, 400));
    const { user, system } = process.cpuUsage(before);
    expect((user + system) / 1000).toBeLessThan(100);
    rank!.control.set(0, 1);
    await expect(rank!.queue.done()).rejects.toEqual(commError(/rank 1/));
  });
});

describe("joining", () => {
  it("refuses what is no window, naming the rank", () => {
    const [first, second] = [new Rank(0, 2), new Rank(1, 2)];
    const [own, other] = [first.window.handle, second.window.handle];
    expect(() => first.join([own, other.subarray(1)])).toThrow(commError(/^rank 1: its window's handle is none of this version$/));
    expect(() => first.join([other, own])).toThrow(internal(/rank 0 is not the own window's/));
    const larger = second.device.window(exchangeWindowBytes(shapeOf(2)) + 256);
    expect(() => first.join([own, larger.handle])).toThrow(
      commError(/^rank 1: its window has \d+ bytes, .* the ranks' models or options differ$/),
    );
    second.window.tensor.release();
    expect(() => first.join([own, other])).toThrow(commError(/^rank 1: the window of process \d+ .*/));
  });

  it("keeps the windows while the table lives, and no longer", async () => {
    const before = mappedWindows();
    const [first, second] = joinedRanks(2) as [Rank, Rank];
    second.window.tensor.release();
    await second.device.close();
    expect(mappedWindows()).toBe(before + 2);
    first.windows.release();
    expect(mappedWindows()).toBe(before + 1);
    first.window.tensor.release();
    expect(mappedWindows()).toBe(before);
  });
});

describe("words of the host", () => {
  it("are seen at once, and are nothing else's", () => {
    const device = openDevice();
    const words = device.hostWords(3);
    expect([0, 1, 2].map((i) => words.get(i))).toEqual([0, 0, 0]);
    words.set(2, -5);
    expect(words.get(2)).toBe(-5);
    expect(() => words.get(3)).toThrow(internal(/word 3/));
    expect(() => device.native.getWord(device.tensor("int32", [3]).id, 0)).toThrow(internal(/hostWords makes them/));
  });
});

describe("ranks in processes of their own", () => {
  it("exchange, many times in a row", async () => {
    const ranks = await Promise.all([0, 1].map((rank) => startRank(rank, 2, "exchange", 20)));
    const handles = ranks.map(({ handle }) => handle);
    const outs = ranks.map(async ({ child }) => ((await once(child, "message")) as [{ out: number[] }])[0].out);
    for (const { child } of ranks) child.send({ handles });
    for (const [r, out] of (await Promise.all(outs)).entries()) expectClose(out, await withoutExchange(r));
  });

  it("leave nothing behind when they are killed, and the others can give up", async () => {
    const shared = readdirSync("/dev/shm");
    const mine = new Rank(0, 2);
    const { child, handle } = await startRank(1, 2, "linger");
    const handles = [mine.window.handle, bytes(handle)];
    mine.join(handles);
    const ready = once(child, "message");
    child.send({ handles: handles.map(hex) });
    await ready;
    mine.exchange();
    const ended = once(child, "exit");
    child.kill("SIGKILL");
    await ended;
    mine.control.set(0, 1);
    await expect(mine.queue.done()).rejects.toEqual(commError(/waiting for rank 1/));
    expect(() => mine.join(handles)).toThrow(
      commError(/^rank 1: the window of process \d+ cannot be opened \(\/proc\/\d+\/fd\/\d+\): No such file/),
    );
    expect(readdirSync("/dev/shm")).toEqual(shared);
  });

  it("may leave in the midst of an exchange that nobody joins", async () => {
    const mine = new Rank(0, 2);
    const { child, handle } = await startRank(1, 2, "leave");
    const begin = performance.now();
    const ended = once(child, "exit");
    child.send({ handles: [hex(mine.window.handle), handle] });
    expect(await ended).toEqual([7, null]);
    expect(performance.now() - begin).toBeLessThan(20_000);
  });
});
