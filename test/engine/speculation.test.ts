/** The engine with drafts over a runner without a model: everything but the times is what it is without. */
import { describe, expect, it } from "vitest";
import { Engine } from "../../ts/engine/engine.js";
import type { Chunk, EngineInfo, GenerateResult } from "../../ts/engine/types.js";
import { LongcatError } from "../../ts/errors.js";
import type { RunnerLimits } from "../../ts/model/runner-types.js";
import type { GenerateParams } from "../../ts/sampling/parameters.js";
import { FakeRunner, type Foresees, hashNext, type NextToken, rightShare } from "./fake-runner.js";
import { END_TOKEN, encodeFake, fakeText } from "./fake-text.js";

interface Setup {
  speculative?: EngineInfo["speculative"];
  foresees?: Foresees;
  limits?: Partial<RunnerLimits>;
  next?: NextToken;
  prefixCache?: EngineInfo["prefixCache"];
  /** Steps launched before the one that runs is over; steps then take long enough for it. */
  stepsAhead?: number;
}

/** After the prompt, these letters; then "a" for ever. */
const says =
  (text: string, promptLength: number): NextToken =>
  (history) =>
    encodeFake(text)[history.length - promptLength] ?? 0;

const never: Foresees = () => false;
const always: Foresees = () => true;

function make({ speculative = { drafts: 2 }, foresees = always, limits = {}, next, prefixCache = "on", stepsAhead }: Setup = {}) {
  const maxDrafts = speculative === "off" ? 0 : 4;
  const runner = new FakeRunner({ maxDrafts, ...limits }, next ?? hashNext(47));
  runner.foresees = foresees;
  runner.pathsMatter = prefixCache !== "all";
  if (stepsAhead !== undefined) runner.during = () => new Promise((resolve) => setTimeout(resolve, 1));
  const info = { endTokens: [END_TOKEN], speculative, prefixCache } as unknown as EngineInfo;
  const { contextLength } = runner.limits;
  const engine = Engine.fromParts({
    ...{ runner, info, defaults: { temperature: 0 }, modelContext: contextLength, close: () => runner.close(), text: fakeText },
    ...(stepsAhead !== undefined && { stepsAhead }),
  });
  const idle = () => expect(engine.stats).toMatchObject({ runningSequences: 0, waitingSequences: 0, blocksInUse: 0 });
  return { engine, runner, idle };
}

/** A result without what may differ. */
const untimed = (result: GenerateResult): unknown => ({
  ...result,
  timings: 0,
  usage: { ...result.usage, cachedTokens: 0 },
  choices: result.choices?.map((choice) => ({ ...choice, timings: 0, usage: 0 })),
});

/** Results and chunks of these prompts, run at once. */
async function answers({ engine }: { engine: Engine }, prompts: readonly string[], params: GenerateParams) {
  const chunks: Chunk[] = [];
  const results = await engine.generate(prompts, params, ({ usage, ...chunk }) => chunks.push(chunk));
  const choices = prompts.length * (params.n ?? 1);
  return {
    results: results.map(untimed),
    chunks: Array.from({ length: choices }, (_, index) => chunks.filter((chunk) => chunk.index === index)),
    drafts: results.map(({ timings }) => timings.drafts),
  };
}

