/** What a rank does beside its engine: choosing a device, watching its exchange, telling of steps that fail. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Engine } from "../../ts/engine/engine.js";
import { resolveOptions } from "../../ts/engine/options.js";
import type { EngineInfo } from "../../ts/engine/types.js";
import { LongcatError } from "../../ts/errors.js";
import { ControlWord, type Exchange } from "../../ts/model/exchange.js";
import { deviceOfRank, type HostFacts } from "../../ts/parallel/rank-device.js";
import type { LauncherPlace } from "../../ts/parallel/launcher.js";
import { joinMs } from "../../ts/parallel/rank-places.js";
import { timeoutOn, watchExchange } from "../../ts/parallel/watchdog.js";
import type { HostWords, Queue } from "../../ts/runtime/device.js";
import { FakeRunner } from "../engine/fake-runner.js";

describe("a rank's device", () => {
  const host = (gpus: number, threads = 16): HostFacts => ({
    threads,
    gpus: { devices: Array.from({ length: gpus }, (_, ordinal) => ({ ordinal })) as HostFacts["gpus"]["devices"], reason: null },
  });
  /** Rank `local` of eight on its host, two of which each process has. */
  const place = (local: number) => ({ localRank: local, localRanks: 8, ownRank: local % 2, ownRanks: 2 });

  it.each([
    ["auto", host(8), 5, { device: "cuda:5", threads: "auto" }],
    ["cuda", host(9), 5, { device: "cuda:5", threads: "auto" }],
    ["cuda", host(2), 5, { device: "cuda:1", threads: "auto" }],
    ["auto", host(0), 5, { device: "cpu", threads: 2 }],
    ["cpu", host(8), 5, { device: "cpu", threads: 2 }],
    ["cpu", host(0, 4), 5, { device: "cpu", threads: 1 }],
  ] as const)("%s, of %o, is its own", (device, facts, local, own) => {
    expect(deviceOfRank({ device, threads: "auto" }, place(local), facts)).toEqual(own);
  });

  it("has as many threads as the user says", () => {
    expect(deviceOfRank({ device: "cpu", threads: 7 }, place(0), host(0))).toEqual({ device: "cpu", threads: 7 });
  });

  it.each([
    ["auto", host(1), "8 ranks on this host need a GPU each, and it has 1 GPU that can be used"],
    ["cuda", { threads: 1, gpus: { devices: [], reason: "no driver." } }, "it has 0 GPUs that can be used (no driver)"],
  ])("%s is refused with numbers where there are too few GPUs", (device, facts, message) => {
    expect(() => deviceOfRank({ device, threads: "auto" }, place(0), facts)).toThrow(
      expect.objectContaining({ code: "DEVICE_UNAVAILABLE", message: expect.stringContaining(message) }),
    );
  });
});

describe("times", () => {
  const options = (parallel: object) => resolveOptions({ device: "cpu", parallel: { expert: 8, ...parallel } });
  const place = (localProcesses: number): LauncherPlace => ({
    ...{ index: 0, processes: 8, localIndex: 0, localProcesses },
    ...{ address: "head", port: 1, token: "", launcher: "a test" },
  });

  it("to join are longer where ranks are on several hosts, which fetch images and wait for places", () => {
    expect(joinMs({ options: options({}) })).toBe(60_000);
    expect(joinMs({ options: options({}), place: place(8) })).toBe(60_000);
    expect(joinMs({ options: options({}), place: place(4) })).toBe(600_000);
    expect(joinMs({ options: options({ joinTimeoutMs: 5000 }), place: place(4) })).toBe(5000);
  });

  it("to wait for each other in a step are longer on CPUs, whose steps take longer", () => {
    expect([timeoutOn("cuda", "auto"), timeoutOn("cpu", "auto"), timeoutOn("cpu", 2000)]).toEqual([30_000, 300_000, 2000]);
  });
});

