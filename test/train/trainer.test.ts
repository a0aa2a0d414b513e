/** Runs: that they learn, that they repeat, that they go on where they stopped, and that an engine loads what they save. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { openModel } from "../../ts/model/open.js";
import { type StepReport, Trainer } from "../../ts/train/trainer.js";
import { takeSlot } from "../helpers/goldens.js";
import { refused } from "../helpers/mini.js";
import { TEST_MODEL_OPTIONS } from "../helpers/models.js";
import { LITE_TOY, TOY, toyRun } from "../helpers/training.js";

const open: Trainer[] = [];
let dir = "";
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "longcat-train-"));
});
afterEach(async () => {
  for (const trainer of open.splice(0)) await trainer.close();
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

async function begin(changes: Record<string, unknown> = {}, threads = 2): Promise<Trainer> {
  const trainer = await Trainer.begin(toyRun(changes), { threads });
  open.push(trainer);
  return trainer;
}

async function steps(trainer: Trainer, count: number): Promise<StepReport[]> {
  const reports: StepReport[] = [];
  for (let i = 0; i < count; i++) reports.push(await trainer.step());
  return reports;
}

/** Every file of a checkpoint, as bytes. */
async function saved(trainer: Trainer, name: string): Promise<Record<string, string>> {
  const path = join(dir, name);
  await trainer.save(path);
  const files = readdirSync(path, { recursive: true, encoding: "utf8" }).filter((file) => file.includes("."));
  return Object.fromEntries(files.map((file) => [file, readFileSync(join(path, file)).toString("base64")]));
}

describe("a run", () => {
  it("learns to copy, and an engine loads it and copies", async () => {
    const trainer = await begin();
    const reports = await steps(trainer, 150);
    expect(reports[0]!.loss).toBeGreaterThan(0.8 * Math.log(TOY.vocab_size));
    expect(reports.at(-1)!.loss).toBeLessThan(0.01);
    expect(await trainer.evaluate(2)).toBeLessThan(0.01);
    await trainer.save(join(dir, "copies"));

    const model = await openModel(join(dir, "copies"), TEST_MODEL_OPTIONS);
    const word = [5, 15, 9, 9, 4, 12];
    takeSlot(model.runner, 0, 0, 16, 0);
    const drawn: number[] = [];
    const prompt = { slot: 0, position: 0, tokens: [1, ...word, 3], sample: true };
    for (let position = 8; position <= 14; position++) {
      const [result] = await model.runner.step([position === 8 ? prompt : { slot: 0, position: position - 1, tokens: null, sample: true }]);
      drawn.push(result!.drawn[0]!.token);
    }
    await model.close();
    expect(drawn).toEqual([...word, 2]);
  });

  it("of a Lite model learns too", async () => {
    const reports = await steps(await begin({ model: LITE_TOY }), 150);
    expect(reports.at(-1)!.loss).toBeLessThan(0.02);
  });

  it("learns a small batch by heart, and nothing else", async () => {
    const trainer = await begin({ task: { kind: "sums", digits: 2 }, distinct: 8, sequences: 8, steps: 100, budget: null });
    const reports = await steps(trainer, 100);
    expect(reports[0]!.loss).toBeGreaterThan(2.5);
    expect(reports.at(-1)!.loss).toBeLessThan(0.01);
    expect(await trainer.evaluate(8)).toBeGreaterThan(1);
  });

  it("has the same bits on any number of threads", async () => {
    const one = await begin({}, 1);
    const three = await begin({}, 3);
    expect(await steps(one, 5)).toEqual(await steps(three, 5));
    expect(await saved(one, "one")).toEqual(await saved(three, "three"));
  });

  it("that is resumed has the bits of one that was not interrupted", async () => {
    const whole = await begin();
    const first = await begin();
    const wanted = await steps(whole, 12);
    await steps(first, 5);
    await first.save(join(dir, "five"));
    const resumed = await Trainer.resume(join(dir, "five"), { threads: 1 });
    open.push(resumed);
    expect(resumed.steps).toBe(5);
    expect(await steps(resumed, 7)).toEqual(wanted.slice(5));
    expect(await saved(resumed, "resumed")).toEqual(await saved(whole, "whole"));
  });

  it("adds up the batches of a step: two of eight sequences are one of sixteen", async () => {
    const whole = await begin({ balance: null });
    const halves = await begin({ balance: null, sequences: 8, accumulate: 2 });
    const [a, b] = [await whole.step(), await halves.step()];
    expect(b.tokens).toBe(a.tokens);
    expect(Math.abs(b.loss - a.loss)).toBeLessThan(1e-6);
    expect(Math.abs(b.gradientNorm / a.gradientNorm - 1)).toBeLessThan(1e-5);
  });
});

describe("the budget controller", () => {
  it("holds the mean of FFN experts at its share, where without it zero experts get another", async () => {
    const mean = (reports: StepReport[]) =>
      reports.flatMap(({ ffnExperts }) => ffnExperts).reduce((sum, n, _, all) => sum + n / all.length, 0);
    const long = { steps: 600, balance: null };
    const held = await steps(await begin({ ...long, budget: { mu: 0.1, meanExperts: 1.5 } }), 160);
    const free = await steps(await begin({ ...long, budget: null }), 160);
    // Batches of 224 tokens: each step's mean scatters by some hundredths.
    expect(Math.abs(mean(held.slice(-100)) - 1.5)).toBeLessThan(0.045);
    expect(Math.abs(mean(free.slice(-100)) - 1.5)).toBeGreaterThan(0.2);
  });
});

