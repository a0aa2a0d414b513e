/**
 * How ranks that share out a model's experts keep together: rounds, what each rank has, failures.
 */
import { join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import { LongcatError } from "../../ts/errors.js";
import { ControlWord, type Exchange, failureOf, giveUp, type ModelParallel } from "../../ts/model/exchange.js";
import { openModel } from "../../ts/model/open.js";
import { checkRing, type Runner } from "../../ts/model/runner.js";
import { copyModel, editTensors, type FileTensor, modelPath } from "../helpers/fixtures.js";
import { greedy, takeSlot } from "../helpers/goldens.js";
import { refused } from "../helpers/mini.js";
import { TEST_MODEL_OPTIONS } from "../helpers/models.js";
import { Ranks } from "../helpers/ranks.js";
import { batch, bits, farthest, prompt, staggered, tokens } from "../helpers/runs.js";
import { openAlone, openRanks } from "./open-ranks.js";

const STEPS = 10;

describe("a round", () => {
  it("of prompts is run by ranks that decode, and by those that have nothing", async () => {
    const ranks = await openRanks(modelPath("tiny-a"), 7);
    const [want] = await batch((await openAlone(modelPath("tiny-a"))).runner, [prompt(20, 1)], STEPS);
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

  it("may leave out ranks that are busy: they join in between, and nothing of theirs changes", async () => {
    const ranks = await openRanks(modelPath("mini"), 3, { maxDrafts: 1 });
    const work = (runner: Runner) => staggered(runner, [prompt(30, 1), prompt(5, 2), prompt(17, 3)], STEPS, 7);
    const alone = (await ranks.alone(0, work)).map(bits);
    ranks.hasty = true;
    const { length: before } = ranks.rounds;
    for (const results of await ranks.run([work, work, work])) expect(results!.map(bits)).toEqual(alone);
    const rounds = ranks.rounds.slice(before).map(({ who }) => who);
    expect(rounds.some((who) => who.length < 3)).toBe(true);
    expect(new Set(rounds.flat())).toEqual(new Set([0, 1, 2]));
  });

  it("is entered while those before it are under way", async () => {
    const ranks = await openRanks(modelPath("tiny-a"), 2);
    const want = await ranks.alone(0, (runner) => greedy(runner, prompt(9, 1), STEPS, { logprobs: 5 }));
    // Steps that are launched before the results of those before them are there, as the engine does.
    const launched = async (runner: Runner) => {
      takeSlot(runner, 0, 0, 9 + STEPS, 5);
      const results = [];
      for (let i = 0; i < STEPS; i++) {
        await runner.room();
        results.push(runner.launch([{ slot: 0, position: i && 8 + i, tokens: i === 0 ? prompt(9, 1) : null, sample: true }]));
      }
      return (await Promise.all(results)).flat();
    };
    for (const results of await ranks.run([launched, launched])) expect(bits(results!)).toEqual(bits(want));
    expect(ranks.rounds.length).toBe(2 * STEPS);
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
    // Rows over shared blocks: more splits than the cache is thought to hold. Of each of mini's eight caches 16 rows of 288 float32 numbers.
    const [LENGTH, BLOCKS, SEQUENCES] = [1000, 88, 14];
    const ranks = await openRanks(modelPath("mini"), 2, { cacheBytes: BLOCKS * 8 * 16 * 288 * 4 });
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
      ["tiny-a", 5, "14 experts cannot be shared out evenly among as many ranks; give one of 1, 2, 7, 14"],
      ["mini", 16, "24 experts cannot be shared out evenly among as many ranks; give one of 1, 2, 3, 4, 6, 8, 12, 24"],
    ] as const)
      await expect(Ranks.open(modelPath(name), count)).rejects.toThrow(
        refused("OPTION_INVALID", `parallel.expert: ${count} is not accepted: ${accepted}`),
      );
  });

  it("on the CPU is on one host with all others, and exchanges through its memory", async () => {
    const open = (options: Partial<ModelParallel>) =>
      Ranks.openWith(2, (parallel) => openModel(modelPath("tiny-a"), { ...TEST_MODEL_OPTIONS, parallel: { ...parallel, ...options } }));
    await expect(open({ exchange: "nccl" })).rejects.toThrow(refused("OPTION_INVALID", 'parallel.exchange: "nccl" needs GPUs'));
    await expect(open({ ranksOnHost: 1 })).rejects.toThrow(
      refused(
        "OPTION_INVALID",
        "ranks on the CPU write into one another's memory and must be on one host: 1 of 2 are on this one, as LOCAL_WORLD_SIZE says, or what the launcher sets instead",
      ),
    );
  });

  it("that cannot reach another one's window fails, and so does the other", async () => {
    const failures: unknown[] = [];
    const opening = Ranks.openWith(2, async (parallel) => {
      const gather: ModelParallel["gather"] = async (name, bytes) => {
        const all = await parallel.gather(name, bytes);
        return name === "windows" && parallel.rank === 0 ? [all[0]!, new Uint8Array(all[1]!.length)] : all;
      };
      try {
        return await openModel(modelPath("tiny-a"), { ...TEST_MODEL_OPTIONS, parallel: { ...parallel, gather } });
      } catch (error) {
        failures[parallel.rank] = error;
        throw error;
      }
    });
    await expect(opening).rejects.toThrow(refused("COMM_ERROR"));
    expect(failures).toEqual([refused("COMM_ERROR", "rank 1"), refused("COMM_ERROR", "rank 0 cannot open the windows of all others")]);
  });

  it("counts its window among what it allocates, and its share of the host's memory as what is there", async () => {
    const ranks = await openRanks(modelPath("tiny-a"), 2);
    const alone = await openAlone(modelPath("tiny-a"));
    for (const { runner, sizes } of ranks.models) {
      const { windowBytes, scratchBytes, allocatedBytes } = sizes;
      // 2 · 512 rows of 96 numbers that come, with 5 experts and their weights, and as many sums; a header before them.
      expect(windowBytes).toBe(64 * 1024 + 2 * 512 * (96 * 4 + 2 * 5 * 4 + 96 * 4));
      expect(scratchBytes).toBeGreaterThan(alone.sizes.scratchBytes);
      expect(allocatedBytes - windowBytes - scratchBytes).toBe(alone.sizes.allocatedBytes - alone.sizes.scratchBytes);
      const extra = runner.device.allocatedBytes - allocatedBytes;
      // The rotation's frequencies, the ring, the threads' scratch.
      expect(extra).toBeGreaterThanOrEqual(0);
      expect(extra).toBeLessThan(64 * 1024);
    }
    const tight = Ranks.open(modelPath("tiny-a"), 2, { availableBytes: 1e6 });
    await expect(tight).rejects.toThrow(refused("OUT_OF_MEMORY", `window of the exchange ${ranks.models[0]!.sizes.windowBytes}, `));
  });

  it("is refused other sizes than the rest, and has the smallest cache of all", async () => {
    const differing = Ranks.open(modelPath("tiny-a"), 2, (rank) => ({ maxBatchTokens: 512 - rank }));
    await expect(differing).rejects.toThrow(refused("COMM_ERROR", "maxBatchTokens is 512 on rank 0, 511 on rank 1"));
    const ranks = await openRanks(modelPath("tiny-a"), 2, (rank) => ({ cacheBytes: (2 - rank) * 2 ** 20 }));
    const [first, second] = ranks.runners.map(({ limits }) => limits);
    expect(first).toEqual(second);
    expect(ranks.models[0]!.sizes.cacheBytes).toBeLessThanOrEqual(2 ** 20);
  });

  it("fails its step when it is told to give up waiting", async () => {
    const ranks = await openRanks(modelPath("tiny-a"), 2);
    const [runner, silent] = ranks.runners as [Runner, Runner];
    // Rank 1 does not come.
    silent.join = () => Promise.resolve();
    const step = ranks.alone(0, (one) => greedy(one, prompt(9, 1), 1));
    setTimeout(() => runner.exchange!.control.set(ControlWord.giveUp, 1), 50);
    await expect(step).rejects.toThrow(refused("COMM_ERROR"));
    await runner.room();
  });

  const text = prompt(9, 1);
  const scored = { slot: 0, position: 0, tokens: text, sample: false, scoreTargets: text };
  it.each<[string, (runner: Runner) => Promise<unknown>]>([
    ["a step's draws", (runner) => greedy(runner, text, 1)],
    ["scores", (runner) => runner.step([scored])],
    ["a block", (runner) => runner.readBlock(0)],
  ])("believes nothing of %s that is there when its exchange was given up", async (_, work) => {
    const ranks = await openRanks(modelPath("tiny-a"), 2);
    const { control } = ranks.runners[0]!.exchange!;
    // A GPU's kernels just end when they are told to give up waiting. The CPU's would fail: they are not told.
    const said = vi.spyOn(control, "get").mockReturnValue(0);
    await ranks.alone(0, work);
    said.mockImplementation((word) => Number(word === ControlWord.giveUp));
    await expect(ranks.alone(0, work)).rejects.toThrow(refused("COMM_ERROR", "the exchange was given up while waiting for "));
    await expect(ranks.alone(0, work)).rejects.toThrow(refused("COMM_ERROR", "this rank has lost step with the others: the exchange was"));
  });

  it("believes nothing that comes through NCCL once that has noticed a failure", () => {
    const exchange = (failure: string | null) =>
      ({ control: { get: () => 0 }, nccl: { communicator: { failure: () => failure } } }) as unknown as Exchange;
    expect(failureOf(exchange(null))).toBeUndefined();
    expect(failureOf(exchange("unhandled system error"))).toEqual(refused("COMM_ERROR", "unhandled system error"));
  });

  it("fails what is under way with a reason, the first of several", async () => {
    const ranks = await openRanks(modelPath("tiny-a"), 2);
    const [runner, silent] = ranks.runners as [Runner, Runner];
    silent.join = () => Promise.resolve();
    const step = ranks.alone(0, (one) => greedy(one, prompt(9, 1), 1));
    setTimeout(() => {
      runner.giveUp(new LongcatError("COMM_ERROR", "rank 1 is lost"));
      runner.giveUp(new LongcatError("COMM_ERROR", "so am I"));
    }, 50);
    await expect(step).rejects.toThrow(refused("COMM_ERROR"));
    const late = ranks.alone(0, (one) => greedy(one, prompt(9, 1), 1));
    await expect(late).rejects.toThrow(refused("COMM_ERROR", "this rank has lost step with the others: rank 1 is lost"));
  });

  it("takes part in no more rounds behind one that failed: its exchanges would be taken for others", async () => {
    const ranks = await openRanks(modelPath("tiny-a"), 2, (rank) => (rank === 0 ? { faultOn: "swiglu_mlp" } : {}));
    const [first, second] = ranks.runners as [Runner, Runner];
    const work = (runner: Runner) => greedy(runner, prompt(9, 1), 1);
    const waiting = second.join({ kind: "prompt", sequences: 1, drafts: 0, round: 0 });
    second.join = () => Promise.resolve();
    await expect(ranks.alone(0, work)).rejects.toThrow(refused("INTERNAL", "swiglu_mlp"));
    const late = refused("COMM_ERROR", "this rank has lost step with the others: ");
    await expect(ranks.alone(0, work)).rejects.toThrow(late);
    expect(ranks.rounds).toHaveLength(1);
    await expect(first.join({ kind: "prompt", sequences: 1, drafts: 0, round: 1 })).rejects.toThrow(late);
    giveUp(second.exchange!);
    await expect(waiting).rejects.toThrow(refused("COMM_ERROR"));
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
