/**
 * Drafts on the device: whatever is drafted, verified and rejected, a sequence's tokens, log-probabilities and routing are those that it has
 * without drafts. Bits, not tolerances.
 */
import { join } from "node:path";
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { type OpenedModel, type OpenModelOptions, openModel } from "../../ts/model/open.js";
import { openRandomModel } from "../../ts/model/random-weights.js";
import { MOST_GRAPHS, type Runner } from "../../ts/model/runner.js";
import type { SlotSampling, StepResult, StepSequence } from "../../ts/model/runner-types.js";
import { shapeConfig } from "../../ts/model/shapes.js";
import { trace } from "../../ts/model/trace.js";
import { modelPath, ROOT } from "../helpers/fixtures.js";
import { goldenCases } from "../helpers/goldens.js";
import { TEST_MODEL_OPTIONS } from "../helpers/models.js";
import { prompt } from "../helpers/runs.js";
import { GREEDY, type Run, runTogether, type Work } from "../helpers/speculation.js";

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const model of opened.splice(0)) await model.close();
});

async function open(options: Partial<OpenModelOptions> = {}): Promise<Runner> {
  const model: OpenedModel = await openModel(modelPath("mini"), { ...TEST_MODEL_OPTIONS, maxDrafts: 4, ...options });
  opened.push(model);
  return model.runner;
}

const GOLDEN_PROMPTS = goldenCases(join(ROOT, "test/fixtures/mini")).map(({ prompt_ids }) => prompt_ids);
const TOKENS = 40;

/** Text that the model knows, so that many drafts are accepted, and ids without sense, so that few are. */
const PROMPTS = [...GOLDEN_PROMPTS.slice(0, 3), prompt(17, 1)];

const WAYS: [string, Partial<SlotSampling>][] = [
  ["greedy", {}],
  ["temperature", { temperature: 0.8, seed: 11 }],
  ["topP and topK", { temperature: 1, topP: 0.9, topK: 40, seed: 12 }],
  ["minP", { temperature: 1.2, minP: 0.05, seed: 13 }],
  ["penalties", { temperature: 0.7, repetitionPenalty: 1.3, presencePenalty: 0.4, frequencyPenalty: 0.2, seed: 14 }],
  ["greedy with penalties", { repetitionPenalty: 1.2, frequencyPenalty: 0.5 }],
  [
    "biases",
    {
      logitBias: new Map([
        [20, 3],
        [31, 2.5],
        [400, -2],
      ]),
      temperature: 0.9,
      seed: 15,
    },
  ],
];

/** Those of a runner that makes no drafts. */
let alone: Map<string, Run[]>;
beforeAll(async () => {
  const { runner, close } = await openModel(modelPath("mini"), TEST_MODEL_OPTIONS);
  expect(runner.limits.maxDrafts).toBe(0);
  alone = new Map();
  for (const [way, sampling] of WAYS) {
    const runs: Run[] = [];
    for (const work of works(sampling, [0])) runs.push(...(await runTogether(runner, [work])));
    alone.set(way, runs);
  }
  await close();
});

function works(sampling: Partial<SlotSampling>, drafts: readonly number[], more: Partial<Work> = {}): Work[] {
  return PROMPTS.map((tokens) => ({ prompt: tokens, count: TOKENS, sampling: { ...GREEDY, ...sampling }, drafts, ...more }));
}

function expectSame(runs: readonly Run[], way: string): void {
  for (const [i, run] of runs.entries()) {
    const want = alone.get(way)![i]!;
    expect(run.drawn, `${way}, prompt ${i}: tokens and log-probabilities`).toEqual(want.drawn);
    expect(run.experts, `${way}, prompt ${i}: routing`).toEqual(want.experts);
  }
}

