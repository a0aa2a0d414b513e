/**
 * A model whose experts are shared out among ranks: each rank answers what one rank with all experts answers, to within the order of a few sums, and
 * always in the same bits.
 */
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { ControlWord } from "../../ts/model/exchange.js";
import { type OpenedModel, type OpenModelOptions, openModel } from "../../ts/model/open.js";
import { checkRing, type Runner } from "../../ts/model/runner.js";
import { trace } from "../../ts/model/trace.js";
import { copyModel, editTensors, type FileTensor, float32Tensor, type ModelName, modelPath, ROOT, valuesOf } from "../helpers/fixtures.js";
import { comparable, goldenCases, greedy, takeSlot } from "../helpers/goldens.js";
import { refused } from "../helpers/mini.js";
import { TEST_MODEL_OPTIONS } from "../helpers/models.js";
import { Ranks } from "../helpers/ranks.js";
import { batch, bits, prompt, staggered, tokens } from "../helpers/runs.js";
import { runTogether, type Work } from "../helpers/speculation.js";

const STEPS = 10;

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const model of opened.splice(0)) await model.close();
});

async function openRanks(...args: Parameters<typeof Ranks.open>): Promise<Ranks> {
  const ranks = await Ranks.open(...args);
  opened.push(ranks);
  return ranks;
}

async function openAlone(dir: string, options: Partial<OpenModelOptions> = {}): Promise<OpenedModel> {
  const model = await openModel(dir, { ...TEST_MODEL_OPTIONS, ...options });
  opened.push(model);
  return model;
}

