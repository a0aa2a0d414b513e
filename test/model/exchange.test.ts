/**
 * A model whose experts are shared out among ranks: each rank answers what one rank with all experts answers, to within the order of a few sums, and
 * always in the same bits.
 */
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Runner } from "../../ts/model/runner.js";
import { openRandomModel } from "../../ts/model/random-weights.js";
import { shapeConfig } from "../../ts/model/shapes.js";
import { trace } from "../../ts/model/trace.js";
import { copyModel, editTensors, float32Tensor, type ModelName, modelPath, ROOT, valuesOf } from "../helpers/fixtures.js";
import { comparable, goldenCases, greedy } from "../helpers/goldens.js";
import { Ranks } from "../helpers/ranks.js";
import { batch, bits, farthest, prompt, staggered } from "../helpers/runs.js";
import { runTogether, type Work } from "../helpers/speculation.js";
import { closeLater, openAlone, openRanks } from "./open-ranks.js";

const STEPS = 10;

describe.each([
  ["mini", 2],
  ["mini", 4],
  ["tiny-a", 2],
  ["tiny-a", 7],
  ["tiny-lite-a", 2],
  ["tiny-lite-a", 5],
] as [ModelName, number][])("%s on %i ranks", (name, count) => {
  let ranks: Ranks;
  beforeAll(async () => {
    ranks = await Ranks.open(modelPath(name), count);
  });
  afterAll(() => ranks.close());

  it("continues every recorded prompt greedily as recorded, those of all ranks at once", async () => {
    const cases = goldenCases(join(ROOT, "test/fixtures", name));
    // Each rank begins with another case, so that prompts and decodes of all lengths meet.
    const work = async (runner: Runner, first: number) => {
      const answers: ReturnType<typeof bits>[] = [];
      for (const i of cases.keys()) {
        const c = (first + i) % cases.length;
        answers[c] = bits(await greedy(runner, cases[c]!.prompt_ids, comparable(cases[c]!), { logprobs: 5 }));
      }
      return answers;
    };
    const together = await ranks.run(ranks.runners.map(() => work));
    const alone = await ranks.alone(count - 1, (runner) => work(runner, 0));
    for (const [c, golden] of cases.entries()) {
      expect(
        alone[c]!.map(({ token }) => token),
        `case ${c}`,
      ).toEqual(golden.greedy_ids.slice(0, comparable(golden)));
      for (const [rank, answers] of together.entries()) expect(answers![c], `case ${c} on rank ${rank}`).toEqual(alone[c]);
    }
  });

  it("has one rank's logits and routing, to within the order of sums", async () => {
    const { runner } = await openAlone(modelPath(name));
    const text = prompt(100, 3);
    const want = await trace(runner, text);
    for (const rank of [0, count - 1]) {
      const got = await ranks.alone(rank, (one) => trace(one, text));
      for (const [l, { ids }] of want.routing.entries()) expect(got.routing[l]!.ids).toEqual(ids);
      // Sums of a row's experts in groups instead of one by one: the last bits of float32, through all layers.
      const off = farthest(got.logits, want.logits);
      if (rank === 0) console.log(`${name}, ${count} ranks: logits are ${off.toExponential(1)} from one rank's at most`);
      expect(off).toBeLessThan(1e-4);
    }
  });

  it("gives the same bits alone, in batches, in mixed steps, whatever the other ranks do", async () => {
    const lengths = [1, 13, 16, 65];
    const alone: ReturnType<typeof bits>[] = [];
    for (const length of lengths)
      alone.push(bits(await ranks.alone(0, (runner) => greedy(runner, prompt(length, length), STEPS, { logprobs: 5 }))));
    const prompts = lengths.map((length) => prompt(length, length));
    const works = [
      (runner: Runner) => batch(runner, prompts, STEPS),
      (runner: Runner) => staggered(runner, prompts, STEPS, 7),
      async (runner: Runner) => {
        const all = [];
        for (const one of prompts) all.push(await greedy(runner, one, STEPS, { logprobs: 5, chunk: 5 }));
        return all;
      },
    ];
    const results = await ranks.run(ranks.runners.map((_, rank) => works[rank % works.length]!));
    for (const [rank, all] of results.entries()) for (const [i, one] of all!.entries()) expect(bits(one), `rank ${rank}`).toEqual(alone[i]);
  });
});

describe("routing that is not balanced", () => {
  /** A copy of tiny-a whose routers prefer some of its 14 FFN and 7 zero experts, of which each row chooses 5. */
  function prefer(experts: readonly number[]): string {
    const dir = copyModel("tiny-a");
    editTensors(join(dir, "model.safetensors"), (all) => {
      for (const [name, tensor] of all)
        if (name.endsWith("e_score_correction_bias"))
          all.set(
            name,
            float32Tensor(
              tensor.shape,
              (valuesOf(tensor) as Float32Array).map((value, e) => value + (experts.includes(e) ? 10 : 0)),
            ),
          );
    });
    return dir;
  }
  const range = (first: number, count: number) => Array.from({ length: count }, (_, i) => first + i);

  it.each([
    ["all rows go to rank 0 of 2", 2, range(0, 7)],
    ["all rows go to rank 1 of 2", 2, range(7, 7)],
    ["rows use both experts of rank 3 of 7, and zero experts", 7, [6, 7, ...range(14, 7)]],
    ["no row goes to ranks 0 to 3 of 7", 7, range(8, 13)],
    ["no row goes anywhere", 2, range(14, 7)],
    ["no row goes anywhere, on 7 ranks", 7, range(14, 7)],
  ])("%s", async (_, count, experts) => {
    const dir = prefer(experts);
    const { runner } = await openAlone(dir);
    const ranks = await openRanks(dir, count);
    const text = prompt(60, 2);
    const want = await trace(runner, text);
    for (const { ids } of want.routing) expect(ids.every((id) => experts.includes(id))).toBe(true);
    const results = await ranks.run(ranks.runners.map((_, rank) => (one: Runner) => trace(one, text.slice(rank))));
    const V = runner.limits.vocabulary;
    expect(farthest(results[0]!.logits, want.logits)).toBeLessThan(1e-4);
    // Where nothing is summed otherwise, the bits are one rank's.
    if (experts.every((e) => e >= 14)) expect(results[0]!.logits).toEqual(want.logits);
    const shorter = await trace(runner, text.slice(count - 1));
    expect(farthest(results[count - 1]!.logits, shorter.logits)).toBeLessThan(1e-4);
    expect(results[0]!.logits).toHaveLength(60 * V);
  });
});

