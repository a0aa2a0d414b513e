/** `longcat bench decode` and the arithmetic of its floor. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { quantize } from "../../ts/index.js";
import { openCheckpoint } from "../../ts/model/checkpoint.js";
import { decodeStepCost, weightCost } from "../../ts/model/cost.js";
import { longcat, MINI } from "./longcat.js";

it("counts mini's weights: every matrix but embedding and draft head, an expert as its three matrices", async () => {
  const checkpoint = await openCheckpoint(MINI, { allowUnknownTensors: false });
  const { config } = checkpoint;
  const weights = weightCost(checkpoint);
  const asFloats = weightCost(checkpoint, "float32");
  const asStored = weightCost(checkpoint, "bfloat16");
  checkpoint.close();
  // One attention: q_a, q_b, kv_a, kv_b, o; one dense FFN; the router and two FFNs and attentions a layer; the head.
  const attention = 256 * 64 + 64 * 4 * 192 + 256 * 576 + 512 * 4 * 256 + 4 * 128 * 256;
  const dense = 3 * 256 * 512;
  const elements = 2 * (2 * attention + 2 * dense + 36 * 256) + 2048 * 256;
  expect(weights.sharedElements).toBe(elements);
  expect(weights.expertElements).toBe(3 * 256 * 128);
  expect(weights.expertBytes).toBe(2 * weights.expertElements);
  // Converted at load: the layers' matrices; router and head stay as stored.
  expect(asFloats.expertBytes).toBe(4 * weights.expertElements);
  expect(asFloats.sharedBytes - weights.sharedBytes).toBe(2 * 2 * (2 * attention + 2 * dense));
  expect(asFloats.sharedElements).toBe(weights.sharedElements);
  expect(asStored).toEqual(weights);

  const shape = { batch: 16, context: 100, ffnExpertsPerToken: 4, distinctExperts: 20 };
  const { bytes, flops } = decodeStepCost(config, weights, shape);
  expect(bytes).toBe(weights.sharedBytes + 2 * 20 * weights.expertBytes + 4 * 16 * 100 * 576 * 4);
  expect(flops).toBe(2 * 16 * elements + 2 * 16 * 4 * 2 * weights.expertElements + 4 * 16 * 100 * 4 * 2 * (576 + 512));
});

it("block FP8 converted to bfloat16 costs what bfloat16 costs", async () => {
  const temporary = mkdtempSync(join(tmpdir(), "longcat-fp8-"));
  await quantize(MINI, join(temporary, "out"));
  const [plain, quantised] = await Promise.all(
    [MINI, join(temporary, "out")].map((folder) => openCheckpoint(folder, { allowUnknownTensors: false })),
  );
  expect(weightCost(quantised!).expertBytes).toBeLessThan(weightCost(plain!).expertBytes);
  expect(weightCost(quantised!, "bfloat16")).toEqual(weightCost(plain!));
  plain!.close();
  quantised!.close();
  rmSync(temporary, { recursive: true });
});

it.each([
  [["--tokens", "4065"], "tokens: 4065 after a prompt of 32 is more than the context of 4096; at most 4064 are accepted"],
  [
    ["--context", "99999"],
    "context: prompts of 99999 leave no room for tokens in a context of 4096 (of the model, or what cacheBytes allows); at most 4094 are accepted",
  ],
  [
    ["--batch", "1,9", "--max-sequences", "8"],
    "batch: 9 rows of 160 tokens do not run at once; maxSequences and cacheBytes allow at most 8",
  ],
])("refuses what it would not measure: %j", async (args, message) => {
  const { code, stdout, stderr } = await longcat(["bench", "decode", "--json", ...args]);
  expect([code, stdout, stderr]).toEqual([1, "", `error: OPTION_INVALID: ${message}\n`]);
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
