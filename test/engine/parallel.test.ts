/** The engine over a group of ranks: it answers as an engine over one device does, and says which rank was lost. */
import { describe, expect, it, vi } from "vitest";
import { Engine } from "../../ts/engine/engine.js";
import type { Chunk, EngineInfo, GenerateResult, Prompt } from "../../ts/engine/types.js";
import { LongcatError } from "../../ts/errors.js";
import { FollowerCore } from "../../ts/parallel/follower-core.js";
import { type GenerateParams, resolveParameters } from "../../ts/sampling/parameters.js";
import { refused } from "../helpers/mini.js";
import { FakeGroup, groupEngine } from "./fake-group.js";
import { FakeRunner, hashNext, type NextToken } from "./fake-runner.js";
import { encodeFake, fakeText } from "./fake-text.js";

function make(numRanks = 2, next?: NextToken) {
  const group = new FakeGroup(numRanks, [], next);
  return { group, engine: groupEngine(group) };
}

/** The same engine over one runner. */
function alone(next: NextToken = hashNext(47)): Engine {
  const { info, modelContext, defaults } = new FakeGroup(1).ranks[0] as FakeGroup["ranks"][number];
  const runner = new FakeRunner({}, next);
  return Engine.fromParts({ runner, text: fakeText, info, modelContext, defaults, close: () => runner.close() });
}