describe("the smallest steps", () => {
  it("are one token on one of many ranks, decoded with the others idle or not", async () => {
    const ranks = await openRanks(modelPath("tiny-a"), 7);
    const work = (runner: Runner) => greedy(runner, [12], STEPS, { logprobs: 5 });
    const alone = await ranks.alone(6, work);
    const [first, , , , , , last] = await ranks.run([work, null, null, null, null, null, work]);
    expect(bits(first!)).toEqual(bits(alone));
    expect(bits(last!)).toEqual(bits(alone));
  });
});

describe("drafts", () => {
  const cases = goldenCases(join(ROOT, "test/fixtures/mini")).map(({ prompt_ids }) => prompt_ids);
  const work = (c: number, drafts: number[], more: Partial<Work> = {}): Work => ({ prompt: cases[c]!, count: 24, drafts, ...more });

  it("of one rank, of all, another number on each: none changes a bit", async () => {
    const ranks = await openRanks(modelPath("mini"), 4, { maxDrafts: 3 });
    const want = [];
    for (const c of [0, 1]) want.push((await ranks.alone(0, (runner) => runTogether(runner, [work(c, [0])])))[0]!);
    for (const drafts of [
      [[3], [0], [0], [0]],
      [[0], [1], [2], [3]],
      [[2], [2], [2], [2]],
      [[0, 3], [1], [3, 0, 2], [0]],
    ]) {
      const runs = await ranks.run(
        drafts.map((own) => (runner: Runner) => runTogether(runner, [work(0, own, { chunk: 7 }), work(1, own)])),
      );
      for (const [rank, run] of runs.entries())
        for (const [c, { drawn, experts, steps }] of run!.entries()) {
          expect(drawn, `${drafts[rank]} drafts on rank ${rank}`).toEqual(want[c]!.drawn);
          expect(experts).toEqual(want[c]!.experts);
          if (drafts[rank]!.every((n) => n > 0)) expect(steps).toBeLessThan(want[c]!.steps);
        }
    }
  });
});

describe("a model of random weights", () => {
  it("is the same model on one rank and on many, whichever experts they hold", async () => {
    const spec = { config: shapeConfig("mini", 2), dtype: "fp8", expertsHeld: 6, draftHead: true } as const;
    const options = { device: "cpu", threads: 1, maxSequences: 2, maxBatchTokens: 64, contextLength: 64, maxDrafts: 1 };
    const alone = await openRandomModel(spec, options);
    closeLater(alone);
    const ranks = await Ranks.openWith(4, (parallel) => openRandomModel(spec, { ...options, parallel }));
    closeLater(ranks);
    const text = prompt(40, 1);
    const want = await trace(alone.runner, text);
    for (const got of await ranks.run(ranks.runners.map(() => (runner: Runner) => trace(runner, text)))) {
      expect(farthest(got!.logits, want.logits)).toBeLessThan(1e-4);
      expect(farthest(got!.draftLogits!, want.draftLogits!)).toBeLessThan(1e-4);
    }
  });
});

describe("rows that travel as FP8", () => {
  it.each(["mini", "tiny-a"] as const)("change %s within FP8's noise, and give the same bits on every rank", async (name) => {
    const ranks = await openRanks(modelPath(name), 2, { dispatchDType: "fp8" });
    const { runner } = await openAlone(modelPath(name));
    const text = prompt(60, 2);
    const want = await trace(runner, text);
    const results = await ranks.run([0, 1].map(() => (one: Runner) => trace(one, text)));
    expect(results[0]!.logits).toEqual(results[1]!.logits);
    const off = farthest(results[0]!.logits, want.logits);
    console.log(`${name}: FP8 dispatch changes logits by ${off.toFixed(4)} at most`);
    expect(off).toBeGreaterThan(1e-4);
    expect(off).toBeLessThan(1);
  });
});

describe("debugging", () => {
  it("poisons outputs without harm to what others have sent", async () => {
    const clean = await openRanks(modelPath("tiny-a"), 2);
    const poisoned = await openRanks(modelPath("tiny-a"), 2, { debug: "poison" });
    const works = [
      (runner: Runner) => batch(runner, [prompt(9, 1), prompt(20, 2)], STEPS),
      (runner: Runner) => batch(runner, [prompt(33, 3)], STEPS),
    ];
    const [want, got] = [await clean.run(works), await poisoned.run(works)];
    for (const rank of [0, 1]) expect(got[rank]!.map(bits)).toEqual(want[rank]!.map(bits));
  });
});