describe("a sequence", () => {
  it.each(WAYS)("drawn with %s is the same with 1 to 4 drafts", async (way, sampling) => {
    const runner = await open();
    for (const drafts of [0, 1, 2, 3, 4]) {
      const runs: Run[] = [];
      for (const work of works(sampling, [drafts])) runs.push(...(await runTogether(runner, [work])));
      expectSame(runs, way);
      if (drafts > 0) expect(runs[0]!.steps, `${way}: some of ${drafts} drafts are accepted`).toBeLessThan(TOKENS - 1);
      else expect(runs[0]!.steps).toBe(TOKENS - 1);
    }
  });

  it.each(WAYS)(
    "drawn with %s is the same beside others, with prompts in chunks and another number of drafts in each step",
    async (way, sampling) => {
      const runner = await open();
      expectSame(await runTogether(runner, works(sampling, [2, 0, 4, 1], { chunk: 5 })), way);
      expectSame(await runTogether(runner, works(sampling, [1], { chunk: 16 })), way);
    },
  );

  it("is the same with outputs poisoned, and replayed after the scratch was", async () => {
    const poisoned = await open({ debug: "poison" });
    for (const drafts of [1, 3]) expectSame(await runTogether(poisoned, works({}, [drafts])), "greedy");
    const runner = await open();
    expectSame(await runTogether(runner, works({}, [2])), "greedy");
    runner.poisonScratch();
    expectSame(await runTogether(runner, works({}, [2])), "greedy");
  });

  it("is the same over a packed latent cache, which the draft head writes and reads too", async () => {
    const without = await open({ cacheDType: "fp8", maxDrafts: 0 });
    const want = await runTogether(without, works({}, [0]));
    expect(want.map(({ drawn }) => drawn)).not.toEqual(alone.get("greedy")!.map(({ drawn }) => drawn));
    const runner = await open({ cacheDType: "fp8", debug: "poison" });
    for (const drafts of [1, 3]) {
      const got = await runTogether(runner, works({}, [drafts], { chunk: 7 }));
      for (const [i, run] of got.entries()) {
        expect(run.drawn, `prompt ${i}, ${drafts} drafts`).toEqual(want[i]!.drawn);
        expect(run.experts, `prompt ${i}, ${drafts} drafts`).toEqual(want[i]!.experts);
      }
      expect(got[0]!.steps).toBeLessThan(want[0]!.steps);
    }
  });

  it("fills its blocks to the end, whatever is drafted beyond", async () => {
    const runner = await open();
    const work = (drafts: number[]): Work => ({ prompt: prompt(44, 3), count: 20, drafts });
    const [want] = await runTogether(runner, [work([0])]);
    expect(want!.drawn).toHaveLength(20);
    for (const drafts of [1, 2, 3, 4]) {
      const [got] = await runTogether(runner, [work([drafts])]);
      expect(got!.drawn, `${drafts} drafts`).toEqual(want!.drawn);
    }
  });
});

describe("a verified token", () => {
  it("has the model's own distribution: chi-square over seeds", async () => {
    const runner = await open({ maxDrafts: 1 });
    const { maxSequences } = runner.limits;
    const [ROUNDS, TOP, TEMPERATURE] = [40, 4, 12];
    const tokens = [...GOLDEN_PROMPTS].sort((a, b) => a.length - b.length)[0]!;
    const [{ drawn: greedily }] = (await runTogether(runner, [{ prompt: tokens, count: 1, drafts: [0] }])) as [Run];
    // The first token is given; the second is drawn from its TOP best, in the step that verifies a draft of it.
    const sampling = { ...GREEDY, temperature: TEMPERATURE, topK: TOP, logprobs: TOP };
    const counts = new Map<number, number>();
    let best: { token: number; logprob: number }[] = [];
    let [total, accepted] = [0, 0];
    for (let round = 0; round < ROUNDS; round++) {
      const all = Array.from({ length: maxSequences }, (_, slot): Work => {
        const seed = 1000 + round * maxSequences + slot;
        return { prompt: tokens, count: 2, sampling: { ...sampling, seed }, drafts: [1], forceFirst: greedily[0]!.token };
      });
      for (const { drawn, rows } of await runTogether(runner, all)) {
        best = drawn[1]!.top;
        counts.set(drawn[1]!.token, (counts.get(drawn[1]!.token) ?? 0) + 1);
        total++;
        accepted += rows - 1;
      }
    }
    expect(accepted / total).toBeGreaterThan(0.1);
    expect(accepted / total).toBeLessThan(0.95);
    const weight = (logprob: number) => Math.exp(logprob / TEMPERATURE);
    const mass = best.reduce((sum, { logprob }) => sum + weight(logprob), 0);
    const statistic = best.reduce((sum, { token, logprob }) => {
      const wanted = (total * weight(logprob)) / mass;
      return sum + ((counts.get(token) ?? 0) - wanted) ** 2 / wanted;
    }, 0);
    expect([...counts.keys()].every((token) => best.some((one) => one.token === token))).toBe(true);
    // Three degrees of freedom: 16.3 is passed once in a thousand times. The seeds are fixed.
    expect(statistic).toBeLessThan(16.3);
  });
});

