/** Which way the rows of GPUs go, settled by trying windows before memory is planned; devices here are made up. */
import { describe, expect, it } from "vitest";
import { LongcatError } from "../../ts/errors.js";
import type { ModelParallel } from "../../ts/model/exchange.js";
import { settleSharding } from "../../ts/model/open-exchange.js";
import type { Device } from "../../ts/runtime/device.js";

const UNREACHED = "rank 0: the window of process 1 cannot be opened on GPU 1";

/** Two ranks settle at once. `reaches`: whether a rank can open the other's window. What each came to, and what happened to windows. */
async function settle(options: Partial<ModelParallel>, reaches: (rank: number) => boolean) {
  const events: string[] = [];
  const gathered = new Map<string, { all: Uint8Array[]; tell: ((all: Uint8Array[]) => void)[] }>();
  const gather = (rank: number) => (name: string, bytes: Uint8Array) =>
    new Promise<Uint8Array[]>((resolve) => {
      const { all, tell } = gathered.get(name) ?? { all: [], tell: [] };
      gathered.set(name, { all, tell });
      all[rank] = bytes;
      if (tell.push(resolve) === 2) for (const each of tell) each(all);
    });
  const gpu = (rank: number) =>
    ({
      kind: "cuda",
      window: () => ({ tensor: { release: () => events.push(`freed by ${rank}`) }, handle: Uint8Array.of(rank) }),
      joinWindows: () => {
        if (!reaches(rank)) throw new LongcatError("COMM_ERROR", UNREACHED);
        return { release: () => events.push(`let go by ${rank}`) };
      },
    }) as unknown as Device;
  const settled = await Promise.allSettled(
    [0, 1].map((rank) =>
      settleSharding({ rank, ranks: 2, gather: gather(rank), lockstep: {} as ModelParallel["lockstep"], ...options }, gpu(rank)),
    ),
  );
  return { settled, events };
}

const both = (throughNccl: boolean) => {
  const one = { status: "fulfilled", value: { ranks: 2, fp8Dispatch: false, throughNccl } };
  return [one, one];
};

describe("the way of GPUs' rows", () => {
  it("is each other's windows where all can be reached; those of the trial are freed when nobody has them open", async () => {
    const { settled, events } = await settle({}, () => true);
    expect(settled).toEqual(both(false));
    expect(events.map((event) => event.slice(0, 6))).toEqual(["let go", "let go", "freed ", "freed "]);
  });

  it("is NCCL for all where one cannot reach another, so that memory is planned for it", async () => {
    const { settled, events } = await settle({}, (rank) => rank === 0);
    expect(settled).toEqual(both(true));
    expect(events.sort()).toEqual(["freed by 0", "freed by 1", "let go by 0"]);
  });

  it("is refused where windows are asked for and cannot be reached", async () => {
    const { settled } = await settle({ exchange: "peer" }, (rank) => rank === 0);
    const rejected = (message: string) => ({ status: "rejected", reason: new LongcatError("COMM_ERROR", message) });
    expect(settled).toEqual([rejected("rank 1 cannot open the windows of all others"), rejected(UNREACHED)]);
  });

  it.each<[string, Partial<ModelParallel>]>([
    ["it is asked for", { exchange: "nccl" }],
    ["ranks are on several hosts", { ranksOnHost: 1 }],
  ])("is NCCL, and nothing is tried, where %s", async (_, options) => {
    const { settled, events } = await settle(options, () => true);
    expect([settled, events]).toEqual([both(true), []]);
  });
});