describe("answers with drafts", () => {
  const prompts = ["abc", "abcdefghijkl", "q", "abcdefghijkmno"];
  const cases: [string, GenerateParams][] = [
    ["greedy", { maxTokens: 20 }],
    ["sampled, with log-probabilities", { maxTokens: 20, temperature: 1, seed: 5, logprobs: 2 }],
    ["to the context's end, over end tokens", { ignoreEos: true }],
    ["several choices", { maxTokens: 13, n: 3, temperature: 1, seed: 9 }],
    ["one token", { maxTokens: 1 }],
    ["no token", { maxTokens: 0 }],
  ];
  const setups: [string, Setup][] = [
    ["always right", { foresees: always }],
    ["never right", { foresees: never }],
    ["right half of the time, four of them", { speculative: { drafts: 4 }, foresees: rightShare(0.5) }],
    ["as many as pay", { speculative: "auto", foresees: rightShare(0.8) }],
    ["in small steps", { limits: { maxBatchTokens: 5 }, foresees: rightShare(0.8) }],
    ["in a small cache", { limits: { numBlocks: 16, maxSequences: 3 }, foresees: rightShare(0.8), prefixCache: "off" }],
    ["that are reused", { foresees: rightShare(0.8), prefixCache: "all" }],
  ];
  const depths = [undefined, 0, 1, 2, 3];
  const all = cases.flatMap(([what, params]) =>
    setups.flatMap(([how, setup]) => depths.map((stepsAhead) => [what, how, stepsAhead, params, setup] as const)),
  );
  it.each(all)("%s, %s, %s steps ahead: chunk by chunk the same as without", async (_what, _how, stepsAhead, params, setup) => {
    const without = await answers(make({ ...setup, speculative: "off" }), prompts, params);
    const drafting = make({ ...setup, ...(stepsAhead !== undefined && { stepsAhead }) });
    const { drafts, ...withDrafts } = await answers(drafting, prompts, params);
    expect(withDrafts).toEqual({ results: without.results, chunks: without.chunks });
    expect(without.drafts).toEqual(prompts.map(() => undefined));
    if ((params.maxTokens ?? 9) > 2) expect(drafting.engine.stats.speculation.draftTokens).toBeGreaterThan(0);
    if ((params.maxTokens ?? 9) > 2 && stepsAhead) expect(drafting.runner.mostUnderWay).toBeGreaterThan(1);
    drafting.idle();
  });

  it.each([0, 1, 2, 3])("have so many steps under way before one is over: %s, and it", async (stepsAhead) => {
    const { engine, runner } = make({ stepsAhead, limits: { contextLength: 200, numBlocks: 100 } });
    await engine.generate("abc", { maxTokens: 60, ignoreEos: true });
    expect(runner.mostUnderWay).toBe(stepsAhead + 1);
  });

  it("take fewer steps, and say how many drafts were accepted: of each choice, and of all", async () => {
    const { engine, runner } = make({ foresees: always });
    const { timings } = await engine.generate("abc", { maxTokens: 31, ignoreEos: true });
    // One token from the prompt, then three a step.
    expect(runner.steps.map(([one]) => one?.drafts)).toEqual([2, ...new Array(10).fill(2)]);
    expect(timings.drafts).toEqual({ verified: 20, accepted: 20, share: 1 });
    expect(engine.stats.speculation).toMatchObject({
      ...{ drafts: 2, draftedSteps: 10, draftTokens: 20, acceptedTokens: 20, acceptedByPlace: [10, 10], stepLength: 3 },
    });
    const wrong = make({ foresees: never });
    expect((await wrong.engine.generate("abc", { maxTokens: 9, ignoreEos: true })).timings.drafts).toMatchObject({ accepted: 0, share: 0 });
    expect((await make({ speculative: "off" }).engine.generate("abc", { maxTokens: 9 })).timings).not.toHaveProperty("drafts");
  });

  it("count the drafts before their end alone: as many accepted as tokens that no step was needed for", async () => {
    const { engine } = make({ speculative: { drafts: 4 }, next: says("h#there", 1) });
    const { tokens, timings } = await engine.generate("a", { maxTokens: 30 });
    // One token from the prompt, then the end token, the first of five that the step draws.
    expect([tokens.length, timings.drafts]).toEqual([2, undefined]);
    const later = make({ speculative: { drafts: 4 }, next: says("hel#there", 1) }).engine;
    expect((await later.generate("a", { maxTokens: 30 })).timings.drafts).toEqual({ verified: 2, accepted: 2, share: 1 });
    expect(later.stats.speculation).toMatchObject({ draftedSteps: 1, draftTokens: 2, acceptedTokens: 2, acceptedByPlace: [1, 1] });
  });

  it("end in mid-draft: at end tokens, stop tokens, stop strings, whole tool calls and the limit", async () => {
    for (const drafts of [1, 2, 3, 4])
      for (const [text, params] of [
        ["hi#there", { maxTokens: 12 }],
        ["hi#there", { maxTokens: 12, ignoreEos: true, stopTokens: encodeFake("e") }],
        ["coinpearshell", { maxTokens: 12, stop: ["arsh"] }],
        ["x(f)(g)#yz", { maxTokens: 12 }],
        ...[1, 2, 3, 4, 5, 6, 7].map((maxTokens) => ["abcdefg", { maxTokens, logprobs: 1 }] as const),
      ] as const) {
        const setup = { next: says(text, 1), foresees: always };
        const without = await answers(make({ ...setup, speculative: "off" }), ["a"], params as GenerateParams);
        const engine = make({ ...setup, speculative: { drafts } });
        const { results, chunks } = await answers(engine, ["a"], params as GenerateParams);
        expect({ results, chunks }).toEqual({ results: without.results, chunks: without.chunks });
        engine.idle();
      }
  });
});

