/**
 * A model whose experts are shared out among GPUs of one host, a rank each, all in this process: what each answers is what one GPU answers, in the
 * same bits whatever the others do, however the rows travel.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, it } from "node:test";
import { ControlWord, type ModelParallel } from "../../ts/model/exchange.js";
import { openModel } from "../../ts/model/open.js";
import type { Runner } from "../../ts/model/runner.js";
import { trace } from "../../ts/model/trace.js";
import { comparable, goldenCases, greedy, logitNoise } from "../helpers/goldens.js";
import { type ModelName, modelPath, ROOT } from "../helpers/paths.js";
import { Ranks } from "../helpers/ranks.js";
import { batch, bits, farthest, prompt, staggered, tokens } from "../helpers/runs.js";
import { runTogether } from "../helpers/speculation.js";
import { describeOnGpus, GPU_MODEL_OPTIONS } from "./gpu.js";

const STEPS = 12;

type Options = Exclude<Parameters<typeof Ranks.open>[2], (rank: number) => unknown>;

/** Opens ranks, which are closed when the suite ends. Call it in a suite. */
function rankModels() {
  const opened: Ranks[] = [];
  after(async () => {
    for (const ranks of opened.splice(0)) await ranks.close();
  });
  return async (
    name: ModelName,
    count: number,
    { exchange, ...options }: Options & Pick<ModelParallel, "exchange"> = {},
  ): Promise<Ranks> => {
    const { dispatchDType, ...rest } = options;
    const ranks = await Ranks.openWith(count, (parallel) =>
      openModel(modelPath(name), {
        ...{ ...GPU_MODEL_OPTIONS, ...rest, device: `cuda:${parallel.rank}` },
        parallel: { ...parallel, exchange, dispatchDType },
      }),
    );
    opened.push(ranks);
    return ranks;
  };
}

/** What a rank answers to some prompts, in batches or one after another, as its number says. */
async function answers(runner: Runner, rank: number): Promise<ReturnType<typeof bits>[]> {
  const prompts = [1, 13, 16, 65, 129].map((length) => prompt(length, length));
  if (rank % 3 === 1) return (await batch(runner, prompts, STEPS)).map(bits);
  if (rank % 3 === 2) return (await staggered(runner, prompts, STEPS, 7)).map(bits);
  const all = [];
  for (const one of prompts) all.push(bits(await greedy(runner, one, STEPS, { logprobs: 5 })));
  return all;
}

for (const count of [2, 4, 8]) {
  describeOnGpus(count, "mini in float32", () => {
    const open = rankModels();

    it("continues every recorded prompt as recorded, those of all ranks at once", async () => {
      const ranks = await open("mini", count, { dtype: "float32" });
      const cases = goldenCases(join(ROOT, "test/fixtures/mini"));
      const results = await ranks.run(
        ranks.runners.map(() => async (runner: Runner, rank: number) => {
          const continued: number[][] = [];
          for (const i of cases.keys()) {
            const c = (i + rank) % cases.length;
            continued[c] = tokens(await greedy(runner, cases[c]!.prompt_ids, comparable(cases[c]!)));
          }
          return continued;
        }),
      );
      for (const [rank, continued] of results.entries())
        for (const [c, golden] of cases.entries())
          assert.deepEqual(continued![c], golden.greedy_ids.slice(0, comparable(golden)), `case ${c} on rank ${rank}`);
    });
  });

  describeOnGpus(count, "mini in bfloat16", () => {
    const open = rankModels();

    it("is no further from the float32 goldens than one GPU may be", async () => {
      const ranks = await open("mini", count);
      const { max, mean } = await ranks.alone(count - 1, (runner) => logitNoise(runner, join(ROOT, "test/fixtures/mini")));
      console.log(`mini on ${count} GPUs: logits off by at most ${max}, ${mean} on average`);
      assert.ok(max > 0 && max <= 0.6, `at most ${max}`);
      assert.ok(mean <= 0.037, `on average ${mean}`);
    });

    for (const dispatchDType of ["auto", "fp8"] as const)
      it(`gives the same bits on every rank, alone and beside others, again and again, through windows and NCCL; rows as ${dispatchDType}`, async () => {
        let alone: ReturnType<typeof bits>[] | undefined;
        for (const exchange of ["peer", "nccl"] as const) {
          const ranks = await open("mini", count, { dispatchDType, exchange });
          alone ??= await ranks.alone(0, (runner) => answers(runner, 0));
          for (const hasty of [false, true, false]) {
            ranks.hasty = hasty;
            for (const [rank, all] of (await ranks.run(ranks.runners.map(() => answers))).entries())
              assert.deepEqual(all, alone, `${exchange}, rank ${rank}`);
          }
        }
      });

    it("with drafts on some ranks gives the bits that it gives without", async () => {
      const ranks = await open("mini", count, { maxDrafts: 3 });
      const works = (drafts: number[]) => [prompt(30, 1), prompt(7, 2)].map((text) => ({ prompt: text, count: 24, drafts }));
      const want = await ranks.alone(0, (runner) => runTogether(runner, works([0])));
      const runs = await ranks.run(ranks.runners.map((_, rank) => (runner: Runner) => runTogether(runner, works([rank % 4]))));
      for (const [rank, run] of runs.entries())
        assert.deepEqual(
          run!.map(({ drawn }) => drawn),
          want.map(({ drawn }) => drawn),
          `rank ${rank}`,
        );
    });
  });
}

