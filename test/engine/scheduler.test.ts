/** The scheduler against a runner that checks every step, on drawn requests. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { BlockManager } from "../../ts/engine/block-manager.js";
import { type Batch, Scheduler } from "../../ts/engine/scheduler.js";
import { Sequence } from "../../ts/engine/sequence.js";
import type { SlotSampling, StepResult } from "../../ts/model/runner-types.js";
import { FAKE_LIMITS, FakeRunner, hashNext } from "./fake-runner.js";

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
    const sequence: Sequence = new Sequence({
      ...{ prompt, maxNewTokens, sampling: sampling(prompt, i) },
      ...(n > 1 && { siblings }),
      onStep: (step, result) => {
        if (step.sample) tokens.push(result.token);
        const ended = tokens.length >= maxNewTokens && step.position + (step.tokens?.length ?? 1) >= prompt.length;
        if (ended) onEnd(sequence);
        return ended;
      },
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

async function step(scheduler: Scheduler, runner: FakeRunner): Promise<void> {
  const batch = scheduler.schedule();
  for (const { sequence, fork } of batch.admitted) {
    runner.setSampling(sequence.slot, sequence.sampling);
    runner.setBlocks(sequence.slot, 0, sequence.blocks);
    if (fork?.copyBlock) runner.copyBlock(fork.copyBlock.from, fork.copyBlock.to);
    if (fork) runner.copyHistory(fork.fromSlot, sequence.slot, fork.length);
  }
  await finish(scheduler, runner, batch);
}

/** Runs a scheduled step, and those after it that can be scheduled before its results are there. */
async function finish(scheduler: Scheduler, runner: FakeRunner, batch: Batch): Promise<void> {
  scheduler.dropEnded(batch);
  if (batch.entries.length === 0) return;
  const results = runner.launch(batch.entries.map((entry) => entry.step));
  const ahead = scheduler.scheduleAhead(batch);
  const following = ahead && runner.launch(ahead.entries.map((entry) => entry.step));
  scheduler.postprocess(batch, await results);
  if (ahead) scheduler.postprocess(ahead, (await following) as StepResult[]);
}

/** No block belongs to two sequences, except full prompt blocks of siblings; what nobody owns is free. */
function checkBlocks(scheduler: Scheduler): void {
  const owners = new Map<number, Sequence[]>();
  for (const sequence of scheduler.unfinished)
    for (const block of sequence.blocks) owners.set(block, [...(owners.get(block) ?? []), sequence]);
  for (const [block, sequences] of owners) {
    const [first] = sequences as [Sequence];
    for (const other of sequences.slice(1)) {
      expect(first.siblings).toContain(other);
      const end = (first.blocks.indexOf(block) + 1) * scheduler.blocks.blockSize;
      expect(end).toBeLessThanOrEqual(first.sharedLength);
      expect(other.blocks.indexOf(block)).toBe(first.blocks.indexOf(block));
    }
  }
  expect(owners.size + scheduler.blocks.numFree).toBe(scheduler.blocks.numBlocks);
}

const work = fc.record({
  prompt: fc.array(fc.integer({ min: 0, max: 49 }), { minLength: 1, maxLength: 40 }),
  maxNewTokens: fc.integer({ min: 0, max: 20 }),
  n: fc.integer({ min: 1, max: 6 }),
});
const limits = fc.record({
  maxSequences: fc.integer({ min: 1, max: 5 }),
  maxBatchTokens: fc.integer({ min: 1, max: 24 }),
  blockSize: fc.integer({ min: 1, max: 7 }),
  numBlocks: fc.integer({ min: 60, max: 80 }),
});

describe("scheduler", () => {
  it("ends every request with the tokens it has alone, leaks no block, keeps budget and positions", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(work, { minLength: 1, maxLength: 6 }), limits, async (works, some) => {
        const runner = new FakeRunner({ ...some, contextLength: 64 });
        const scheduler = new Scheduler(runner.limits);
        const requests = works.map((one) => request(one));
        for (const { siblings } of requests) for (const sequence of siblings) scheduler.add(sequence);
        for (let steps = 0; scheduler.hasWork; steps++) {
          expect(steps).toBeLessThan(10_000);
          await step(scheduler, runner);
          checkBlocks(scheduler);
        }
        expect(scheduler.blocks.numFree).toBe(runner.limits.numBlocks);
        requests.forEach(({ outputs }, r) => {
          outputs.forEach((tokens, i) => {
            expect(tokens).toEqual(alone(works[r] as Work, i));
          });
        });
      }),
      { numRuns: 150 },
    );
  });

  it("gives everything back when sequences are aborted at any time, and the rest is as without them", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(work, { minLength: 2, maxLength: 6 }),
        limits,
        fc.array(fc.tuple(fc.nat(20), fc.nat(), fc.boolean()), { minLength: 1, maxLength: 8 }),
        async (works, some, aborts) => {
          const runner = new FakeRunner({ ...some, contextLength: 64 });
          const scheduler = new Scheduler(runner.limits);
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
            if (scheduler.hasWork) await step(scheduler, runner);
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
      { numRuns: 150 },
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

  it("lets decoding sequences go on while a long prompt runs in chunks", async () => {
    const runner = new FakeRunner({ maxBatchTokens: 4 });
    const scheduler = new Scheduler(runner.limits);
    for (const sequence of request({ prompt: [1], maxNewTokens: 12, n: 1 }).siblings) scheduler.add(sequence);
    await step(scheduler, runner);
    for (const sequence of request({ prompt: new Array<number>(40).fill(2), maxNewTokens: 1, n: 1 }).siblings) scheduler.add(sequence);
    while (scheduler.hasWork) await step(scheduler, runner);
    const kinds = runner.steps.slice(1, 9).map((sequences) => (sequences[0]?.tokens === null ? "decode" : "prompt"));
    expect(kinds).toEqual(["decode", "prompt", "decode", "prompt", "decode", "prompt", "decode", "prompt"]);
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
      expect(sequence).toMatchObject({ state: "ended", slot: -1, blocks: [], stepsInFlight: 0 });
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
});
