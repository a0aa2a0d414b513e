/** Drafts on a GPU, one replay a step: tokens, log-probabilities and routing are those without drafts. Bits, not tolerances. */
import assert from "node:assert/strict";
import { it } from "node:test";
import type { Runner } from "../../ts/model/runner.js";
import type { SlotSampling } from "../../ts/model/runner-types.js";
import { prompt } from "../helpers/runs.js";
import { GREEDY, runTogether, type Work } from "../helpers/speculation.js";
import { describeOnGpu, models, quantizedMini } from "./gpu.js";

const TOKENS = 32;
const WAYS: [string, Partial<SlotSampling>][] = [
  ["greedy", {}],
  ["temperature", { temperature: 0.8, seed: 11 }],
  ["topP", { temperature: 1, topP: 0.9, seed: 12 }],
  ["penalties", { temperature: 0.7, topK: 50, repetitionPenalty: 1.3, presencePenalty: 0.4, frequencyPenalty: 0.2, seed: 14 }],
];

/** Repeated ids, which the model continues; and ids without sense. */
const PROMPTS = [Array.from({ length: 40 }, (_, i) => 20 + (i % 5)), prompt(17, 1), prompt(129, 2)];

function works(sampling: Partial<SlotSampling>, drafts: readonly number[], chunk?: number): Work[] {
  return PROMPTS.map((tokens) => ({
    prompt: tokens,
    count: TOKENS,
    sampling: { ...GREEDY, ...sampling },
    drafts,
    ...(chunk && { chunk }),
  }));
}

/** Without the numbers of steps, which drafts are there to change. */
async function outputs(runner: Runner, all: readonly Work[]) {
  return (await runTogether(runner, all)).map(({ drawn, experts }) => ({ drawn, experts }));
}

for (const name of ["mini", "mini in float32", "mini-fp8", "mini with a packed cache"] as const)
  describeOnGpu(`${name} with drafts`, () => {
    const { open } = models();
    const fp8 = quantizedMini();
    const runnerOf = async (maxDrafts: number, options: Parameters<typeof open>[1] = {}) => {
      const dtype = {
        ...(name === "mini in float32" && { dtype: "float32" as const }),
        ...(name === "mini with a packed cache" && { cacheDType: "fp8" as const }),
      };
      return (await open(name === "mini-fp8" ? { dir: await fp8() } : "mini", { maxDrafts, ...dtype, ...options })).runner;
    };

    it("draws the same, alone, beside others, and with the prompts in chunks", async () => {
      const [without, runner] = [await runnerOf(0), await runnerOf(4)];
      for (const [way, sampling] of WAYS) {
        const want = await outputs(without, works(sampling, [0]));
        for (const drafts of [1, 2, 3, 4]) {
          for (const [i, work] of works(sampling, [drafts]).entries())
            assert.deepEqual(await outputs(runner, [work]), [want[i]], `${way}, prompt ${i}, ${drafts} drafts`);
          assert.deepEqual(await outputs(runner, works(sampling, [drafts])), want, `${way}, together, ${drafts} drafts`);
        }
        assert.deepEqual(await outputs(runner, works(sampling, [2, 0, 4, 1], 7)), want, `${way}, in chunks`);
      }
    });

    it("accepts some, and replays one graph a step", async () => {
      const runner = await runnerOf(1);
      const [run] = await runTogether(runner, works({}, [1]).slice(0, 1));
      console.log(`${name}: ${TOKENS} tokens in ${run!.steps} steps of two rows`);
      assert.ok(run!.steps < TOKENS - 1);
      assert.equal(runner.recordedGraphs, 1);
    });

    it("draws the same with outputs poisoned", async () => {
      const want = await outputs(await runnerOf(0), works({}, [0]));
      assert.deepEqual(await outputs(await runnerOf(3, { debug: "poison" }), works({}, [3])), want);
    });

    it("draws the same with steps launched before the results of those before are there", async () => {
      const runner = await runnerOf(2);
      const [work] = works({}, [0]) as [Work];
      const [want] = await outputs(runner, [work]);
      const { length } = work.prompt;
      const blocks = Math.ceil((length + TOKENS) / runner.limits.blockSize);
      runner.setSampling(0, { ...GREEDY, promptTokens: work.prompt });
      runner.setBlocks(
        0,
        0,
        Array.from({ length: blocks }, (_, i) => i),
      );
      await runner.room();
      const launched = [runner.launch([{ slot: 0, position: 0, tokens: work.prompt, sample: true, drafts: 2 }])];
      for (let step = 0; step < TOKENS + 16; step++) {
        await runner.room();
        launched.push(runner.launch([{ slot: 0, position: length, tokens: null, sample: true, drafts: 2 }]));
      }
      const results = (await Promise.all(launched)).flat();
      assert.deepEqual(results.flatMap(({ drawn }) => drawn).slice(0, TOKENS), want!.drawn);
      assert.deepEqual(results.at(-1), { drawn: [], ffnExperts: [] });
    });
  });
