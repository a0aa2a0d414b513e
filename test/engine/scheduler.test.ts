/** The scheduler against a runner that checks every step, on drawn requests. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { BlockManager } from "../../ts/engine/block-manager.js";
import { DraftPolicy } from "../../ts/engine/draft-policy.js";
import { CHAIN_START, chainDigest, type PrefixCacheMode } from "../../ts/engine/prefix-cache.js";
import { type Admission, type Batch, Scheduler } from "../../ts/engine/scheduler.js";
import { Sequence } from "../../ts/engine/sequence.js";
import type { RunnerLimits, SlotSampling, StepSequence } from "../../ts/model/runner-types.js";
import { FAKE_LIMITS, FakeRunner, hashNext, rightShare } from "./fake-runner.js";

const sampling = (promptTokens: readonly number[], seed = 0): SlotSampling => ({
  ...{ temperature: 1, topP: 1, topK: 0, minP: 0, repetitionPenalty: 1, presencePenalty: 0, frequencyPenalty: 0 },
  ...{ seed, logprobs: -1, logitBias: new Map(), promptTokens },
});

interface Work {
  prompt: number[];
  maxNewTokens: number;
  n: number;
}

/** The sequences of a request, and the tokens that each gets. */
function request({ prompt, maxNewTokens, n }: Work, onEnd: (sequence: Sequence) => void = () => undefined) {
  const siblings: Sequence[] = [];
  const outputs: number[][] = [];
  for (let i = 0; i < n; i++) {
    const tokens: number[] = [];
    outputs.push(tokens);
    const end = (ended: boolean) => {
      if (ended) onEnd(sequence);
      return ended;
    };
    const sequence: Sequence = new Sequence({
      ...{ prompt, maxNewTokens, sampling: sampling(prompt, i) },
      ...(n > 1 && { siblings }),
      onPrompt: (step) => end(maxNewTokens === 0 && step.position + (step.tokens?.length ?? 0) === prompt.length),
      onToken: ({ token }) => end(tokens.push(token) === maxNewTokens),
      onError: (error) => {
        throw error;
      },
    });
    siblings.push(sequence);
  }
  return { siblings, outputs };
}

/** What a sequence gives alone. */
function alone({ prompt, maxNewTokens }: Work, seed: number): number[] {
  const next = hashNext(FAKE_LIMITS.vocabulary);
  const history = [...prompt];
  for (let i = 0; i < maxNewTokens; i++) history.push(next(history, sampling(prompt, seed)));
  return history.slice(prompt.length);
}

/** FFN experts of so many positions, as the fake runner reports them. */
function fakeRouting(positions: number, { numLayers, topK }: RunnerLimits) {
  let experts = 0;
  for (let p = 0; p < positions; p++) for (let l = 0; l < numLayers; l++) experts += (p + l) % (topK + 1);
  return { tokens: positions, experts };
}

/** Does with a batch what the engine does, and runs it with some after it that can be scheduled before it is reported, `depth` at a time. */
async function step(scheduler: Scheduler, runner: FakeRunner, depth = 1): Promise<Batch> {
  const batch = scheduler.schedule();
  for (const { sequence, blocks } of batch.evicted)
    if (blocks.length > 0) sequence.saved = Promise.all(blocks.map((block) => runner.readBlock(block)));
  for (const admission of batch.admitted) await place(runner, admission);
  extend(runner, batch);
  scheduler.begin(batch);
  if (batch.entries.length === 0) return batch;
  const underWay = [{ batch, results: runner.launch(batch.entries.map((entry) => entry.step)) }];
  let ahead = 0;
  const launchAhead = () => {
    while (underWay.length > 0 && underWay.length <= depth && ahead < 2 * depth) {
      const next = scheduler.scheduleAhead(underWay.at(-1)!.batch);
      if (!next) return;
      ahead += 1;
      extend(runner, next);
      scheduler.begin(next);
      underWay.push({ batch: next, results: runner.launch(next.entries.map((entry) => entry.step)) });
    }
  };
  launchAhead();
  while (underWay.length > 0) {
    const { batch: over, results } = underWay[0]!;
    const there = await results;
    scheduler.take(over, there);
    underWay.shift();
    launchAhead();
    scheduler.report(over, there);
  }
  return batch;
}