describe("the draft head", () => {
  it("drafts what it foresees of the text as it is: its cache is right after rejected drafts and chunks", async () => {
    const runner = await open({ maxDrafts: 1 });
    for (const [i, tokens] of PROMPTS.slice(0, 3).entries()) {
      const [run] = await runTogether(runner, [{ prompt: tokens, count: TOKENS, drafts: [1], chunk: 7 }]);
      const text = [...tokens, ...run!.drawn.map(({ token }) => token)];
      const foreseen = await draftsOf(runner, text);
      // The newest token and, where the draft is right, one more a step.
      let steps = 0;
      for (let newest = tokens.length; newest < text.length - 1; steps++) newest += foreseen[newest + 1] === text[newest + 1] ? 2 : 1;
      expect(run!.steps, `prompt ${i}`).toBe(steps);
    }
  });

  /** At each position, the token that the draft head expects there, given the text before. */
  async function draftsOf(runner: Runner, text: readonly number[]): Promise<number[]> {
    const logits = (await trace(runner, text)).draftLogits!;
    const V = runner.limits.vocabulary;
    const drafts = Array.from({ length: text.length - 1 }, (_, t) => {
      const row = logits.subarray(t * V, (t + 1) * V);
      return row.indexOf(Math.max(...row));
    });
    return [-1, -1, ...drafts];
  }
});

describe("graphs", () => {
  it("are kept for the programs that were used last, and recorded again for others, with the same bits", async () => {
    const runner = await open();
    const [want] = alone.get("greedy")!;
    // Five programs a bucket, in four buckets.
    for (const size of [1, 2, 4, 8, 1])
      for (const drafts of [0, 1, 2, 3, 4]) {
        const runs = await runTogether(
          runner,
          Array.from({ length: size }, () => ({ prompt: PROMPTS[0]!, count: 16, drafts: [drafts] })),
        );
        for (const { drawn } of runs) expect(drawn).toEqual(want!.drawn.slice(0, 16));
        expect(runner.recordedGraphs).toBeLessThanOrEqual(MOST_GRAPHS);
      }
    expect(runner.recordedGraphs).toBe(MOST_GRAPHS);
  });
});

describe("steps in flight", () => {
  it("whose lengths are not known yet give what awaited steps give; those behind the last place give nothing", async () => {
    const runner = await open();
    const tokens = PROMPTS[0]!;
    const [want] = alone.get("greedy")!;
    const blocks = Math.ceil((tokens.length + TOKENS) / runner.limits.blockSize);
    const places = blocks * runner.limits.blockSize - tokens.length;
    runner.setSampling(0, { ...GREEDY, promptTokens: tokens });
    runner.setBlocks(
      0,
      0,
      Array.from({ length: blocks }, (_, i) => i),
    );
    await runner.room();
    const launched = [runner.launch([{ slot: 0, position: 0, tokens, sample: true, drafts: 2 }])];
    for (let i = 0; i < TOKENS + 16; i++) {
      await runner.room();
      launched.push(runner.launch([{ slot: 0, position: tokens.length, tokens: null, sample: true, drafts: 2 }]));
    }
    const results = (await Promise.all(launched)).flat();
    const drawn = results.flatMap((result) => result.drawn);
    expect(drawn.slice(0, TOKENS)).toEqual(want!.drawn);
    // One token behind each place, the first of them behind the prompt's last.
    expect(drawn).toHaveLength(places + 1);
    expect(results.at(-1)).toEqual({ drawn: [], ffnExperts: [] });
  });

  it("are refused more drafts than there may be", async () => {
    const runner = await open({ maxDrafts: 1 });
    await expect(runner.step([{ slot: 0, position: 0, tokens: null, sample: true, drafts: 2 }])).rejects.toThrow(
      "does not fit its program",
    );
    const without = await open({ maxDrafts: 0 });
    await expect(without.step([{ slot: 0, position: 0, tokens: null, sample: true, drafts: 1 }])).rejects.toThrow(
      "does not fit its program",
    );
  });
});

