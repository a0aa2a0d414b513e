/** Zero experts by their formula (field trial B05), and rows that nobody wrote never reach rows that somebody reads (B34). */
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Engine } from "../../ts/engine/engine.js";
import { openModel } from "../../ts/model/open.js";
import { quantizeCheckpoint } from "../../ts/model/quantize.js";
import { ops } from "../../ts/runtime/ops.js";
import {
  copyModel,
  editTensors,
  type FileTensor,
  float32Tensor,
  modelPath,
  readSafetensors,
  temporaryFolder,
  valuesOf,
} from "../helpers/fixtures.js";
import { bits, engines, ids, idle } from "../helpers/mini.js";
import { TEST_MODEL_OPTIONS } from "../helpers/models.js";
import { numbers } from "../runtime/devices.js";

const { open, closeAll } = engines({ device: "cpu", threads: 2, maxSequences: 16, maxBatchTokens: 512 });
afterAll(closeAll);

describe("B05: tokens that get zero experts alone", () => {
  const [width, experts, zeros, topK, factor] = [96, 14, 7, 5, 3];
  const classifierName = "model.layers.0.mlp.router.classifier.weight";

  /** tiny-a whose every pick is a zero expert, its FFN experts full of NaN. */
  function allZero(): string {
    const dir = copyModel("tiny-a");
    editTensors(join(dir, "model.safetensors"), (tensors) => {
      for (const [name, tensor] of tensors) {
        const values = new Float32Array(count(tensor));
        if (name.endsWith("e_score_correction_bias")) tensors.set(name, float32Tensor(tensor.shape, values.fill(0).fill(10, experts)));
        if (name.includes("mlp.experts.")) tensors.set(name, float32Tensor(tensor.shape, values.fill(Number.NaN)));
      }
    });
    return dir;
  }
  const count = ({ shape }: FileTensor) => shape.reduce((a, b) => a * b, 1);

  it("give h · factor · the sum of the five largest unbiased probabilities", async () => {
    const dir = allZero();
    const model = await openModel(dir, TEST_MODEL_OPTIONS);
    const { device, weights } = model.runner;
    const queue = device.queue();
    const T = 33;
    const tensor = (dtype: "float32" | "int32", ...shape: number[]) => device.tensor(dtype, shape);
    const h = tensor("float32", T, width);
    const values = numbers(T * width, 9).map((value, i) => (i < 10 * width ? 4 : 0.5) * value); // sharp routings and flat ones
    queue.write(h, values);
    const rows = tensor("int32", 1);
    queue.write(rows, Int32Array.of(T));
    const [routed, identityWeight, ffnCount] = [tensor("float32", T, topK), tensor("float32", T), tensor("int32", T)];
    const plan = { expertStart: tensor("int32", experts + 1), planRow: tensor("int32", T * topK), slotPlan: tensor("int32", T, topK) };
    const { classifier, bias, gate, up, down } = weights.layers[0]!.moe;
    ops.moeRoute(queue, {
      ...{ h, classifier, bias, scores: tensor("float32", T, experts + zeros), ids: tensor("int32", T, topK) },
      ...{ weights: routed, identityWeight, ffnCount, ...plan, rows, experts, factor },
    });
    const out = tensor("float32", T, width);
    ops.moeExperts(queue, {
      ...{ h, gate, up, down, weights: routed, identityWeight, ...plan },
      ...{ hidden: tensor("float32", T * topK, 48), partial: tensor("float32", T * topK, width), out, rows, expected: 0 },
    });
    const got = new Float32Array(T * width);
    await queue.read(out, got);
    const counted = new Int32Array(T).fill(-1);
    await queue.read(ffnCount, counted);
    await model.close();

    expect([...counted]).toEqual(new Array<number>(T).fill(0));
    const stored = valuesOf(readSafetensors(join(modelPath("tiny-a"), "model.safetensors")).get(classifierName)!);
    let largest = 0;
    for (let t = 0; t < T; t++) {
      const row = Array.from(values.subarray(t * width, (t + 1) * width));
      const scale = factor * largestZeroShare(row, stored);
      largest = Math.max(largest, scale);
      row.forEach((value, i) => {
        expect(Math.abs((got[t * width + i] as number) - value * scale)).toBeLessThan(1e-4); // float32 against float64
      });
    }
    expect(largest).toBeGreaterThan(0.5);
  });

  /** In double precision: the sum of the `topK` largest probabilities of the zero experts. */
  function largestZeroShare(h: readonly number[], classifier: ArrayLike<number>): number {
    const logits = Array.from({ length: experts + zeros }, (_, e) =>
      h.reduce((sum, x, i) => sum + x * (classifier[e * width + i] as number), 0),
    );
    const max = Math.max(...logits);
    const exps = logits.map((logit) => Math.exp(logit - max));
    const total = exps.reduce((a, b) => a + b);
    const own = exps.slice(experts).sort((a, b) => b - a);
    return own.slice(0, topK).reduce((a, b) => a + b) / total;
  }
});