async function place(runner: FakeRunner, { sequence, known, restore, fork }: Admission): Promise<void> {
  await runner.room();
  const saved = (restore && (await sequence.saved)) ?? [];
  runner.setSampling(sequence.slot, sequence.sampling, sequence.tokens);
  runner.setBlocks(sequence.slot, 0, sequence.blocks);
  if (known > 0) runner.setHistory(sequence.slot, sequence.tokensAt(0, known + (sequence.inPrompt ? 0 : 1)));
  if (fork?.copyBlock) runner.copyBlock(fork.copyBlock.from, fork.copyBlock.to);
  if (fork) runner.copyHistory(fork.fromSlot, sequence.slot, fork.length);
  await runner.room();
  for (let i = restore?.firstBlock ?? 0; i < saved.length; i++) runner.writeBlock(sequence.blocks[i] as number, saved[i] as Uint8Array);
  sequence.saved = undefined;
}

function extend(runner: FakeRunner, { grown }: Batch): void {
  for (const { sequence, firstBlock, blocks } of grown) runner.setBlocks(sequence.slot, firstBlock, blocks);
}

/** A block belongs to two sequences only if both have its tokens and all before them in common; what nobody owns is free. */
function checkBlocks(scheduler: Scheduler): void {
  const owners = new Map<number, Sequence[]>();
  for (const sequence of scheduler.unfinished) {
    expect(new Set(sequence.blocks).size).toBe(sequence.blocks.length);
    for (const block of sequence.blocks) owners.set(block, [...(owners.get(block) ?? []), sequence]);
  }
  for (const [block, sequences] of owners) {
    const [first] = sequences as [Sequence];
    const end = (first.blocks.indexOf(block) + 1) * scheduler.blocks.blockSize;
    for (const other of sequences.slice(1)) {
      expect(other.blocks.indexOf(block)).toBe(first.blocks.indexOf(block));
      expect(Math.min(first.computed, other.computed)).toBeGreaterThanOrEqual(end);
      expect(other.tokensAt(0, end)).toEqual(first.tokensAt(0, end));
    }
  }
  expect(owners.size + scheduler.blocks.numFree).toBe(scheduler.blocks.numBlocks);
}

const MOST_POSITIONS = 60;
const COMMON = Array.from({ length: 30 }, (_, i) => (7 * i) % 50);

/** Prompts that often begin alike. */
const work = fc.record({
  prompt: fc
    .tuple(fc.nat(30), fc.array(fc.integer({ min: 0, max: 49 }), { minLength: 1, maxLength: 10 }))
    .map(([common, rest]) => [...COMMON.slice(0, common), ...rest]),
  maxNewTokens: fc.integer({ min: 0, max: 20 }),
  n: fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 6 })),
});
/** Room for one sequence at least, seldom for all that run. */
const limits = fc
  .record({
    maxSequences: fc.integer({ min: 1, max: 5 }),
    maxBatchTokens: fc.integer({ min: 1, max: 24 }),
    blockSize: fc.integer({ min: 1, max: 7 }),
    spare: fc.nat(12),
  })
  .map(({ spare, ...some }) => ({ ...some, numBlocks: Math.ceil(MOST_POSITIONS / some.blockSize) + spare, contextLength: 64 }));
/** Whether somebody who came earlier has four blocks in common with it: it may have waited for them, and been passed. */
function beginsAsAnother(
  { prompt, arrival }: Sequence,
  requests: readonly { siblings: Sequence[] }[],
  { blockSize }: RunnerLimits,
): boolean {
  const beginning = prompt.slice(0, 4 * blockSize).join();
  return requests.some(({ siblings: [other] }) => {
    if (other === undefined || other.arrival >= arrival || prompt.length <= 4 * blockSize) return false;
    return other.prompt.slice(0, 4 * blockSize).join() === beginning;
  });
}

