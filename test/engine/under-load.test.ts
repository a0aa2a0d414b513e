/** The engine over a runner without a model, with more calls than its cache holds: aborts and faults at any time, blocks that run out. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Engine } from "../../ts/engine/engine.js";
import type { PrefixCacheMode } from "../../ts/engine/prefix-cache.js";
import type { EngineInfo } from "../../ts/engine/types.js";
import type { RunnerLimits } from "../../ts/model/runner-types.js";
import type { GenerateParams } from "../../ts/sampling/parameters.js";
import { FakeRunner } from "./fake-runner.js";

/** Ten blocks of four: two calls of the longest kind do not fit together. */
const TIGHT: Partial<RunnerLimits> = { numBlocks: 10, blockSize: 4, contextLength: 40, maxSequences: 4, maxBatchTokens: 12 };

function make(limits: Partial<RunnerLimits> = TIGHT, prefixCache: PrefixCacheMode = "on") {
  const runner = new FakeRunner(limits);
  runner.pathsMatter = prefixCache !== "all";
  const info = { endTokens: [], prefixCache } as unknown as EngineInfo;
  const engine = Engine.fromParts({
    ...{ runner, info, defaults: {}, modelContext: runner.limits.contextLength, close: () => runner.close() },
  });
  const idle = () => expect(engine.stats).toMatchObject({ runningSequences: 0, waitingSequences: 0, blocksInUse: 0 });
  return { engine, runner, idle };
}

const tick = () => new Promise((resolve) => setImmediate(resolve));

/** Tokens of a call in an engine with room for all. */
async function alone(tokens: number[], params: GenerateParams) {
  const { engine } = make({ ...TIGHT, numBlocks: 200 });
  const result = await engine.generate({ tokens }, params);
  return result.choices?.map((choice) => choice.tokens) ?? [result.tokens];
}

const COMMON = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8];
const call = fc.record({
  tokens: fc
    .tuple(fc.nat(12), fc.array(fc.nat(49), { minLength: 1, maxLength: 8 }))
    .map(([common, rest]) => [...COMMON.slice(0, common), ...rest]),
  maxTokens: fc.nat(20),
  n: fc.oneof(fc.constant(1), fc.integer({ min: 2, max: 4 })),
  seed: fc.nat(5),
  /** Ticks before it is called; ticks after which it is aborted. */
  after: fc.nat(12),
  abortAfter: fc.option(fc.nat(40)),
});

describe("calls that do not fit together", () => {
  it("all end: aborted ones with the beginning of their tokens, the others with all of them", async () => {
    let preemptions = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.array(call, { minLength: 2, maxLength: 10 }),
        fc.constantFrom<PrefixCacheMode>("on", "off", "all"),
        async (calls, mode) => {
          const { engine, idle } = make(TIGHT, mode);
          const run = async ({ tokens, maxTokens, n, seed, after, abortAfter }: (typeof calls)[number]) => {
            for (let i = 0; i < after; i++) await tick();
            const controller = new AbortController();
            const params: GenerateParams = { maxTokens, n, seed, presencePenalty: 1 };
            const running = engine.generate({ tokens }, { ...params, signal: controller.signal });
            running.catch(() => undefined);
            for (let i = 0; abortAfter !== null && i < abortAfter; i++) await tick();
            if (abortAfter !== null) controller.abort();
            const wanted = await alone(tokens, params);
            const result = await running.catch((error) => {
              expect(error).toMatchObject({ code: "ABORTED" });
              expect(abortAfter).not.toBeNull();
              return error.partial;
            });
            const choices = (result.choices ?? [result]) as { tokens: number[]; finishReason: string }[];
            expect(choices.length).toBe(n);
            for (const [i, choice] of choices.entries()) {
              if (choice.finishReason === "abort") expect(wanted[i]!.slice(0, choice.tokens.length)).toEqual(choice.tokens);
              else expect(choice.tokens).toEqual(wanted[i]);
            }
          };
          await Promise.all(calls.map(run));
          idle();
          preemptions += engine.stats.preemptions;
          await engine.close();
        },
      ),
      { numRuns: 150 },
    );
    expect(preemptions).toBeGreaterThan(20);
  });

  it("count what happened", async () => {
    const { engine, idle } = make();
    const prompts = [1, 2, 3].map((token) => ({ tokens: [...COMMON.slice(0, 8), token] }));
    await engine.generate(prompts[0]!, { maxTokens: 1 });
    const results = await engine.generate(prompts, { maxTokens: 20 });
    const cached = results.map(({ usage }) => usage.cachedTokens);
    expect(cached).toEqual([8, 8, 8]);
    const { preemptions, ...stats } = engine.stats;
    expect(preemptions).toBeGreaterThan(0);
    expect(stats).toMatchObject({ promptTokens: 9 + 3, generatedTokens: 1 + 60, prefixQueryTokens: 4 * 9, prefixHitTokens: 3 * 8 });
    expect(stats.cachedBlocks).toBeGreaterThan(0);
    idle();
  });
});

describe("faults while a sequence gives way or comes back", () => {
  const calls = [1, 2].map((token) => ({ tokens: [token, token, token] }));

  it.each(["readBlock", "writeBlock"] as const)("of %s reject calls, and the engine goes on without leaks", async (method) => {
    const { engine, runner, idle } = make();
    const working = runner[method].bind(runner) as () => never;
    let failed = 0;
    runner[method] = () => {
      failed += 1;
      throw new Error("the bus is broken");
    };
    const all = await Promise.allSettled(calls.map((prompt) => engine.generate(prompt, { maxTokens: 30, seed: 1 })));
    expect(failed).toBeGreaterThan(0);
    expect(all.some(({ status }) => status === "rejected")).toBe(true);
    for (const one of all) if (one.status === "rejected") expect(one.reason).toMatchObject({ code: "INTERNAL" });
    idle();
    runner[method] = working;
    const again = await Promise.all(calls.map((prompt) => engine.generate(prompt, { maxTokens: 30, seed: 1 })));
    for (const [i, { tokens }] of again.entries()) expect([tokens]).toEqual(await alone(calls[i]!.tokens, { maxTokens: 30, seed: 1 }));
    idle();
  });

  it("of a read whose failure comes later reject the call that comes back", async () => {
    const { engine, runner, idle } = make();
    runner.readBlock = () => Promise.reject(new Error("the bus is broken"));
    const all = await Promise.allSettled(calls.map((prompt) => engine.generate(prompt, { maxTokens: 30, seed: 1 })));
    expect(all.map(({ status }) => status)).toEqual(["fulfilled", "rejected"]);
    idle();
  });

  it("of a step end who had a part in it, not who gave way in it", async () => {
    const { engine, runner, idle } = make();
    runner.during = () => {
      if (engine.stats.preemptions === 1 && runner.failWith === undefined && !failed) {
        failed = true;
        runner.failWith = new Error("boom");
      }
    };
    let failed = false;
    const all = await Promise.allSettled(calls.map((prompt) => engine.generate(prompt, { maxTokens: 30, seed: 1 })));
    expect(all.map(({ status }) => status)).toEqual(["rejected", "fulfilled"]);
    expect([(all[1] as PromiseFulfilledResult<{ tokens: number[] }>).value.tokens]).toEqual(
      await alone(calls[1]!.tokens, { maxTokens: 30, seed: 1 }),
    );
    idle();
  });
});
