/** Models with random weights: what is stored, what is counted, that they run and stay finite. */
import { expect, it } from "vitest";
import { weightCost } from "../../ts/model/cost.js";
import { LAYER_OPERATIONS, layerCosts } from "../../ts/model/layer-cost.js";
import { MOST_NGRAM_BYTES, openRandomModel, RANDOM_DTYPES, randomHeaders } from "../../ts/model/random-weights.js";
import { SHAPES, shapeConfig } from "../../ts/model/shapes.js";
import { trace } from "../../ts/model/trace.js";

const OPTIONS = { device: "cpu", threads: 2, maxSequences: 2, maxBatchTokens: 32, contextLength: 64 };

/** Lite's sizes, cut down until they run in milliseconds. */
const SMALL_LITE = {
  ...{ ...shapeConfig("lite", 1), hiddenSize: 96, numHeads: 2, ffnHiddenSize: 128, expertFfnHiddenSize: 64, vocabSize: 512 },
  ...{ numExperts: 16, numZeroExperts: 8, topK: 4, qLoraRank: 32, kvLoraRank: 24, qkNopeHeadDim: 16, qkRopeHeadDim: 16, vHeadDim: 16 },
};

it("knows the sizes of LongCat-Flash: 560 billion parameters, 37.7 million an expert", () => {
  const { sharedElements, expertElements, expertBytes } = weightCost(
    randomHeaders({ config: shapeConfig("flash"), dtype: "bfloat16" }).full,
  );
  expect(expertElements).toBe(3 * 2048 * 6144);
  expect(expertBytes).toBe(2 * expertElements);
  const embedding = 131072 * 6144;
  expect((sharedElements + embedding + 28 * 512 * expertElements) / 1e9).toBeCloseTo(560.7, 1);
});

it("knows Lite's n-grams: twelve tables, each cut to its share of the bound, which a note says", () => {
  const { full, held, notes } = randomHeaders({ config: shapeConfig("lite", 1), dtype: "fp8", expertsHeld: 4 });
  const tables = full.specs.filter(({ name }) => name.startsWith("model.ngram_embeddings.embedders."));
  expect(tables).toHaveLength(12);
  const bytes = tables.reduce((sum, { shape }) => sum + 2 * shape[0]! * shape[1]!, 0);
  expect(bytes).toBeLessThanOrEqual(MOST_NGRAM_BYTES);
  expect(bytes).toBeGreaterThan(0.99 * MOST_NGRAM_BYTES);
  expect(notes).toEqual([
    expect.stringMatching(/^n-gram tables have \d+ rows instead of 10223617: 2\.0 GiB together$/),
    expect.stringMatching(/^4 of 256 experts are held/),
  ]);
  // A matrix of codes and one of scales for each of three products.
  const experts = [...held.tensors.keys()].filter((name) => name.includes(".experts."));
  expect(experts).toHaveLength(4 * 3 * 2);
});

it.each(SHAPES)("the operations of a layer of %s read each of its matrices once", (shape) => {
  const { full } = randomHeaders({ config: shapeConfig(shape, 1), dtype: "bfloat16" });
  const { config } = full;
  const { sharedElements } = weightCost(full);
  const matrix = (name: string) => {
    const { entry } = full.tensors.get(`model.layers.0.${name}.weight`)!;
    return { data: { bytes: entry.end, shape: entry.shape } };
  };
  const attention = (i: number) => ({
    ...{ qA: matrix(`self_attn.${i}.q_a_proj`), qB: matrix(`self_attn.${i}.q_b_proj`), kvA: matrix(`self_attn.${i}.kv_a_proj_with_mqa`) },
    ...{ kvB: matrix(`self_attn.${i}.kv_b_proj`), o: matrix(`self_attn.${i}.o_proj`) },
  });
  const ffn = (prefix: string) => ({
    gate: matrix(`${prefix}.gate_proj`),
    up: matrix(`${prefix}.up_proj`),
    down: matrix(`${prefix}.down_proj`),
  });
  const layer = {
    attention: [attention(0), attention(1)],
    dense: [ffn("mlps.0"), ffn("mlps.1")],
    moe: { classifier: matrix("mlp.router.classifier").data, ...ffn("mlp.experts.0") },
  } as unknown as Parameters<typeof layerCosts>[1];
  const dtypes = { activationDType: "bfloat16", cacheDType: "bfloat16" } as const;
  const step = { rows: 1, queries: 0, context: 0, ffnExpertsPerToken: 0, distinctExperts: 0, ...dtypes };
  const costs = layerCosts(config, layer, step);
  expect(costs).toHaveLength(LAYER_OPERATIONS.length);
  const outside = config.vocabSize * config.hiddenSize + (config.ngram ? config.hiddenSize ** 2 : 0);
  const scores = 2 * 2 * config.numHeads * (config.qkNopeHeadDim + config.qkRopeHeadDim + config.vHeadDim);
  expect(costs.reduce((sum, { flops }) => sum + flops, 0)).toBe(2 * (sharedElements - outside) + scores);
});