const mode = fc.constantFrom<PrefixCacheMode>("on", "on", "all", "off");

/** How deep steps are launched ahead, how often the draft head is right, and how many drafts each step has, in turn. */
interface Drafting {
  /** Steps under way behind the one that runs. */
  depth: number;
  share: number;
  drafts: readonly number[];
}

const drafting: fc.Arbitrary<Drafting> = fc.record({
  depth: fc.nat(3),
  share: fc.constantFrom(0, 0.5, 0.9, 1),
  drafts: fc.oneof(
    fc.constant<readonly number[]>([0]),
    fc.integer({ min: 1, max: 4 }).map((drafts): readonly number[] => [drafts]),
    fc.array(fc.nat(4), { minLength: 2, maxLength: 5 }),
  ),
});

/** Another number of drafts in each step. */
class InTurn extends DraftPolicy {
  readonly #turns: readonly number[];
  #step = 0;

  constructor(turns: readonly number[]) {
    super(Math.max(...turns), false);
    this.#turns = turns;
  }

  override drafts(): number {
    return this.#turns[this.#step++ % this.#turns.length] as number;
  }
}

/** A runner and its scheduler. */
function make(limits: Partial<RunnerLimits>, cache: PrefixCacheMode, { share, drafts }: Drafting) {
  const policy = new InTurn(drafts);
  const runner = new FakeRunner({ ...limits, maxDrafts: Math.max(...drafts) });
  runner.pathsMatter = cache !== "all";
  runner.foresees = rightShare(share);
  return { runner, policy, scheduler: new Scheduler(runner.limits, cache, policy) };
}