/** How far two lists of numbers are from one another at most. */
function farthest(a: Float32Array, b: Float32Array): number {
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);
}

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
    const work = async (runner: Runner, rank: number) => {
      const answers: ReturnType<typeof bits>[] = [];
      for (const c of cases.keys()) {
        const { prompt_ids, greedy_ids } = cases[(c + rank) % cases.length]!;
        answers[(c + rank) % cases.length] = bits(await greedy(runner, prompt_ids, greedy_ids.length, { logprobs: 5 }));
      }
      return answers;
    };
    const runs = [await ranks.run(ranks.runners.map(() => work)), await ranks.run(ranks.runners.map(() => work))];
    for (const [c, golden] of cases.entries()) {
      const first = runs[0]![0]![c]!;
      const sure = comparable(golden);
      expect(
        first.slice(0, sure).map(({ token }) => token),
        `case ${c}`,
      ).toEqual(golden.greedy_ids.slice(0, sure));
      for (const run of runs) for (const [rank, answers] of run.entries()) expect(answers![c], `case ${c} on rank ${rank}`).toEqual(first);
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
      expect(farthest(got.logits, want.logits)).toBeLessThan(1e-4);
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

describe("a round", () => {
  it("of prompts is run by ranks that decode, and by those that have nothing", async () => {
    const ranks = await openRanks(modelPath("tiny-a"), 7);
    const [want] = await batch((await openAlone(modelPath("tiny-a"))).runner, [prompt(20, 1)], STEPS);
    ranks.rounds.length = 0;
    const results = await ranks.run([
      // Prompts all along, by one token.
      (runner) => greedy(runner, prompt(20, 1), STEPS, { chunk: 1, logprobs: 5 }),
      (runner) => greedy(runner, prompt(20, 1), STEPS, { logprobs: 5 }),
      ...Array.from({ length: 5 }, () => null),
    ]);
    expect(tokens(results[0]!)).toEqual(tokens(want!));
    expect(bits(results[1]!)).toEqual(bits(results[0]!));
    const both = ranks.rounds.filter(({ who }) => who.length === 2);
    expect(both).toHaveLength(STEPS);
    expect(both.every(({ kind }) => kind === "prompt")).toBe(true);
    // Nineteen chunks and those of the decodes that were left to rank 0.
    expect(ranks.rounds.length).toBe(20 + STEPS - 1);
  });

  it("has the bucket of the rank with most sequences; each kind of program is recorded once on every rank", async () => {
    const ranks = await openRanks(modelPath("tiny-a"), 2);
    const several = (n: number) => (runner: Runner) =>
      batch(
        runner,
        Array.from({ length: n }, (_, i) => prompt(9, i)),
        STEPS,
      );
    const [five, one] = await ranks.run([several(5), several(1)]);
    expect(bits(one![0]!)).toEqual(bits(five![0]!));
    expect(ranks.rounds.every(({ sequences }) => sequences === 5)).toBe(true);
    expect(ranks.runners.map(({ recordedGraphs }) => recordedGraphs)).toEqual([1, 1]);
    const [alone] = await ranks.run([null, several(1)].reverse());
    expect(bits(alone![0]!)).toEqual(bits(one![0]!));
    expect(ranks.runners.map(({ recordedGraphs }) => recordedGraphs)).toEqual([2, 2]);
  });

  it("may be decided before those before it are enqueued", async () => {
    const ranks = await openRanks(modelPath("tiny-a"), 2);
    const want = await ranks.alone(0, (runner) => greedy(runner, prompt(9, 1), 3));
    const { length: rounds } = ranks.rounds;
    // Rank 1 is told of the next rounds before they are decided, the last first.
    const [, second] = ranks.runners as [Runner, Runner];
    const join = second.join.bind(second);
    const decode = { kind: "decode", sequences: 1, drafts: 0 } as const;
    const joined = [2, 1, 0].map((i) => join({ ...decode, kind: i === 0 ? "prompt" : "decode", round: rounds + i }));
    second.join = () => Promise.resolve();
    expect(bits(await ranks.alone(0, (runner) => greedy(runner, prompt(9, 1), 3)))).toEqual(bits(want));
    await Promise.all(joined);
    await expect(join({ ...decode, round: rounds })).rejects.toThrow(refused("INTERNAL", `of round ${rounds} already`));
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

describe("a step in parts", () => {
  it("is scored between rounds, while others decode", async () => {
    const options = { maxBatchTokens: 256 };
    const ranks = await openRanks(modelPath("tiny-a"), 2, options);
    const text = Array.from({ length: 200 }, (_, i) => 5 + (i % 50));
    const scored = { slot: 0, position: 0, tokens: text, sample: false, scoreTargets: [...text.slice(1), -1] };
    const scores = async (runner: Runner) => {
      takeSlot(runner, 0, 0, 256);
      const results = [];
      for (let i = 0; i < 3; i++) results.push((await runner.step([scored]))[0]!.scores!);
      return results;
    };
    const { runner } = await openAlone(modelPath("tiny-a"), options);
    const [want] = await scores(runner);
    const decodes = (one: Runner) => greedy(one, prompt(9, 1), 3 * STEPS, { logprobs: 5 });
    const alone = await ranks.alone(1, decodes);
    const [got, beside] = await ranks.run<Awaited<ReturnType<typeof scores | typeof decodes>>>([scores, decodes]);
    for (const one of got as Float32Array[]) {
      expect(farthest(one, want!)).toBeLessThan(1e-4);
      expect(one).toEqual(got![0]);
    }
    expect(bits(beside as typeof alone)).toEqual(bits(alone));
  });

  it("asks for a round for each where its decode splits do not fit", async () => {
    // Rows over shared blocks: more splits than the cache is thought to hold. Of each of mini's four caches 16 rows of 288 float32 numbers.
    const [LENGTH, BLOCKS, SEQUENCES] = [1000, 88, 14];
    const ranks = await openRanks(modelPath("mini"), 2, { cacheBytes: BLOCKS * 4 * 16 * 288 * 4 });
    const shared = Math.floor(LENGTH / 16);
    const text = Array.from({ length: LENGTH }, (_, i) => 12 + ((i * 37) % 300));
    const long = async (runner: Runner) => {
      expect(runner.limits.numBlocks).toBe(BLOCKS);
      for (let slot = 0; slot < SEQUENCES; slot++) {
        await runner.room();
        takeSlot(runner, slot, 0, 0, 2);
        runner.setBlocks(slot, 0, [...Array.from({ length: shared }, (_, i) => i), shared + slot]);
        runner.setHistory(slot, text.slice(0, shared * 16));
      }
      for (let at = 0; at < shared * 16; at += 496)
        await runner.step([{ slot: 0, position: at, tokens: text.slice(at, Math.min(at + 496, shared * 16)), sample: false }]);
      const all = Array.from({ length: SEQUENCES }, (_, slot) => slot);
      await runner.step(all.map((slot) => ({ slot, position: shared * 16, tokens: text.slice(shared * 16), sample: true })));
      const before = ranks.rounds.length;
      const results = await runner.step(all.map((slot) => ({ slot, position: LENGTH, tokens: null, sample: true })));
      expect(ranks.rounds.length - before).toBeGreaterThan(1);
      return results;
    };
    const results = await ranks.run([long, (runner) => greedy(runner, prompt(9, 1), STEPS)]);
    for (const { drawn } of results[0]!) expect(drawn).toEqual(results[0]![0]!.drawn);
  });
});

describe("a rank", () => {
  /** A copy of tiny-a in which these experts' numbers are no numbers. */
  function spoiled(experts: readonly number[]): string {
    const dir = copyModel("tiny-a");
    const nan = ({ dtype, shape, data }: FileTensor): FileTensor => ({ dtype, shape, data: new Uint8Array(data.byteLength).fill(0xff) });
    editTensors(join(dir, "model.safetensors"), (all) => {
      for (const [name, tensor] of all) {
        const expert = /\.experts\.(\d+)\./.exec(name)?.[1];
        if (expert !== undefined && experts.includes(Number(expert))) all.set(name, nan(tensor));
      }
    });
    return dir;
  }

  it("reads its own experts alone, and counts no others", async () => {
    const others = [0, 1].map((rank) => spoiled(Array.from({ length: 7 }, (_, e) => e + 7 * (1 - rank))));
    const told: number[][] = [];
    const ranks = await openRanks(
      (rank) => others[rank]!,
      2,
      (rank) => ({
        onProgress: (done, total) => {
          told[rank] = [done, total];
        },
      }),
    );
    const [got] = await ranks.run([0, 1].map(() => (runner: Runner) => greedy(runner, prompt(9, 1), STEPS)));
    const whole = await openAlone(modelPath("tiny-a"));
    expect(tokens(got!)).toEqual(tokens(await greedy(whole.runner, prompt(9, 1), STEPS)));
    let expertBytes = 0;
    for (const { name, shape } of whole.checkpoint.specs)
      if (name.includes(".experts."))
        expertBytes += shape.reduce((product, n) => product * n, whole.checkpoint.tensors.get(name)!.entry.storedDtype === "F32" ? 4 : 2);
    const own = whole.checkpoint.bytes - expertBytes / 2;
    expect(told).toEqual([
      [own, own],
      [own, own],
    ]);
  });

  it("is one of a number that divides the experts", async () => {
    for (const [name, count, accepted] of [
      ["tiny-a", 5, "14 experts cannot be shared out evenly among as many ranks; accepted: 1, 2, 7, 14"],
      ["mini", 16, "24 experts cannot be shared out evenly among as many ranks; accepted: 1, 2, 3, 4, 6, 8, 12, 24"],
    ] as const)
      await expect(Ranks.open(modelPath(name), count)).rejects.toThrow(
        refused("OPTION_INVALID", `parallel: { expert: ${count} } is not accepted: ${accepted}`),
      );
  });

  it("is refused other sizes than the rest, and has the smallest cache of all", async () => {
    const differing = Ranks.open(modelPath("tiny-a"), 2, (rank) => ({ maxBatchTokens: 512 - rank }));
    await expect(differing).rejects.toThrow(refused("COMM_ERROR", "maxBatchTokens is 512 on rank 0, 511 on rank 1"));
    const ranks = await openRanks(modelPath("tiny-a"), 2, (rank) => ({ cacheBytes: (2 - rank) * 2 ** 20 }));
    const [first, second] = ranks.runners.map(({ limits }) => limits);
    expect(first).toEqual(second);
    expect(ranks.models[0]!.sizes.cacheBytes).toBeLessThanOrEqual(2 ** 20);
  });

  it("fails its step, and no more, when it is told to give up waiting", async () => {
    const ranks = await openRanks(modelPath("tiny-a"), 2);
    const [runner, silent] = ranks.runners as [Runner, Runner];
    // Rank 1 does not come.
    silent.join = () => Promise.resolve();
    const step = ranks.alone(0, (one) => greedy(one, prompt(9, 1), 1));
    setTimeout(() => runner.exchange!.control.set(ControlWord.giveUp, 1), 50);
    await expect(step).rejects.toThrow(refused("COMM_ERROR"));
    await runner.room();
  });

  it("says for whom it waits", async () => {
    const ranks = await openRanks(modelPath("tiny-a"), 2);
    const [runner, late] = ranks.runners as [Runner, Runner];
    const { control } = runner.exchange!;
    expect(control.get(ControlWord.waitsFor)).toBe(0);
    const join = late.join.bind(late);
    late.join = async (round) => {
      await new Promise((resolve) => setTimeout(resolve, 1500));
      expect(control.get(ControlWord.waitsFor)).toBe(2);
      return join(round);
    };
    await ranks.alone(0, (one) => greedy(one, prompt(9, 1), 1));
    expect(control.get(ControlWord.waitsFor)).toBe(0);
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

describe("the ring", () => {
  it("takes two commands more a layer", () => {
    const device = { kind: "cpu", roomCommands: 1792 } as const;
    const sharding = { ranks: 2, fp8Dispatch: false };
    expect(() => checkRing(device, { numLayers: 97 }, { maxDrafts: 0, sharding })).not.toThrow();
    expect(() => checkRing(device, { numLayers: 98 }, { maxDrafts: 0, sharding })).toThrow(
      refused("CHECKPOINT_UNSUPPORTED", "at most 97 are"),
    );
  });
});