describe("the router", () => {
  it("is watched: R_g goes with α, and the rest is the same", async () => {
    const [weak, strong] = [await begin({ balance: { alpha: 1e-3, groups: 2 } }), await begin({ balance: { alpha: 2e-3, groups: 2 } })];
    const [a, b] = [await weak.step(), await strong.step()];
    // The last layer's: to the first one comes what the last one's balance loss says, too.
    expect(b.gradientRatio[1]! / a.gradientRatio[1]!).toBeCloseTo(2, 6);
    expect([b.fullestGroup, b.routerSimilarity]).toEqual([a.fullestGroup, a.routerSimilarity]);
    for (const f of a.fullestGroup) expect(f).toBeGreaterThanOrEqual(1);
    // Twelve random rows of 32 numbers.
    for (const cosine of a.routerSimilarity) expect(Math.abs(cosine)).toBeLessThan(0.1);
  });

  it("is watched without a balance loss too, but for R_g", async () => {
    const { gradientRatio, routerSimilarity } = await (await begin({ balance: null })).step();
    expect([gradientRatio, routerSimilarity.length]).toEqual([[], 2]);
  });
});

describe("growth", () => {
  /** The numbers of a tensor in a checkpoint of `trainer`. */
  const numbers = async (trainer: Trainer, path: string, file: string, names: string[]) => {
    if (!existsSync(path)) await trainer.save(path);
    const bytes = readFileSync(join(path, file));
    const headerBytes = Number(bytes.readBigUInt64LE(0));
    const header = JSON.parse(bytes.toString("utf8", 8, 8 + headerBytes)) as Record<string, { data_offsets: [number, number] }>;
    return names.map((name) =>
      bytes.subarray(...(header[name]!.data_offsets.map((at) => at + 8 + headerBytes) as [number, number])).toString("hex"),
    );
  };

  it("stacks layers with all of their training state, goes on at the same step, and an engine loads it", async () => {
    const small = await begin({ steps: 40 });
    await steps(small, 10);
    await small.save(join(dir, "small"));
    const grown = await Trainer.grow(join(dir, "small"), 2, { threads: 2 });
    open.push(grown);
    expect([grown.steps, grown.run.config.numLayers]).toEqual([10, 4]);
    const of = (layer: number) => [
      `model.layers.${layer}.mlps.0.up_proj.weight`,
      `model.layers.${layer}.mlp.router.e_score_correction_bias`,
    ];
    const path = join(dir, "grown");
    for (const layer of [0, 1]) {
      const source = await numbers(small, join(dir, "small"), "model.safetensors", of(layer));
      expect(await numbers(grown, path, "model.safetensors", of(layer))).toEqual(source);
      expect(await numbers(grown, path, "model.safetensors", of(layer + 2))).toEqual(source);
      const state = (at: number) =>
        of(at)
          .slice(0, 1)
          .flatMap((name) => [`momentum.${name}`, `variance.${name}`]);
      const wanted = await numbers(small, join(dir, "small"), "training/optimizer.safetensors", state(layer));
      expect(await numbers(grown, path, "training/optimizer.safetensors", state(layer + 2))).toEqual(wanted);
    }
    const [report] = await steps(grown, 1);
    expect([report!.step, report!.ffnExperts.length]).toEqual([11, 4]);
    const model = await openModel(path, TEST_MODEL_OPTIONS);
    takeSlot(model.runner, 0, 0, 16, 0);
    const [result] = await model.runner.step([{ slot: 0, position: 0, tokens: [1, 5, 3], sample: true }]);
    expect(result!.drawn).toHaveLength(1);
    await model.close();
  });

  it("of a run goes on with the layers that it grew", async () => {
    const grown = await Trainer.grow(join(dir, "small"), 2);
    open.push(grown);
    await grown.save(join(dir, "grown-once"));
    const resumed = await Trainer.resume(join(dir, "grown-once"));
    open.push(resumed);
    expect(await steps(resumed, 2)).toEqual(await steps(grown, 2));
  });
});

describe("a checkpoint", () => {
  it("is not written over anything, and half a one is not left", async () => {
    const trainer = await begin();
    await trainer.save(join(dir, "there"));
    await expect(trainer.save(join(dir, "there"))).rejects.toThrow(refused("OPTION_INVALID", "not there yet"));
    expect(readdirSync(dir).filter((name) => name.includes("partial"))).toEqual([]);
  });

  it("without a run, or of another model, is refused", async () => {
    await expect(Trainer.resume(join(dir, "nowhere"))).rejects.toThrow(refused("CHECKPOINT_INVALID", "no run to go on with"));
    const trainer = await begin();
    const path = join(dir, "changed");
    await trainer.save(path);
    const file = join(path, "training/run.json");
    expect(existsSync(file)).toBe(true);
    const state = JSON.parse(readFileSync(file, "utf8")) as { run: { model: Record<string, unknown> } };
    state.run.model["ffn_hidden_size"] = 48;
    writeFileSync(file, JSON.stringify(state));
    await expect(Trainer.resume(path)).rejects.toThrow(refused("CHECKPOINT_INVALID", "is not there as F32"));
  });
});