describe("scheduler", () => {
  it("ends every request with the tokens it has alone, leaks no block, keeps budget, positions and order", async () => {
    let [hits, preemptions, mixed, accepted, rejected] = [0, 0, 0, 0, 0];
    await fc.assert(
      fc.asyncProperty(fc.array(work, { minLength: 1, maxLength: 8 }), limits, mode, drafting, async (works, some, cache, drafts) => {
        const { runner, scheduler, policy } = make(some, cache, drafts);
        const requests = works.map((one) => request(one));
        for (const { siblings } of requests) for (const sequence of siblings) scheduler.add(sequence);
        let started = -1;
        const seen = new Set<Sequence>();
        for (let steps = 0; scheduler.hasWork; steps++) {
          expect(steps).toBeLessThan(10_000);
          const { admitted, evicted, entries } = await step(scheduler, runner, drafts.depth);
          for (const { sequence } of admitted) {
            if (seen.has(sequence) || sequence.siblings || beginsAsAnother(sequence, requests, runner.limits)) continue;
            seen.add(sequence);
            expect(sequence.arrival).toBeGreaterThan(started);
            started = sequence.arrival;
          }
          for (const { sequence } of evicted) for (const entry of entries) expect(entry.sequence.arrival).toBeLessThan(sequence.arrival);
          checkBlocks(scheduler);
        }
        expect(scheduler.blocks.numFree).toBe(runner.limits.numBlocks);
        requests.forEach(({ outputs, siblings }, r) => {
          outputs.forEach((tokens, i) => {
            expect(tokens).toEqual(alone(works[r] as Work, i));
            const positions = siblings[i]!.prompt.length + Math.max(0, tokens.length - 1);
            expect(siblings[i]!.routing).toEqual(fakeRouting(positions, runner.limits));
          });
        });
        if (cache === "off") expect(scheduler.counters.prefixHitTokens).toBe(0);
        hits += scheduler.counters.prefixHitTokens;
        preemptions += scheduler.counters.preemptions;
        mixed += runner.steps.filter((entries) => entries[0]!.tokens !== null && entries.at(-1)!.tokens === null).length;
        const { draftTokens, acceptedTokens } = policy.stats;
        if (drafts.share === 0) expect(acceptedTokens).toBe(0);
        if (drafts.share === 1) expect(acceptedTokens).toBe(draftTokens);
        accepted += acceptedTokens;
        rejected += draftTokens - acceptedTokens;
      }),
      { numRuns: 300 },
    );
    expect(Math.min(hits, preemptions, mixed, accepted, rejected)).toBeGreaterThan(50);
  });

  it("gives everything back when sequences are aborted at any time, and the rest is as without them", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(work, { minLength: 2, maxLength: 8 }),
        limits,
        mode,
        drafting,
        fc.array(fc.tuple(fc.nat(20), fc.nat(), fc.boolean()), { minLength: 1, maxLength: 8 }),
        async (works, some, cache, drafts, aborts) => {
          const { runner, scheduler } = make(some, cache, drafts);
          const requests = works.map((one) => request(one));
          const all = requests.flatMap(({ siblings }) => siblings);
          const aborted = new Set<Sequence>();
          const abortAt = (step: number, inStep: boolean) => {
            for (const [at, which, during] of aborts) {
              const sequence = all[which % all.length] as Sequence;
              if (at !== step || during !== inStep || sequence.state === "ended") continue;
              aborted.add(sequence);
              scheduler.abort(sequence);
            }
          };
          runner.during = (number) => abortAt(number - 1, true);
          for (const sequence of all) scheduler.add(sequence);
          for (let steps = 0; scheduler.hasWork; steps++) {
            expect(steps).toBeLessThan(10_000);
            abortAt(steps, false);
            if (scheduler.hasWork) await step(scheduler, runner, drafts.depth);
            checkBlocks(scheduler);
          }
          expect(scheduler.blocks.numFree).toBe(runner.limits.numBlocks);
          requests.forEach(({ outputs, siblings }, r) => {
            outputs.forEach((tokens, i) => {
              if (!aborted.has(siblings[i] as Sequence)) expect(tokens).toEqual(alone(works[r] as Work, i));
            });
          });
        },
      ),
      { numRuns: 200 },
    );
  });

  it("starts sequences in the order they came", async () => {
    const runner = new FakeRunner({ maxSequences: 2 });
    const scheduler = new Scheduler(runner.limits);
    const ended: Sequence[] = [];
    const sequences = [3, 3, 3, 3, 3].flatMap(
      (length, i) =>
        request({ prompt: new Array<number>(length).fill(i), maxNewTokens: 4, n: 1 }, (sequence) => ended.push(sequence)).siblings,
    );
    for (const sequence of sequences) scheduler.add(sequence);
    while (scheduler.hasWork) await step(scheduler, runner);
    expect(ended).toEqual(sequences);
  });

  it("runs a shared prompt once when the choices fit", async () => {
    const runner = new FakeRunner();
    const scheduler = new Scheduler(runner.limits);
    const prompt = Array.from({ length: 11 }, (_, i) => i);
    for (const sequence of request({ prompt, maxNewTokens: 5, n: 4 }).siblings) scheduler.add(sequence);
    while (scheduler.hasWork) await step(scheduler, runner);
    const promptTokens = runner.steps.flat().reduce((sum, { tokens }) => sum + (tokens?.length ?? 0), 0);
    expect(promptTokens).toBe(10 + 4);
  });

  describe("a burst of prompts that begin alike", () => {
    const common = Array.from({ length: 20 }, (_, i) => i);
    const burst = async (prompts: number[][], cache: PrefixCacheMode) => {
      const runner = new FakeRunner({ maxSequences: 8, maxBatchTokens: 64, numBlocks: 100 });
      const scheduler = new Scheduler(runner.limits, cache);
      const works = prompts.map((prompt) => ({ prompt, maxNewTokens: 3, n: 1 }));
      const requests = works.map((one) => request(one));
      for (const { siblings } of requests) scheduler.add(siblings[0] as Sequence);
      const starts: number[][] = [];
      while (scheduler.hasWork) starts.push((await step(scheduler, runner)).admitted.map(({ sequence }) => sequence.arrival));
      expect(requests.map(({ outputs }) => outputs[0])).toEqual(works.map((one) => alone(one, 0)));
      return { starts: starts.filter((one) => one.length > 0), cached: requests.map(({ siblings }) => siblings[0]?.cachedTokens) };
    };

    it("runs the beginning once: the others wait for the first, and who begins otherwise passes them", async () => {
      const prompts = [
        [...common, 1],
        [...common, 2],
        [9, 9, 9],
        [...common, 3, 3],
      ];
      expect(await burst(prompts, "on")).toEqual({
        starts: [
          [0, 2],
          [1, 3],
        ],
        cached: [0, 20, 0, 20],
      });
      expect(await burst(prompts, "off")).toEqual({ starts: [[0, 1, 2, 3]], cached: [0, 0, 0, 0] });
    });

    it("does not wait for less than four blocks, nor behind a longer prompt that is not the oldest", async () => {
      expect((await burst([common.slice(0, 16), common.slice(0, 16)], "on")).starts).toEqual([[0, 1]]);
      const long = [...common, ...new Array<number>(30).fill(7)];
      expect((await burst([new Array<number>(50).fill(5), long, [...common, 1]], "on")).starts).toEqual([[0, 1, 2]]);
    });

    it("waits no longer when the one that runs it is aborted", async () => {
      const runner = new FakeRunner({ numBlocks: 100 });
      const scheduler = new Scheduler(runner.limits);
      const works = [1, 2].map((last) => ({ prompt: [...common, last], maxNewTokens: 3, n: 1 }));
      const [first, second] = works.map((one) => request(one));
      const sequences = [first, second].map((one) => one?.siblings[0] as Sequence);
      for (const sequence of sequences) scheduler.add(sequence);
      expect(scheduler.schedule().admitted.map(({ sequence }) => sequence)).toEqual([sequences[0]]);
      scheduler.abort(sequences[0] as Sequence);
      while (scheduler.hasWork) await step(scheduler, runner);
      expect(second?.outputs).toEqual([alone(works[1] as Work, 0)]);
      expect(sequences[1]?.cachedTokens).toBe(0);
    });
  });

  it("lets decoding sequences go on while a long prompt runs in chunks, in the same steps", async () => {
    const runner = new FakeRunner({ maxBatchTokens: 4 });
    const scheduler = new Scheduler(runner.limits);
    for (const sequence of request({ prompt: [1], maxNewTokens: 12, n: 1 }).siblings) scheduler.add(sequence);
    await step(scheduler, runner);
    for (const sequence of request({ prompt: new Array<number>(40).fill(2), maxNewTokens: 1, n: 1 }).siblings) scheduler.add(sequence);
    while (scheduler.hasWork) await step(scheduler, runner);
    const first = runner.steps.findIndex(([entry]) => entry?.tokens?.length === 3);
    const lengths = runner.steps.slice(first, first + 8).map((sequences) => sequences.map(({ tokens }) => tokens?.length ?? "decode"));
    expect(lengths).toEqual(new Array(8).fill([3, "decode"]));
  });

  it("lets short prompts pass a long one, which goes on meanwhile", async () => {
    const runner = new FakeRunner({ maxBatchTokens: 8, numBlocks: 64 });
    const scheduler = new Scheduler(runner.limits);
    const ended: number[] = [];
    [40, 40, 3, 2].forEach((length, i) => {
      const { siblings } = request({ prompt: new Array<number>(length).fill(i), maxNewTokens: 1, n: 1 }, () => ended.push(i));
      for (const sequence of siblings) scheduler.add(sequence);
    });
    while (scheduler.hasWork) {
      await step(scheduler, runner);
      const [oldest] = runner.steps.at(-1) as [StepSequence];
      expect(oldest.tokens?.length).toBeGreaterThanOrEqual(1);
    }
    expect(ended).toEqual([3, 2, 0, 1]);
  });

  it("takes turns between prompts and decodes where a step has one token", async () => {
    const runner = new FakeRunner({ maxBatchTokens: 1 });
    const scheduler = new Scheduler(runner.limits);
    for (const prompt of [[1], [2, 2, 2]])
      for (const sequence of request({ prompt, maxNewTokens: 4, n: 1 }).siblings) scheduler.add(sequence);
    while (scheduler.hasWork) await step(scheduler, runner);
    const kinds = runner.steps.slice(0, 6).map(([one]) => (one!.tokens === null ? "decode" : "prompt"));
    expect(kinds).toEqual(["prompt", "decode", "prompt", "decode", "prompt", "decode"]);
  });

  it("lets the youngest give way when blocks run out, and brings it back as soon as there is room", async () => {
    const runner = new FakeRunner({ numBlocks: 8, contextLength: 32 });
    const scheduler = new Scheduler(runner.limits, "off");
    const works = [1, 2].map((token) => ({ prompt: [token, token, token], maxNewTokens: 24, n: 1 }));
    const requests = works.map((one) => request(one));
    for (const { siblings } of requests) scheduler.add(siblings[0] as Sequence);
    const events: string[] = [];
    while (scheduler.hasWork) {
      const { evicted, admitted } = await step(scheduler, runner);
      for (const { sequence } of evicted) events.push(`${sequence.arrival} gives way`);
      for (const { sequence, restore } of admitted) events.push(`${sequence.arrival} ${restore ? "comes back" : "starts"}`);
    }
    expect(events).toEqual(["0 starts", "1 starts", "1 gives way", "1 comes back"]);
    expect(scheduler.counters.preemptions).toBe(1);
    expect(requests.map(({ outputs }) => outputs[0])).toEqual(works.map((one) => alone(one, 0)));
  });

  it("starts anew after a reset: whatever ran or waited has ended, and the next is as it would be alone", async () => {
    const runner = new FakeRunner({ maxSequences: 2 });
    const scheduler = new Scheduler(runner.limits);
    const lost = [1, 2, 3].flatMap((token) => request({ prompt: [token], maxNewTokens: 8, n: 1 }).siblings);
    for (const sequence of lost) scheduler.add(sequence);
    await step(scheduler, runner);
    scheduler.schedule(); // a step that is never over
    scheduler.reset();
    expect(scheduler.hasWork).toBe(false);
    for (const sequence of lost) {
      expect(sequence).toMatchObject({ state: "ended", slot: -1, blocks: [] });
      scheduler.abort(sequence); // as the request does that fails with it
    }
    checkBlocks(scheduler);
    const next = { prompt: [4, 5], maxNewTokens: 3, n: 2 };
    const { siblings, outputs } = request(next);
    for (const sequence of siblings) scheduler.add(sequence);
    while (scheduler.hasWork) await step(scheduler, runner);
    expect(outputs).toEqual([alone(next, 0), alone(next, 1)]);
    expect(scheduler.blocks.numFree).toBe(runner.limits.numBlocks);
  });

  it("schedules a step ahead before the last one is reported: without those that have drawn an end token, and not if one waits for their place", () => {
    const scheduler = new Scheduler({ ...FAKE_LIMITS, maxSequences: 2 });
    const endTokens = new Set([7]);
    const [ends, goesOn, waits] = [1, 2, 3].map(
      (token) =>
        new Sequence({
          ...{ prompt: [token], maxNewTokens: 8, sampling: sampling([token]), endTokens },
          ...{ onPrompt: () => false, onToken: ({ token }: { token: number }) => endTokens.has(token) },
          onError: () => undefined,
        }),
    ) as [Sequence, Sequence, Sequence];
    const results = (...tokens: number[]) =>
      tokens.map((token) => ({ drawn: [{ token, logprob: 0, top: [] }], ffnExperts: [new Uint8Array()] }));
    const take = (batch: Batch, ...tokens: number[]) => {
      scheduler.take(batch, results(...tokens));
      return batch;
    };
    const who = (batch: Batch | undefined) => batch?.entries.map(({ sequence }) => sequence);

    scheduler.add(ends);
    scheduler.add(goesOn);
    const first = scheduler.schedule();
    const second = scheduler.scheduleAhead(first) as Batch;
    expect(who(second)).toEqual([ends, goesOn]);
    take(first, 7, 8);
    const third = scheduler.scheduleAhead(second) as Batch;
    expect(who(third)).toEqual([goesOn]);
    scheduler.report(first, results(7, 8));
    expect(ends.state).toBe("ended");

    scheduler.add(waits);
    take(second, 9, 9);
    expect(scheduler.scheduleAhead(third)).toBeUndefined();
    scheduler.report(second, results(9, 9));
    scheduler.report(take(third, 9), results(9));
    expect(who(scheduler.schedule())).toEqual([waits, goesOn]);
  });

  it("counts no drafts that nobody made: of a step before which the only one ended who asked for any", () => {
    const policy = new DraftPolicy(2, false);
    const scheduler = new Scheduler({ ...FAKE_LIMITS, maxDrafts: 2 }, "on", policy);
    const [long, short] = [30, 5].map((maxNewTokens) => request({ prompt: [maxNewTokens], maxNewTokens, n: 1 }).siblings[0]) as [
      Sequence,
      Sequence,
    ];
    scheduler.add(long);
    scheduler.add(short);
    const draftsOf = (batch: Batch) => batch.entries.map(({ step, made }) => [step.drafts, made]);
    const over = (batch: Batch) => {
      const results = batch.entries.map(() => ({ drawn: [{ token: 3, logprob: 0, top: [] }], ffnExperts: [new Uint8Array()] }));
      scheduler.take(batch, results);
      scheduler.report(batch, results);
    };
    const first = scheduler.schedule();
    const second = scheduler.scheduleAhead(first) as Batch;
    const third = scheduler.scheduleAhead(second) as Batch;
    for (const batch of [first, second]) scheduler.begin(batch);
    expect([draftsOf(second), third.entries.map(({ step }) => step.drafts)]).toEqual([
      [
        [2, 2],
        [2, 2],
      ],
      [2, 0],
    ]);
    scheduler.abort(long);
    scheduler.begin(third);
    for (const batch of [first, second]) over(batch);
    const fourth = scheduler.scheduleAhead(third) as Batch;
    scheduler.begin(fourth);
    expect(draftsOf(fourth)).toEqual([[1, 0]]);
    for (const batch of [third, fourth]) over(batch);
    // Both drafts of each in the second step, and none since; what is taken of one that has ended is not counted.
    expect(policy.stats).toMatchObject({ draftTokens: 2, acceptedTokens: 0 });
  });

  it("lets a guided sequence sit out one step while others go on, where that costs less than to wait for it", () => {
    const make = (othersGoOn: boolean) => {
      const scheduler = new Scheduler(FAKE_LIMITS, "on", new DraftPolicy(2, false), () => othersGoOn);
      const [guided, free] = [1, 2].map(
        (token) =>
          new Sequence({
            ...{ prompt: [token], maxNewTokens: 30, sampling: sampling([token]), onPrompt: () => false, onToken: () => false },
            ...(token === 1 && { guide: { mask: () => new Int32Array(2) } }),
            onError: () => undefined,
          }),
      ) as [Sequence, Sequence];
      scheduler.add(guided);
      scheduler.add(free);
      const who = (batch: Batch | undefined) =>
        batch?.entries.map(({ sequence, step }) => `${sequence === guided ? "guided" : "free"} ${step.drafts}`);
      const over = (batch: Batch) => {
        const results = batch.entries.map(() => ({ drawn: [{ token: 3, logprob: 0, top: [] }], ffnExperts: [new Uint8Array()] }));
        scheduler.take(batch, results);
        return { report: () => scheduler.report(batch, results) };
      };
      return { scheduler, who, over };
    };

    const { scheduler, who, over } = make(true);
    const first = scheduler.schedule();
    const second = scheduler.scheduleAhead(first) as Batch;
    expect(who(second)).toEqual(["free 2"]);
    const { report } = over(first);
    expect(scheduler.scheduleAhead(second)).toBeUndefined();
    report();
    const third = scheduler.scheduleAhead(second) as Batch;
    expect(who(third)).toEqual(["guided 0", "free 2"]);
    expect(who(scheduler.scheduleAhead(third))).toEqual(["free 2"]);

    const together = make(false);
    const all = together.scheduler.schedule();
    expect(together.scheduler.scheduleAhead(all)).toBeUndefined();
    together.over(all).report();
    expect(together.who(together.scheduler.schedule())).toEqual(["guided 0", "free 2"]);
  });

  it.each([1, 2, 3])(
    "with %s steps behind the one that runs, n in all, reserves cache for n (d + 1) positions beyond those known, and leaves d less once one is over, at most",
    async (depth) => {
      const n = depth + 1;
      for (const drafts of [1, 2, 4]) {
        const runner = new FakeRunner({ ...{ maxDrafts: drafts, blockSize: 1, numBlocks: 200, contextLength: 200, maxBatchTokens: 64 } });
        const scheduler = new Scheduler(runner.limits, "off", new DraftPolicy(drafts, false));
        const [sequence] = request({ prompt: [1, 2], maxNewTokens: 150, n: 1 }).siblings as [Sequence];
        scheduler.add(sequence);
        let reserved = 0;
        let steps = 0;
        const left: number[] = [];
        runner.during = () => {
          // The step before is over: of what was reserved for all, it has used up what it has drawn.
          if (reserved > 0) left.push(reserved - sequence.computed);
          const all = sequence.generated > 0 && sequence.mostScheduled === sequence.computed + n * (drafts + 1);
          reserved = all ? sequence.blocks.length : 0;
          if (all) expect(reserved).toBe(sequence.mostScheduled);
          steps += Number(all);
        };
        while (scheduler.hasWork) await step(scheduler, runner, depth);
        expect(runner.mostUnderWay).toBe(n);
        expect(steps).toBeGreaterThan(5);
        expect(Math.min(...left)).toBeGreaterThanOrEqual(depth * (drafts + 1));
        expect(Math.max(...left)).toBeLessThanOrEqual(depth * (drafts + 1) + drafts);
      }
    },
  );

  it("refuses a sequence that could never fit, with both numbers", () => {
    const scheduler = new Scheduler({ ...FAKE_LIMITS, numBlocks: 4 });
    const [sequence] = request({ prompt: new Array<number>(14).fill(1), maxNewTokens: 3, n: 1 }).siblings as [Sequence];
    expect(() => scheduler.add(sequence)).toThrow(/cache for 17 tokens.*cache for 16/);
  });
});