describeOnGpus(2, "tiny-a", () => {
  const open = rankModels();

  it("has one GPU's logits and routing, to within the order of sums", async () => {
    const text = prompt(100, 3);
    const alone = await openModel(modelPath("tiny-a"), GPU_MODEL_OPTIONS);
    const want = await trace(alone.runner, text);
    await alone.close();
    const ranks = await open("tiny-a", 2, { debug: "poison" });
    for (const got of await ranks.run([0, 1].map(() => (runner: Runner) => trace(runner, text)))) {
      for (const [l, { ids }] of want.routing.entries()) assert.deepEqual(got!.routing[l]!.ids, ids);
      assert.ok(farthest(got!.logits, want.logits) < 1e-4);
    }
  });

  it("goes through NCCL, with memory planned for it, where one GPU does not reach another one's memory", async () => {
    const ranks = await Ranks.openWith(2, (parallel) => {
      const gather: ModelParallel["gather"] = async (name, bytes) => {
        const all = await parallel.gather(name, bytes);
        return name === "windows to try" && parallel.rank === 1 ? [new Uint8Array(all[0]!.length), all[1]!] : all;
      };
      return openModel(modelPath("tiny-a"), { ...GPU_MODEL_OPTIONS, device: `cuda:${parallel.rank}`, parallel: { ...parallel, gather } });
    });
    try {
      const peer = await open("tiny-a", 2, { exchange: "peer" });
      for (const [rank, { runner, sizes }] of ranks.models.entries()) {
        assert.ok(runner.exchange!.nccl, `rank ${rank}`);
        assert.equal(sizes.windowBytes, 2 * peer.models[rank]!.sizes.windowBytes);
      }
      const work = (runner: Runner) => greedy(runner, prompt(9, 1), STEPS, { logprobs: 5 });
      assert.deepEqual(bits(await ranks.alone(0, work)), bits(await peer.alone(0, work)));
    } finally {
      await ranks.close();
    }
  });

  it("ends a step with COMM_ERROR when it is told to give up waiting", async () => {
    const ranks = await open("tiny-a", 2);
    const [runner, silent] = ranks.runners as [Runner, Runner];
    silent.join = () => Promise.resolve();
    const step = ranks.alone(0, (one) => greedy(one, prompt(9, 1), 1));
    setTimeout(() => runner.exchange!.control.set(ControlWord.giveUp, 1), 1500);
    setTimeout(() => assert.equal(runner.exchange!.control.get(ControlWord.waitsFor), 2), 1400);
    await assert.rejects(step, { code: "COMM_ERROR" });
  });
});
