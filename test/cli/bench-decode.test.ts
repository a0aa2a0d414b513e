/** `longcat bench decode` and the arithmetic of its floor. */
import { expect, it } from "vitest";
import { openCheckpoint } from "../../ts/model/checkpoint.js";
import { decodeStepCost, weightCost } from "../../ts/model/cost.js";
import { longcat, MINI } from "./longcat.js";

it("counts mini's weights: every matrix but embedding and draft head, an expert as its three matrices", async () => {
  const checkpoint = await openCheckpoint(MINI, { allowUnknownTensors: false });
  const { config } = checkpoint;
  const weights = weightCost(checkpoint);
  checkpoint.close();
  // One attention: q_a, q_b, kv_a, kv_b, o; one dense FFN; the router and two FFNs and attentions a layer; the head.
  const attention = 256 * 64 + 64 * 4 * 192 + 256 * 576 + 512 * 4 * 256 + 4 * 128 * 256;
  const dense = 3 * 256 * 512;
  const elements = 2 * (2 * attention + 2 * dense + 36 * 256) + 2048 * 256;
  expect(weights.sharedElements).toBe(elements);
  expect(weights.expertElements).toBe(3 * 256 * 128);
  expect(weights.expertBytes).toBe(2 * weights.expertElements);

  const shape = { batch: 16, context: 100, ffnExpertsPerToken: 4, distinctExperts: 20 };
  const { bytes, flops } = decodeStepCost(config, weights, shape);
  expect(bytes).toBe(weights.sharedBytes + 2 * 20 * weights.expertBytes + 4 * 16 * 100 * 576 * 4);
  expect(flops).toBe(2 * 16 * elements + 2 * 16 * 4 * 2 * weights.expertElements + 4 * 16 * 100 * 4 * 2 * (576 + 512));
});

it("prints one document: each batch beside its floor", async () => {
  const { code, stdout, stderr } = await longcat(["bench", "decode", "--batch", "1,12", "--tokens", "8", "--runs", "1", "--json"]);
  expect([code, stderr]).toEqual([0, ""]);
  const { results } = JSON.parse(stdout) as { results: Record<string, number>[] };
  expect(results.map(({ batch }) => batch)).toEqual([1, 12]);
  for (const result of results) {
    for (const [name, value] of Object.entries(result)) expect(value, name).toBeGreaterThan(0);
    expect(result["shareOfFloor"]).toBeLessThan(2);
    expect(result["ffnExpertsPerToken"]).toBeLessThanOrEqual(6);
    expect(result["distinctExperts"]).toBeLessThanOrEqual(24);
  }
});