describe("a step that is cut", () => {
  /** Sequences over one long prefix, each with a block of its own: a step of them has more splits than the cache is thought to hold. */
  const [LENGTH, SHARED_BLOCKS, SEQUENCES] = [1000, 62, 14];
  /** Of each of mini's caches: 16 rows of 288 float32 numbers. */
  const [BLOCKS, BLOCK_BYTES] = [88, 16 * 288 * 4];
  const text = Array.from({ length: 40 }, () => GOLDEN_PROMPTS[1]!).flat();
  const tokens = text.slice(0, LENGTH);
  const slots = Array.from({ length: SEQUENCES }, (_, slot) => slot);

  /** Runs the prefix. */
  async function start(maxDrafts: number): Promise<Runner> {
    const runner = await open({ maxDrafts, cacheBytes: BLOCKS * (maxDrafts > 0 ? 10 : 8) * BLOCK_BYTES });
    const shared = SHARED_BLOCKS * runner.limits.blockSize;
    expect(runner.limits.numBlocks).toBe(BLOCKS);
    for (const slot of slots) {
      await runner.room();
      runner.setSampling(slot, { ...GREEDY, promptTokens: tokens });
      runner.setBlocks(slot, 0, [...Array.from({ length: SHARED_BLOCKS }, (_, i) => i), SHARED_BLOCKS + slot]);
      runner.setHistory(slot, tokens.slice(0, shared));
    }
    for (let at = 0; at < shared; at += 496) {
      const end = at + 496;
      await runner.step([{ slot: 0, position: at, tokens: tokens.slice(at, end), sample: false, following: tokens[end]! }]);
    }
    return runner;
  }
  /** The prompt's end, behind which each sequence goes on from another token. */
  const last = (slot: number, drafts: number): StepSequence => {
    const position = SHARED_BLOCKS * 16;
    return { slot, position, tokens: tokens.slice(position), sample: true, drafts, forceNext: text[LENGTH + slot]! };
  };
  const decode = (slot: number, drafts: number, position = LENGTH): StepSequence => ({
    slot,
    position,
    tokens: null,
    sample: true,
    drafts,
  });

  /** The prompt's end, a step with drafts of some, one with drafts of all; each step of all together, or of one after another. */
  async function run(maxDrafts: number, drafts: number, who: readonly number[], together: boolean): Promise<StepResult["drawn"][][]> {
    const runner = await start(maxDrafts);
    const step = async (sequences: StepSequence[]): Promise<StepResult["drawn"][]> => {
      const results: StepResult[] = [];
      for (const part of together ? [sequences] : sequences.map((one) => [one])) results.push(...(await runner.step(part)));
      return results.map(({ drawn }) => drawn);
    };
    await step(slots.map((slot) => last(slot, drafts)));
    const second = await step(slots.map((slot) => decode(slot, who.includes(slot) ? drafts : 0)));
    const third = await step(slots.map((slot) => decode(slot, Math.min(drafts, 1), LENGTH + second[slot]!.length)));
    return slots.map((slot) => [second[slot]!, third[slot]!]);
  }

  it("gives each sequence what it has alone, and as good drafts, whichever of them verify some", async () => {
    const plain = (await run(0, 0, [], false)).map((steps) => steps.flat());
    for (const [drafts, who] of [
      [1, [SEQUENCES - 1]],
      [2, [0]],
      [2, slots],
    ] as const) {
      const got = await run(2, drafts, who, true);
      for (const slot of slots) expect(got[slot]!.flat().slice(0, 2), `${drafts} drafts of ${who}, in ${slot}`).toEqual(plain[slot]);
      // A forced token is foreseen by nobody; what follows the next one is.
      for (const slot of slots) expect(got[slot]!.map((drawn) => drawn.length)).toEqual([1, 2]);
    }
  });
});

describe("a model with n-grams", () => {
  /** Lite's sizes, cut down until they run in milliseconds. */
  const SMALL_LITE = {
    ...{ ...shapeConfig("lite", 2), hiddenSize: 96, numHeads: 2, ffnHiddenSize: 128, expertFfnHiddenSize: 64, vocabSize: 512 },
    ...{ numExperts: 16, numZeroExperts: 8, topK: 4, qLoraRank: 32, kvLoraRank: 24, qkNopeHeadDim: 16, qkRopeHeadDim: 16, vHeadDim: 16 },
  };
  // Random weights foresee nothing, but of three ids that may come, often the right one.
  const biased = { ...GREEDY, temperature: 1, seed: 5, logitBias: new Map([3, 4, 5].map((id) => [id, 60])) };

  it("forgets rejected drafts, in its n-grams too", async () => {
    const options = { device: "cpu", threads: 2, maxSequences: 4, maxBatchTokens: 64, contextLength: 96, maxDrafts: 3 };
    const { runner, close } = await openRandomModel({ config: SMALL_LITE, dtype: "float32", draftHead: true }, options);
    opened.push({ close });
    const work = (seed: number, drafts: number[]): Work => ({ prompt: prompt(9, seed), count: 48, sampling: { ...biased, seed }, drafts });
    const want = await runTogether(runner, [work(1, [0]), work(2, [0])]);
    for (const drafts of [[1], [2], [3], [3, 0, 1]]) {
      const got = await runTogether(runner, [work(1, drafts), work(2, drafts)]);
      expect(got.map(({ drawn }) => drawn)).toEqual(want.map(({ drawn }) => drawn));
      expect(got[0]!.steps).toBeLessThan(want[0]!.steps);
    }
  });
});