describe("block manager", () => {
  it("frees a shared block with its last owner, and refuses to free it again", () => {
    const blocks = new BlockManager(3, 4);
    const [block] = blocks.allocate(1) as [number];
    blocks.share([block]);
    blocks.release([block]);
    expect(blocks.numFree).toBe(2);
    blocks.release([block]);
    expect(blocks.numFree).toBe(3);
    expect(() => blocks.release([block])).toThrow("has no owner");
    expect(blocks.allocate(4)).toBeUndefined();
    expect(blocks.numFree).toBe(3);
  });

  it("gives away cached blocks last, the end of the text that was unused for longest first", () => {
    const blocks = new BlockManager(5, 4);
    const old = blocks.allocate(2) as number[];
    const recent = blocks.allocate(2) as number[];
    for (const [i, block] of [...old, ...recent].entries()) blocks.cache.store(`digest ${i}`, block, []);
    blocks.release(old);
    blocks.release(recent);
    expect([blocks.numFree, blocks.cache.numIdle]).toEqual([5, 4]);
    blocks.share([old[0] as number]);
    blocks.release([old[0] as number]);
    const [never] = blocks.allocate(1) as [number];
    expect([...old, ...recent]).not.toContain(never);
    expect(blocks.allocate(4)).toEqual([old[1], recent[1], recent[0], old[0]]);
    expect(blocks.cache.find("digest 0")).toBeUndefined();
  });

  it("does not mistake a block behind another beginning, or of other tokens, for the same", () => {
    const first = chainDigest(CHAIN_START, [1, 2]);
    const all = [
      first,
      chainDigest(CHAIN_START, [2, 1]),
      chainDigest(first, [1, 2]),
      chainDigest(first, [1]),
      chainDigest(CHAIN_START, [513]),
    ];
    expect(new Set(all).size).toBe(all.length);
    expect(chainDigest(CHAIN_START, [1, 2])).toBe(first);
  });
});
