/** Callers that go away leave nothing behind (field trial B14), and more callers than the device's ring holds commands for. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Engine } from "../../ts/engine/engine.js";
import { loadParts } from "../../ts/engine/load.js";
import { resolveOptions } from "../../ts/engine/options.js";
import type { LongcatError } from "../../ts/errors.js";
import type { Runner } from "../../ts/model/runner.js";
import { modelPath } from "../helpers/fixtures.js";
import { alive, bits, engines, GREEDY, ids, idle, refused } from "../helpers/mini.js";

describe("B14: sixteen calls of 3500 tokens, twenty times", () => {
  let engine: Engine;
  let runner: Runner;
  // "auto" records a graph more whenever it tries another number of drafts, which takes memory once.
  beforeAll(async () => {
    const parts = await loadParts(
      modelPath("mini"),
      resolveOptions({ device: "cpu", threads: 2, maxSequences: 16, speculative: { drafts: 1 } }),
    );
    runner = parts.runner as Runner;
    engine = Engine.fromParts(parts);
  });
  afterAll(() => engine.close());

  const LONG = { maxTokens: 3500, ignoreEos: true, seed: 1 };
  const endOf = (promise: Promise<unknown>) =>
    promise.then(
      () => undefined,
      (error: LongcatError) => error,
    );
  const tick = () => new Promise((resolve) => setImmediate(resolve));

  /** Eight streamed and eight not; half of the streams are left rather than aborted. Returns once all have ended. */
  async function goAway(afterChunks: number): Promise<void> {
    const controller = new AbortController();
    const { signal } = controller;
    const whole = Array.from({ length: 8 }, (_, i) => endOf(engine.generate(ids(20 + i), { ...LONG, signal })));
    let reached = 0;
    let release: () => void = () => undefined;
    const allThere = new Promise<void>((resolve) => {
      release = resolve;
    });
    const streams = Array.from({ length: 8 }, async (_, i) => {
      let chunks = 0;
      try {
        for await (const chunk of engine.stream(ids(40 + i), { ...LONG, ...(i % 2 === 0 && { signal }) })) {
          chunks += chunk.tokens.length > 0 ? 1 : 0;
          if (chunks === afterChunks && ++reached === 8) release();
          if (chunks > afterChunks && i % 2 === 1) return undefined;
        }
      } catch (error) {
        return error as LongcatError;
      }
      throw new Error("a stream of 3500 tokens came to its end");
    });
    if (afterChunks > 0) await allThere;
    else await tick();
    controller.abort();
    for (const error of await Promise.all(whole)) expect(error).toEqual(refused("ABORTED"));
    const ends = await Promise.all(streams);
    ends.forEach((error, i) => {
      if (i % 2 === 0) expect(error).toEqual(refused("ABORTED"));
      else expect(error).toBeUndefined();
    });
  }

  it.each([
    ["before the first token", 0],
    ["after five chunks", 5],
  ])("%s: slots and blocks are back within two steps, memory stays flat, the engine answers", async (_, afterChunks) => {
    let held = 0;
    let resident = 0;
    for (let round = 0; round < 20; round++) {
      await goAway(afterChunks);
      const { steps } = engine.stats;
      while (engine.stats.blocksInUse > 0 && engine.stats.steps <= steps + 2) await tick();
      idle(engine);
      const { generatedTokens } = engine.stats;
      for (let i = 0; i < 20; i++) await tick();
      expect(engine.stats).toMatchObject({ generatedTokens });
      expect(engine.stats.steps).toBeLessThanOrEqual(steps + 2);
      // The first rounds record their graphs and warm the heap.
      if (round < 4) [held, resident] = [runner.device.allocatedBytes, process.memoryUsage().rss];
      else expect(runner.device.allocatedBytes).toBe(held);
    }
    expect(process.memoryUsage().rss - resident).toBeLessThan(64e6);
    await alive(engine);
  });

  it("calls that end by themselves abort nothing", async () => {
    const controller = new AbortController();
    const { signal } = controller;
    const results = await engine.generate([ids(3), ids(4)], { ...GREEDY, maxTokens: 5, signal });
    controller.abort();
    expect(results.map(({ finishReason }) => finishReason)).toEqual(["length", "length"]);
    await alive(engine);
  });
});

describe("as many sequences at once as may be", () => {
  const { open, closeAll } = engines({ device: "cpu", threads: 2 });
  afterAll(closeAll);

  it("start in one step, as prompts and as choices, with the answers they get alone", async () => {
    const engine = await open(modelPath("tiny-a"), { maxSequences: 1024, cacheBytes: 1e9 });
    const params = { ...GREEDY, maxTokens: 3, ignoreEos: true, logprobs: 1, logitBias: { "7": 0.5 } };
    const prompts = Array.from({ length: 1024 }, (_, i) => ids(3, i % 7));
    const alone = [];
    for (let i = 0; i < 7; i++) alone.push(bits((await engine.generate(ids(3, i), params)).logprobs));
    const together = await engine.generate(prompts, params);
    for (const [i, { logprobs }] of together.entries()) expect(bits(logprobs)).toEqual(alone[i % 7]);
    const choices = await engine.generate(prompts.slice(0, 8), { ...params, n: 128 });
    for (const [i, result] of choices.entries())
      for (const { logprobs } of result.choices ?? []) expect(bits(logprobs)).toEqual(alone[i % 7]);
    idle(engine);
  });
});