const collect = async (stream: AsyncIterable<Chunk>) => {
  const chunks: Chunk[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
};
/** Looks each turn of the event loop: fake ranks are fast. */
const until = async (holds: () => boolean) => {
  for (let i = 0; i < 10_000 && !holds(); i++) await new Promise((resolve) => setImmediate(resolve));
  expect(holds()).toBe(true);
};
/** A result without what takes time. */
const timeless = (result: GenerateResult): unknown => {
  const { timings, choices, ...rest } = result;
  return { ...rest, ...(choices && { choices: choices.map((choice) => timeless(choice as GenerateResult)) }) };
};
const says =
  (text: string, promptLength: number): NextToken =>
  (history) =>
    encodeFake(text)[history.length - promptLength] ?? 0;

describe("an engine over ranks answers as one over one device does", () => {
  it.each<[string, Prompt | Prompt[], GenerateParams]>([
    ["a text", "hello", { maxTokens: 8 }],
    ["ids", { tokens: [1, 2, 3] }, { maxTokens: 8, logprobs: 2 }],
    ["typed ids", { tokens: Int32Array.of(1, 2, 3) }, { maxTokens: 3 }],
    ["a chat", { messages: [{ role: "user", content: "hello" }] }, { maxTokens: 8 }],
    ["a text with special tokens", "hello", { maxTokens: 4, parseSpecial: true }],
    ["a seeded draw", "hello", { maxTokens: 8, temperature: 1, seed: 7 }],
    ["no token", "hello", { maxTokens: 0 }],
    ["no limit", "hello", { maxTokens: null }],
    ["stop strings and tokens", "hello", { maxTokens: 30, stop: "zzz", stopTokens: [4, 5], ignoreEos: true }],
    ["penalties and biases", "hello", { maxTokens: 4, repetitionPenalty: 1.5, presencePenalty: 0.5, logitBias: { "3": -4 } }],
    ["several choices", "hello", { maxTokens: 6, n: 3, temperature: 1, seed: 9 }],
    ["an array", ["hello", "help", { tokens: [5] }], { maxTokens: 6, n: 2, seed: 3, temperature: 1 }],
    ["an empty array", [], {}],
  ])("%s", async (_, prompt, params) => {
    const ask = async (engine: Engine) => {
      const chunks: Chunk[] = [];
      const result: GenerateResult | GenerateResult[] = await engine.generate(prompt as string, params, (chunk) => chunks.push(chunk));
      const ordered = chunks.toSorted((a, b) => a.index - b.index);
      return [Array.isArray(result) ? result.map(timeless) : timeless(result), ordered];
    };
    const { engine } = make();
    expect(await ask(engine)).toEqual(await ask(alone()));
  });

  it("tool calls, whose arguments come in pieces", async () => {
    const next = says("x(f)#", 1);
    const chat = { messages: [{ role: "user" as const, content: "a" }] };
    const { engine } = make(2, next);
    const result = await engine.generate(chat, { maxTokens: 9 });
    expect(result).toMatchObject({ text: "x", finishReason: "tool_calls", toolCalls: [{ name: "f" }] });
    expect(timeless(result)).toEqual(timeless(await alone(next).generate(chat, { maxTokens: 9 })));
  });

  it("streams the same chunks", async () => {
    const { engine } = make();
    expect(await collect(engine.stream("hello", { maxTokens: 6 }))).toEqual(await collect(alone().stream("hello", { maxTokens: 6 })));
  });

  it("scores", async () => {
    const { engine } = make();
    expect(await engine.score("hello")).toEqual(await alone().score("hello"));
    expect(await engine.score([3, 1, 4])).toEqual(await alone().score([3, 1, 4]));
  });

  it("tokenises and detokenises in this process", async () => {
    const { engine, group } = make();
    expect(await engine.tokenize("abc")).toEqual([0, 1, 2]);
    expect(engine.detokenize([0, 1, 2])).toBe("abc");
    expect(group.calls).toEqual([]);
  });

  it("measures the time to the first token here", async () => {
    const { engine, group } = make(1);
    const generate = group.generate.bind(group);
    group.generate = (rank, prompt, params, onChunk) => generate(rank, prompt, params, (chunk) => onChunk(chunk));
    const start = performance.now();
    let firstMs = 0;
    const { timings } = await engine.generate("hello", { maxTokens: 3 }, () => {
      firstMs ||= performance.now() - start;
    });
    expect(timings.ttftMs).toBeGreaterThan(0);
    expect(timings.ttftMs).toBeLessThanOrEqual(firstMs);
    const { timings: none } = await engine.generate("hello", { maxTokens: 0 });
    expect(none.ttftMs).toBeGreaterThan(0);
  });
});

describe("calls and ranks", () => {
  it("an array is spread, and choices of one call stay together", async () => {
    const { engine, group } = make(2);
    await engine.generate(["a", "b", "c", "d"], { maxTokens: 2 });
    expect(group.calls.map(({ rank }) => rank)).toEqual([0, 1, 0, 1]);
    await engine.generate("e", { maxTokens: 2, n: 3, temperature: 1 });
    expect(group.calls).toHaveLength(5);
  });

  it("an absent seed gives other answers each time, on whatever rank", async () => {
    const { engine } = make(2);
    const answers = await engine.generate(["a", "a", "a", "a"], { maxTokens: 12, temperature: 1 });
    expect(new Set(answers.map(({ tokens }) => String(tokens))).size).toBe(4);
  });

  it("checks before anything is sent, with the engine's words", async () => {
    const { engine, group } = make();
    await expect(engine.generate("a", { topP: 7 })).rejects.toThrow(refused("OPTION_INVALID", "topP: 7"));
    await expect(engine.generate(["a", ""], {})).rejects.toThrow(refused("PROMPT_INVALID", "prompts[1]: the prompt is empty"));
    await expect(engine.generate({ tokens: [99] })).rejects.toThrow(refused("PROMPT_INVALID", "tokens[0]: 99"));
    await expect(engine.generate({ tokens: new Array(65).fill(1) })).rejects.toThrow(refused("CONTEXT_OVERFLOW"));
    await expect(engine.score([])).rejects.toThrow(refused("PROMPT_INVALID"));
    expect(group.calls).toEqual([]);
  });

  it("a chat is rendered and encoded once; its rank gets ids, and how the answer is read, as plain data", async () => {
    const encodeChat = vi.spyOn(fakeText, "encodeChat");
    const { engine, group } = make(1);
    const messages = [{ role: "user" as const, content: "hello" }];
    await engine.generate(
      { messages },
      { maxTokens: 4, toolChoice: "none", stop: "x", stopTokens: [3], signal: AbortSignal.timeout(60_000) },
    );
    expect(encodeChat).toHaveBeenCalledTimes(1);
    encodeChat.mockRestore();
    const [{ prompt, parameters }] = group.calls as [FakeGroup["calls"][number]];
    expect(prompt).toEqual({ ids: encodeFake("hello"), chat: { tools: [], callForm: "json", startsInReasoning: false } });
    const {
      responseFormat: _,
      toolChoice: __,
      parseSpecial: ___,
      ...rest
    } = resolveParameters(
      { maxTokens: 4, stop: "x", stopTokens: [3] },
      { size: 50, has: () => true, hasTokenizer: true },
      { temperature: 0 },
    );
    expect(parameters).toEqual(rest);
  });

  it("the smallest context of all ranks holds", async () => {
    const engine = groupEngine(new FakeGroup(2, [{}, { contextLength: 32, numBlocks: 8 }]));
    await expect(engine.generate({ tokens: new Array(40).fill(1) })).rejects.toThrow(refused("OUT_OF_MEMORY", "there is cache for 32"));
  });

  it("what a rank refuses comes back as it was said", async () => {
    const { engine } = make(1);
    await expect(engine.generate("hello", { maxTokens: 60, n: 16 })).resolves.toMatchObject({ finishReason: "length" });
    const group = new FakeGroup(1, [{ numBlocks: 4 }]);
    await expect(groupEngine(group).generate("hello", { maxTokens: 30 })).rejects.toThrow(refused("OUT_OF_MEMORY", "needs cache for 35"));
  });

  it("stats are sums, and each rank's own", async () => {
    const { engine } = make(2);
    await engine.generate(["abcde", "fghij"], { maxTokens: 4 });
    const { stats } = engine;
    expect(stats).toMatchObject({ promptTokens: 10, generatedTokens: 8, numBlocks: 64, runningSequences: 0, blocksInUse: 0 });
    expect(stats.ranks).toHaveLength(2);
    expect(stats.ranks).toMatchObject([
      { promptTokens: 5, generatedTokens: 4, numBlocks: 32 },
      { promptTokens: 5, generatedTokens: 4 },
    ]);
  });
});

describe("calls that end early", () => {
  it("by a signal: ABORTED with what there was, and why", async () => {
    const { engine, group } = make(1);
    const controller = new AbortController();
    const seen: number[] = [];
    const call = engine.generate("hello", { maxTokens: 40, signal: controller.signal }, ({ tokens }) => {
      seen.push(...tokens);
      if (seen.length === 3) controller.abort("enough");
    });
    const error = (await call.catch((reason: unknown) => reason)) as LongcatError;
    expect(error).toEqual(refused("ABORTED", "the call was aborted"));
    expect(error.cause).toBe("enough");
    const partial = error.partial as GenerateResult;
    expect(partial.finishReason).toBe("abort");
    expect(partial.tokens).toEqual(seen);
    expect(partial.tokens.length).toBeLessThan(40);
    expect(group.stats(0).runningSequences).toBe(0);
  });

  it("by a signal that has fired before: nothing is generated", async () => {
    const { engine } = make(1);
    const error = (await engine.generate("hello", { signal: AbortSignal.abort() }).catch((reason: unknown) => reason)) as LongcatError;
    expect(error).toEqual(refused("ABORTED"));
    expect(error.partial).toMatchObject({ tokens: [], finishReason: "abort" });
    await expect(engine.score("hello", { signal: AbortSignal.abort() })).rejects.toThrow(refused("ABORTED"));
  });

  it("an array: all parts, each as far as it came", async () => {
    const { engine } = make(2);
    const controller = new AbortController();
    const call = engine.generate(["hello", "help"], { maxTokens: 40, signal: controller.signal }, () => controller.abort());
    const error = (await call.catch((reason: unknown) => reason)) as LongcatError;
    expect(error).toEqual(refused("ABORTED"));
    expect(error.partial).toMatchObject([{ finishReason: "abort" }, { finishReason: "abort" }]);
  });

  it("by a listener that throws: its error, and the others go on", async () => {
    const { engine, group } = make(1);
    const other = engine.generate("help", { maxTokens: 10 });
    const mine = engine.generate("hello", { maxTokens: 40 }, () => {
      throw new RangeError("mine");
    });
    await expect(mine).rejects.toThrow(new RangeError("mine"));
    expect((await other).tokens).toHaveLength(10);
    await vi.waitFor(() => expect(group.stats(0)).toMatchObject({ runningSequences: 0, waitingSequences: 0 }));
  });

  it("by a stream that is left", async () => {
    const { engine, group } = make(1);
    for await (const _ of engine.stream("hello", { maxTokens: 40 })) break;
    await vi.waitFor(() => expect(group.stats(0)).toMatchObject({ runningSequences: 0, waitingSequences: 0 }));
    expect(group.stats(0).generatedTokens).toBeLessThan(40);
  });

  it("by closing the engine, which then ends the ranks", async () => {
    const { engine, group } = make(2);
    const calls = ["hello", "help"].map((prompt) => engine.generate(prompt, { maxTokens: 40 }));
    const errors = Promise.all(calls.map((call) => call.catch((reason: unknown) => reason as LongcatError)));
    await until(() => group.calls.length === 2);
    await engine.close();
    for (const error of await errors) {
      expect(error).toEqual(refused("ABORTED", "the engine was closed"));
      expect((error as LongcatError).partial).toMatchObject({ finishReason: "abort" });
    }
    expect(group.closed).toBe(true);
    await expect(engine.ended).resolves.toBeUndefined();
    await expect(engine.generate("a")).rejects.toThrow(refused("DISPOSED"));
  });

  it("closing does not wait for ranks that say nothing", async () => {
    const { engine, group } = make(1);
    group.silent = true;
    const call = engine.generate("hello").catch((reason: unknown) => reason);
    await until(() => group.calls.length === 1);
    group.close = async () => group.lose(0);
    await engine.close();
    expect(await call).toEqual(refused("ABORTED", "the engine was closed"));
  });
});

describe("a lost rank", () => {
  it("ends all calls, and every later one at once, with COMM_ERROR that names it", async () => {
    const { engine, group } = make(2);
    const calls = ["hello", "help"].map((prompt) => engine.generate(prompt, { maxTokens: 40 }));
    const streamed = collect(engine.stream("stream", { maxTokens: 40 })).catch((reason: unknown) => reason);
    const errors = Promise.all(calls.map((call) => call.catch((reason: unknown) => reason)));
    await until(() => group.calls.length === 3);
    expect(engine.failure).toBeUndefined();
    group.lose(1);
    for (const error of [...(await errors), await streamed]) expect(error).toEqual(refused("COMM_ERROR", "rank 1 is lost"));
    await expect(engine.ended).rejects.toThrow(refused("COMM_ERROR", "rank 1 is lost"));
    expect(engine.failure).toEqual(refused("COMM_ERROR", "rank 1 is lost"));
    await expect(engine.generate("a")).rejects.toThrow(refused("COMM_ERROR", "rank 1 is lost"));
    await expect(engine.score("a")).rejects.toThrow(refused("COMM_ERROR"));
    await expect(engine.tokenize("a")).rejects.toThrow(refused("COMM_ERROR"));
    expect(group.calls).toHaveLength(3);
    expect(engine.stats.ranks).toHaveLength(2);
    await engine.close();
    expect(group.closed).toBe(true);
  });
});

describe("an engine that follows", () => {
  function follow() {
    let end!: (error?: LongcatError) => void;
    const ended = new Promise<LongcatError | undefined>((resolve) => {
      end = resolve;
    });
    const info = { vocabularySize: 50, contextLength: 64 } as EngineInfo;
    const close = vi.fn(async () => end());
    const core = new FollowerCore({ rank: 2, ranks: 4, info, ended, close });
    return { engine: Engine.fromParts({ core, info, modelContext: 64, defaults: {}, close }), end, close };
  }

  it("takes no calls and says where they go", async () => {
    const { engine } = follow();
    const words = "this process has rank 2 of 4 and takes no calls: they go to the process of rank 0";
    await expect(engine.generate("a")).rejects.toThrow(refused("OPTION_INVALID", words));
    await expect(engine.generate(["a"])).rejects.toThrow(refused("OPTION_INVALID", words));
    await expect(collect(engine.stream("a"))).rejects.toThrow(refused("OPTION_INVALID", words));
    await expect(engine.score([1])).rejects.toThrow(refused("OPTION_INVALID", words));
    expect(() => engine.detokenize([1])).toThrow(refused("OPTION_INVALID", words));
    expect(() => engine.stats).toThrow(refused("OPTION_INVALID", words));
  });

  it("ends with its leader, or with COMM_ERROR", async () => {
    const led = follow();
    led.end();
    await expect(led.engine.ended).resolves.toBeUndefined();
    const lost = follow();
    lost.end(new LongcatError("COMM_ERROR", "rank 0 is lost"));
    await expect(lost.engine.ended).rejects.toThrow(refused("COMM_ERROR", "rank 0 is lost"));
    const closed = follow();
    await closed.engine.close();
    expect(closed.close).toHaveBeenCalledTimes(1);
    await expect(closed.engine.ended).resolves.toBeUndefined();
  });
});