describe("B34: padding, unfilled blocks and blocks of aborted sequences, every output poisoned before it is written", () => {
  const LENGTHS = [1, 13, 15, 16, 17, 63, 64, 65, 129];
  const params = { temperature: 0, maxTokens: 10, ignoreEos: true, logprobs: 3 };
  let quantised: string;
  beforeAll(async () => {
    quantised = join(temporaryFolder(), "mini-fp8");
    await quantizeCheckpoint(modelPath("mini"), quantised);
  });

  /** Every answer's bits: batches of 1, 3, 5 and 9 prompts of very different lengths. */
  async function answers(engine: Engine): Promise<unknown[]> {
    const all: unknown[] = [];
    for (const batch of [1, 3, 5, 9]) {
      const prompts = LENGTHS.slice(LENGTHS.length - batch).map((length, i) => ids(length, i + batch));
      for (const { logprobs } of await engine.generate(prompts, params)) all.push(bits(logprobs));
    }
    return all;
  }

  it.each([
    ["mini", () => modelPath("mini")],
    ["mini in block FP8", () => quantised],
    ["tiny-a", () => modelPath("tiny-a")],
    ["tiny-lite-a", () => modelPath("tiny-lite-a")],
  ])("%s: the same bits", async (_, dir) => {
    const clean = await open(dir());
    const wanted = await answers(clean);
    await clean.close();
    // A cache of 640 tokens, so that every batch takes blocks that others have left.
    const poisoned = await open(dir(), { debug: "poison", cacheBytes: await cacheFor(dir(), 640) });
    expect(poisoned.info.cache).toMatchObject({ numBlocks: 40, blockSize: 16 });
    for (let round = 0; round < 2; round++) {
      await abortInMidStep(poisoned);
      expect(await answers(poisoned)).toEqual(wanted);
    }
    idle(poisoned);
    await poisoned.close();
  });

  /** Bytes of a cache of so many tokens, the draft head's among it. */
  async function cacheFor(dir: string, tokens: number): Promise<number> {
    const { sizes, close } = await openModel(dir, { ...TEST_MODEL_OPTIONS, maxDrafts: 1 });
    await close();
    return (sizes.cacheBytes / (sizes.numBlocks * sizes.blockSize)) * tokens;
  }

  /** Six long sequences, ended while a step of theirs is in flight. */
  async function abortInMidStep(engine: Engine): Promise<void> {
    const controller = new AbortController();
    const { signal } = controller;
    const running = Promise.allSettled(
      ids(6).tokens.map((_, i) => engine.generate(ids(30 + 5 * i, i), { ...params, maxTokens: 60, signal })),
    );
    const { steps } = engine.stats;
    while (engine.stats.steps < steps + 4) await new Promise((resolve) => setImmediate(resolve));
    controller.abort();
    for (const { status } of await running) expect(status).toBe("rejected");
  }
});
