/** `longcat bench all-to-all` and `bench layer --ranks` on two GPUs, here as ranks of one process. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type AllToAllPlan, type AllToAllReported, benchAllToAll } from "../../ts/engine/bench-all-to-all.js";
import { benchLayer, type LayerPlan, type LayerReported } from "../../ts/engine/bench-layer.js";
import type { BenchRank } from "../../ts/engine/bench-ranks.js";
import { findGpus } from "../../ts/runtime/gpus.js";

const RANKS = 2;
const { devices } = findGpus();

/** Ranks that meet in memory. */
function meetingRanks(): BenchRank[] {
  let there: { values: unknown[]; resolves: ((values: never) => void)[] } = { values: [], resolves: [] };
  return Array.from({ length: RANKS }, (_, rank) => ({
    ...{ rank, ranks: RANKS },
    share: <T>(value: T) =>
      new Promise<T[]>((resolve) => {
        const { values, resolves } = there;
        values[rank] = value;
        if (resolves.push(resolve as (values: never) => void) < RANKS) return;
        there = { values: [], resolves: [] };
        for (const each of resolves) each(values as never);
      }),
  }));
}

const onGpu = (rank: number) => ({ device: `cuda:${devices[rank]!.ordinal}`, threads: "auto" as const });

async function exchanges(plan: Partial<AllToAllPlan>): Promise<AllToAllReported[]> {
  const sizes = { hiddenSize: 256, numExperts: 24, numZeroExperts: 12, topK: 6 };
  const reported: AllToAllReported[] = [];
  const report = (rank: number) => async (value: AllToAllReported) => void (rank === 0 && reported.push(value));
  const all = { sizes, dtype: "bfloat16", fp8: false, exchange: "auto", tokens: [1, 70], samples: 2, ...plan } as const;
  await Promise.all(meetingRanks().map((rank) => benchAllToAll({ ...all, ...onGpu(rank.rank) }, rank, report(rank.rank))));
  return reported;
}

async function layers(plan: Partial<LayerPlan>): Promise<LayerReported[]> {
  const reported: LayerReported[] = [];
  const sizes = {
    shape: "mini",
    dtype: "bfloat16",
    layers: 2,
    batches: [2, 5],
    context: 20,
    queries: 1,
    prompts: [9],
    samples: 1,
  } as const;
  const report = (rank: number) => (value: LayerReported) => void (rank === 0 && reported.push(value));
  await Promise.all(
    meetingRanks().map((rank) => {
      const tell = report(rank.rank);
      const to = { loaded: (loaded) => tell({ loaded }), measured: async (measured) => tell({ measured }) } satisfies Parameters<
        typeof benchLayer
      >[1];
      return benchLayer({ ...sizes, ...plan, ranks: RANKS, ...onGpu(rank.rank) }, to, rank);
    }),
  );
  return reported;
}

describe("benches on two GPUs", { skip: devices.length < RANKS ? `needs ${RANKS} GPUs, there are ${devices.length}` : false }, () => {
  for (const fp8 of [false, true])
    it(`all-to-all, ${fp8 ? "rows dispatched as FP8" : "bfloat16 rows"}: both directions take time, and no less than the links`, async () => {
      const [first, ...results] = await exchanges({ fp8 });
      assert.ok(first && "loaded" in first && first.loaded.device === "cuda");
      assert.deepEqual(
        results.map((one) => "measured" in one && one.measured.tokens),
        [1, 70],
      );
      for (const one of results) {
        assert.ok("measured" in one);
        for (const { us, floorUs } of [one.measured.dispatch, one.measured.combine])
          assert.ok(floorUs !== null && us > floorUs, `${us} µs`);
      }
    });

  it("layer: what the exchange adds, and the layer without it", async () => {
    const [first, ...results] = await layers({ expertsHeld: 4 });
    assert.ok(first && "loaded" in first);
    assert.deepEqual([first.loaded.experts, first.loaded.expertsHeld, first.loaded.ranks], [8, 4, 2]);
    assert.equal(results.length, 3);
    for (const one of results) {
      assert.ok("measured" in one && one.measured.exchange);
      const { us, overlapWithoutUs, exposedUs } = one.measured.exchange;
      assert.ok(us > 0 && overlapWithoutUs > 0 && exposedUs < one.measured.overlapUs);
    }
  });
});