it.each(RANDOM_DTYPES)("a model of %s weights runs, and what it makes is finite", async (dtype) => {
  const model = await openRandomModel({ config: shapeConfig("mini", 3), dtype, expertsHeld: 5 }, OPTIONS);
  try {
    const { logits, hidden, routing } = await trace(model.runner, [5, 17, 99, 1024, 7, 7, 300]);
    expect(logits.every(Number.isFinite)).toBe(true);
    // Neither dead nor blown up.
    const last = hidden.at(-1)!;
    const power = last.reduce((sum, x) => sum + x * x, 0) / last.length;
    expect(power).toBeGreaterThan(0.5);
    expect(power).toBeLessThan(1000);
    expect(new Set(routing.flatMap(({ ids }) => [...ids])).size).toBeGreaterThan(12);
    const { gate } = model.runner.weights.layers[0]!.moe;
    expect(gate.data.shape).toEqual([24, 128, 256]);
    expect(model.weightBytes).toBeLessThanOrEqual(model.runner.device.allocatedBytes);
  } finally {
    await model.close();
  }
});

it("has n-grams and YaRN too", async () => {
  const model = await openRandomModel({ config: SMALL_LITE, dtype: "bfloat16" }, OPTIONS);
  try {
    expect(model.runner.weights.ngram).toHaveLength(12);
    const { logits } = await trace(model.runner, [5, 17, 99, 7, 7, 300]);
    expect(logits.every(Number.isFinite)).toBe(true);
    expect(new Set(logits).size).toBeGreaterThan(1000);
  } finally {
    await model.close();
  }
});

it("holds fewer experts, or one layer's for all, in less memory, and is the same model each time", async () => {
  const logitsOf = async (expertsHeld?: number, expertLayers?: number) => {
    const model = await openRandomModel({ config: shapeConfig("mini"), dtype: "bfloat16", expertsHeld, expertLayers }, OPTIONS);
    const { logits } = await trace(model.runner, [5, 17, 99]);
    await model.close();
    return { logits, bytes: model.weightBytes };
  };
  const [all, again, few, shared] = [await logitsOf(), await logitsOf(), await logitsOf(2), await logitsOf(24, 1)];
  expect(again.logits).toEqual(all.logits);
  expect(all.bytes - few.bytes).toBe(2 * 22 * 2 * 3 * 256 * 128);
  expect(all.bytes - shared.bytes).toBe(24 * 2 * 3 * 256 * 128);
});

it.each([
  [{ expertsHeld: 25 }, {}, { code: "OPTION_INVALID", message: "experts held: 25 is not accepted: the model has 1 to 24" }],
  [{}, { fp8Activations: true }, { code: "OPTION_INVALID", message: "fp8Activations needs a GPU and dtype fp8" }],
  [{}, { maxSequences: 4096, contextLength: 1e9 }, { code: "OUT_OF_MEMORY" }],
])("refuses what cannot be: %j %j", async (spec, options, wanted) => {
  const opening = openRandomModel({ config: shapeConfig("mini"), dtype: "bfloat16", ...spec }, { ...OPTIONS, ...options });
  await expect(opening).rejects.toMatchObject(wanted);
});