describe("calls that end early", () => {
  it("leave the others as they are, aborted or failed in mid-draft, and give everything back", async () => {
    const params: GenerateParams = { maxTokens: 30, ignoreEos: true, temperature: 1, seed: 3 };
    const wanted = (await make({ speculative: "off" }).engine.generate("xyz", params)).tokens;
    for (const at of [1, 2, 3, 4, 7]) {
      const { engine, idle } = make({ foresees: rightShare(0.9), speculative: { drafts: 3 } });
      const controller = new AbortController();
      const got: number[] = [];
      const [aborted, thrown, other] = await Promise.allSettled([
        engine.generate("abc", { ...params, signal: controller.signal }, ({ tokens }) => {
          got.push(...tokens);
          if (got.length === at) controller.abort();
        }),
        engine.generate("de", params, () => {
          throw new Error("no more");
        }),
        engine.generate("xyz", params),
      ]);
      const error = (aborted as PromiseRejectedResult).reason as LongcatError;
      expect(error).toMatchObject({ code: "ABORTED" });
      // Nothing is told behind the abort, and the partial result has what was told, experts included.
      expect(error.partial).toMatchObject({ tokens: got });
      expect(got).toHaveLength(at);
      expect(thrown).toMatchObject({ status: "rejected", reason: { message: "no more" } });
      expect(other).toMatchObject({ status: "fulfilled", value: { tokens: wanted } });
      idle();
    }
  });

  it("are taken by a step that fails; later ones go on", async () => {
    const { engine, runner, idle } = make();
    runner.during = (step) => {
      if (step === 3) runner.failWith = new LongcatError("OUT_OF_MEMORY", "no room");
    };
    await expect(engine.generate("abc", { maxTokens: 30, ignoreEos: true })).rejects.toThrow("no room");
    const wanted = await make({ speculative: "off" }).engine.generate("abc", { maxTokens: 9 });
    expect((await engine.generate("abc", { maxTokens: 9 })).tokens).toEqual(wanted.tokens);
    idle();
  });
});

describe("the number of drafts", () => {
  const stepOf = (runner: FakeRunner) => runner.steps.map((step) => step.map(({ tokens, drafts = 0 }) => (tokens ? "prompt" : drafts)));

  it("is no more than a sequence can still draw", async () => {
    const { engine, runner } = make({ speculative: { drafts: 4 }, foresees: never });
    await engine.generate("abc", { maxTokens: 6, ignoreEos: true });
    expect(stepOf(runner)).toEqual([["prompt"], [4], [3], [2], [1], [0]].slice(0, 6));
  });

  it("is no more than fits a step beside all that decode", async () => {
    const { engine, runner } = make({ speculative: { drafts: 4 }, limits: { maxBatchTokens: 8 }, foresees: rightShare(0.5) });
    const lengths = [30, 12, 12];
    await Promise.all(lengths.map((maxTokens) => engine.generate("a", { maxTokens, ignoreEos: true })));
    expect(stepOf(runner)[1]).toEqual([1, 1, 1]);
    expect(stepOf(runner)).toContainEqual([4]);
  });

  it("is less where blocks are short: nobody gives way for drafts", async () => {
    const { engine, runner } = make({
      ...{ speculative: { drafts: 4 }, foresees: never, prefixCache: "off" },
      limits: { numBlocks: 8, blockSize: 4, contextLength: 32, maxBatchTokens: 32 },
    });
    await engine.generate(["abc", "def"], { maxTokens: 13, ignoreEos: true });
    expect(engine.stats.preemptions).toBe(0);
    expect(runner.steps.flat().some(({ drafts }) => drafts === 4)).toBe(true);
  });

  it("that an auto policy takes is in the stats, and so is the device's idle time", async () => {
    const { engine, runner } = make({ speculative: "auto", foresees: rightShare(0.8), limits: { contextLength: 400, numBlocks: 200 } });
    await engine.generate("abc", { maxTokens: 300, ignoreEos: true });
    const { speculation, stepSeconds, idleSeconds } = engine.stats;
    // How many pay here is chance, but it has to be tried.
    expect(speculation.draftedSteps).toBeGreaterThan(5);
    expect(speculation.acceptedTokens / speculation.draftTokens).toBeGreaterThan(0.3);
    expect(speculation.drafts).toBe(runner.steps.at(-1)?.[0]?.drafts);
    expect(stepSeconds).toBeGreaterThan(0);
    // Steps without one ahead have a room() between them, which takes a turn of the event loop.
    expect(idleSeconds).toBeGreaterThan(0);
  });
});