describe("the watch over an exchange", () => {
  beforeEach(() => vi.useFakeTimers());
  afterEach(() => vi.useRealTimers());

  /** An exchange whose word a test writes. */
  function exchange() {
    const words = new Int32Array(16);
    const control = { get: (i: number) => words[i], set: (i: number, value: number) => void (words[i] = value) } as unknown as HostWords;
    const waitFor = (rank: number | undefined): void => control.set(ControlWord.waitsFor, rank === undefined ? 0 : rank + 1);
    const events = { onStuck: vi.fn(), onFailure: vi.fn() };
    const idle = { done: () => Promise.resolve() } as unknown as Queue;
    const watch = (nccl?: Exchange["nccl"], queue = idle) => watchExchange({ exchange: { control, nccl }, queue }, 3000, events);
    return { waitFor, watch, ...events };
  }

  /** NCCL that says this of itself. */
  const saying = (failure: string | null) => ({ communicator: { failure: () => failure } }) as unknown as Exchange["nccl"];

  it("tells once whom the device has waited for too long", () => {
    const { waitFor, watch, onStuck } = exchange();
    watch();
    waitFor(0);
    vi.advanceTimersByTime(2000);
    expect(onStuck).not.toHaveBeenCalled();
    vi.advanceTimersByTime(60_000);
    expect(onStuck.mock.calls).toEqual([[0, 3000]]);
  });

  it("says nothing of waits that end, or of one after another", async () => {
    const { waitFor, watch, onStuck, onFailure } = exchange();
    const stop = watch(saying(null));
    for (const rank of [1, undefined, 1, undefined, 2, undefined, 3]) {
      waitFor(rank);
      await vi.advanceTimersByTimeAsync(1500);
    }
    stop();
    await vi.advanceTimersByTimeAsync(60_000);
    expect([...onStuck.mock.calls, ...onFailure.mock.calls]).toEqual([]);
  });

  it("tells what NCCL has noticed", () => {
    const { watch, onFailure } = exchange();
    watch(saying("unhandled system error"));
    vi.advanceTimersByTime(60_000);
    expect(onFailure.mock.calls).toEqual([[expect.objectContaining({ code: "COMM_ERROR", message: "unhandled system error" })]]);
  });

  it("tells of a device that comes to no end behind NCCL, which does not say whom it waits for", async () => {
    const { watch, onStuck } = exchange();
    watch(saying(null), { done: () => new Promise(() => undefined) } as unknown as Queue);
    await vi.advanceTimersByTimeAsync(2900);
    expect(onStuck).not.toHaveBeenCalled();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(onStuck.mock.calls).toEqual([[undefined, 3000]]);
  });
});

describe("a step that fails", () => {
  it("is told beside the calls that it takes with it", async () => {
    const runner = new FakeRunner();
    const failures: LongcatError[] = [];
    const info = { endTokens: [49] } as unknown as EngineInfo;
    const parts = { runner, info, modelContext: runner.limits.contextLength, defaults: {}, close: () => runner.close() };
    const engine = Engine.fromParts({ ...parts, onFailure: (error) => failures.push(error) });
    runner.failWith = new LongcatError("CUDA_ERROR", "the device is lost");
    await expect(engine.generate({ tokens: [1] })).rejects.toMatchObject({ code: "CUDA_ERROR" });
    expect(failures).toMatchObject([{ code: "CUDA_ERROR", message: "the device is lost" }]);
    await engine.close();
  });

  it("before it was launched is its calls' trouble alone, unless the device is at fault", async () => {
    const runner = new FakeRunner();
    const failures: LongcatError[] = [];
    const info = { endTokens: [49] } as unknown as EngineInfo;
    const parts = { runner, info, modelContext: runner.limits.contextLength, defaults: {}, close: () => runner.close() };
    const engine = Engine.fromParts({ ...parts, onFailure: (error) => failures.push(error) });
    for (const code of ["OUT_OF_MEMORY", "CUDA_ERROR"] as const) {
      vi.spyOn(runner, "setSampling").mockImplementationOnce(() => {
        throw new LongcatError(code, "it cannot be set up");
      });
      await expect(engine.generate({ tokens: [1] })).rejects.toMatchObject({ code });
      expect((await engine.generate({ tokens: [1] }, { maxTokens: 1 })).tokens).toHaveLength(1);
    }
    expect(new Set(failures.map(({ code }) => code))).toEqual(new Set(["CUDA_ERROR"]));
    await engine.close();
  });
});
