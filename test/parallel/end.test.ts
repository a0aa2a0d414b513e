/** How ranks end (ts/parallel/rank.ts): in good order and in silence when their leader closes, however long their devices take; and what they tell no more when one is lost. */
import { afterEach, expect, it, vi } from "vitest";
import { resolveOptions } from "../../ts/engine/options.js";
import { LongcatError } from "../../ts/errors.js";
import { Runner } from "../../ts/model/runner.js";
import { Connection } from "../../ts/parallel/connection.js";
import { Control } from "../../ts/parallel/control.js";
import { Coordinator } from "../../ts/parallel/coordinator.js";
import type { ToLeader } from "../../ts/parallel/messages.js";
import { Rank } from "../../ts/parallel/rank.js";
import type { ToStarter } from "../../ts/parallel/rank-process.js";
import { RequestServer } from "../../ts/parallel/request-server.js";
import { packageVersion } from "../../ts/runtime/addon.js";
import { Device } from "../../ts/runtime/device.js";
import { DEFAULT_PARAMETERS } from "../../ts/sampling/parameters.js";
import { modelPath } from "../helpers/paths.js";
import { SMALL } from "./groups.js";

const RANKS = 2;

afterEach(() => vi.restoreAllMocks());

/** Ranks in this process, which serve; `told` and `ended` by rank. */
async function serving() {
  const { remotes, ...group } = await starting();
  await vi.waitFor(() => expect(group.told).toEqual([["ready"], ["ready"]]), 20_000);
  return { ...group, remotes: await remotes };
}

/** Ranks in this process, which load; `port`: where they are to look for the leader's main thread. */
async function starting(port?: number) {
  const [token, address] = ["secret", "127.0.0.1"];
  const { signal: _, onProgress: _p, onWarning: _w, ...options } = resolveOptions({ ...SMALL, parallel: { expert: RANKS } });
  const requests = await RequestServer.listen({ ranks: RANKS, token, address, port: 0 });
  const lost = vi.fn();
  const coordinator = await Coordinator.listen(
    {
      ...{ ranks: RANKS, address, port: 0, token, connectMs: 5000, loadMs: 60_000, starter: "a test starts them" },
      setup: { version: packageVersion(), directory: modelPath("tiny-a"), options, requestsPort: port ?? requests.port },
    },
    { onProgress: () => undefined, onWarning: () => undefined, onStarted: () => undefined, onLost: lost, onQuiet: () => undefined },
  );
  const told: ToStarter["type"][][] = [];
  const ended = Array.from({ length: RANKS }, async (_, rank) => {
    told[rank] = [];
    const place = { rank, ranks: RANKS, localRank: rank, localRanks: RANKS, ownRank: rank, ownRanks: RANKS };
    return new Promise<boolean>((end) => {
      const host = { tell: ({ type }: ToStarter) => void told[rank]!.push(type), end };
      void Rank.run({ ...place, address, port: coordinator.port, connectMs: 5000 }, token, host);
    });
  });
  const over = (): void => {
    coordinator.destroy();
    requests.close(new LongcatError("ABORTED", "the test is over"));
  };
  return { coordinator, requests, remotes: requests.ranks, told, ended, lost, over };
}

/** What was ended, as the watch over an exchange and others with timers would find it. */
const LONG_MS = 800;

it("in good order, though closing their devices takes long", async () => {
  const { coordinator, remotes, told, ended, lost, over } = await serving();
  const parameters = { ...DEFAULT_PARAMETERS, maxTokens: 4, temperature: 0 };
  const { tokens } = await remotes[1]!.generate({ ids: [5, 9, 17] }, parameters, () => undefined).done;
  expect(tokens).toHaveLength(4);
  const close = Device.prototype.close;
  vi.spyOn(Device.prototype, "close").mockImplementation(async function (this: Device) {
    const closing = close.call(this);
    await new Promise((resolve) => setTimeout(resolve, LONG_MS));
    return closing;
  });
  coordinator.close();
  expect(await Promise.all(ended)).toEqual([false, false]);
  expect(told).toEqual([["ready"], ["ready"]]);
  expect(lost).not.toHaveBeenCalled();
  over();
});

it("in good order, though their leader closes its end first", async () => {
  const { coordinator, requests, told, ended, lost, over } = await serving();
  const gather = Control.prototype.gather;
  vi.spyOn(Control.prototype, "gather").mockImplementation(async function (this: Control, name, bytes) {
    requests.close(new LongcatError("ABORTED", "the leader is through"));
    await new Promise((resolve) => setTimeout(resolve, LONG_MS));
    return gather.call(this, name, bytes);
  });
  coordinator.close();
  expect(await Promise.all(ended)).toEqual([false, false]);
  expect(told).toEqual([["ready"], ["ready"]]);
  expect(lost).not.toHaveBeenCalled();
  over();
});

it("as failed ones whose devices cannot be closed, which is told", async () => {
  const { coordinator, told, ended, over } = await serving();
  const close = Device.prototype.close;
  vi.spyOn(Device.prototype, "close").mockImplementation(async function (this: Device) {
    await close.call(this);
    throw new Error("the device is lost");
  });
  coordinator.close();
  expect(await Promise.all(ended)).toEqual([true, true]);
  expect(told).toEqual(Array(RANKS).fill(["ready", "lost"]));
  over();
});

it("without a word of what their devices leave behind, when one of them is lost", async () => {
  const { coordinator, remotes, ended, over } = await serving();
  const said: string[] = [];
  const { sendValue } = Connection.prototype;
  vi.spyOn(Connection.prototype, "sendValue").mockImplementation(function (this: Connection, kind, value) {
    said.push((value as ToLeader).type);
    sendValue.call(this, kind, value);
  });
  const { giveUp } = Runner.prototype;
  const gaveUp = new Set<Runner>();
  vi.spyOn(Runner.prototype, "giveUp").mockImplementation(function (this: Runner, why) {
    if (!gaveUp.has(this)) said.push("gives up");
    gaveUp.add(this);
    giveUp.call(this, why);
  });
  const begun = remotes.map(
    (remote) =>
      new Promise((began) => remote.generate({ ids: [5, 9, 17] }, { ...DEFAULT_PARAMETERS, maxTokens: 100, ignoreEos: true }, began)),
  );
  await Promise.all(begun);
  coordinator.ended(1, "a test says so");
  expect(await Promise.all(ended)).toEqual([true, true]);
  await new Promise((resolve) => setTimeout(resolve, LONG_MS)); // the calls fail meanwhile
  expect(said).toContain("chunks");
  const after = said.slice(said.lastIndexOf("gives up"));
  expect(after.filter((type) => ["chunks", "result", "error", "stats"].includes(type))).toEqual([]);
  over();
});

it("before they load, where they do not reach the leader's port for requests", async () => {
  const { ended, lost, over } = await starting(1);
  expect(await Promise.all(ended)).toEqual([true, true]);
  const message = expect.stringMatching(
    /^rank [01] of 2: the leader's port for requests, 1 of 127.0.0.1, cannot be reached: .*ECONNREFUSED/,
  );
  expect(lost).toHaveBeenCalledWith(expect.objectContaining({ code: "COMM_ERROR", message }), expect.anything());
  over();
});
