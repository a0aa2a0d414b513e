/** The engine over a runner without a model: results, chunks, ends, aborts and faults. */
import { describe, expect, it, vi } from "vitest";
import { BlockManager } from "../../ts/engine/block-manager.js";
import { Engine } from "../../ts/engine/engine.js";
import type { Chunk, EngineInfo, GenerateResult } from "../../ts/engine/types.js";
import { LongcatError } from "../../ts/errors.js";
import type { DrawnToken, RunnerLimits } from "../../ts/model/runner-types.js";
import type { GenerateParams } from "../../ts/sampling/parameters.js";
import { FakeRunner, hashNext, type NextToken } from "./fake-runner.js";
import { decodeFake, END_TOKEN, encodeFake, fakeText } from "./fake-text.js";

interface Setup {
  limits?: Partial<RunnerLimits>;
  next?: NextToken;
  modelContext?: number;
  withText?: boolean;
}

/** After the prompt, these letters; then "a" for ever. `promptLength` counts from there. */
const says =
  (text: string, promptLength: number): NextToken =>
  (history) =>
    encodeFake(text)[history.length - promptLength] ?? 0;

function make({ limits = {}, next, modelContext, withText = true }: Setup = {}) {
  const runner = new FakeRunner(limits, next ?? ((history, sampling) => hashNext(47)(history, sampling)));
  const info = { endTokens: [END_TOKEN] } as unknown as EngineInfo;
  const engine = Engine.fromParts({
    ...{
      runner,
      info,
      defaults: { temperature: 0 },
      modelContext: modelContext ?? runner.limits.contextLength,
      close: () => runner.close(),
    },
    ...(withText && { text: fakeText }),
  });
  const idle = () => expect(engine.stats).toMatchObject({ runningSequences: 0, waitingSequences: 0, blocksInUse: 0 });
  return { engine, runner, idle };
}

const code = (wanted: string, message = "") => expect.objectContaining({ code: wanted, message: expect.stringContaining(message) });
const collect = async (stream: AsyncIterable<Chunk>) => {
  const chunks: Chunk[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
};
const ticks = async (n: number) => {
  for (let i = 0; i < n; i++) await new Promise((resolve) => setImmediate(resolve));
};

describe("generate", () => {
  it("gives text, tokens, usage, timings and routing", async () => {
    const { engine, idle } = make({ next: says("hello", 3) });
    const result = await engine.generate("abc", { maxTokens: 5 });
    expect(result).toMatchObject({ text: "hello", tokens: encodeFake("hello"), finishReason: "length" });
    expect(result.usage).toEqual({ promptTokens: 3, cachedTokens: 0, completionTokens: 5 });
    expect(result.timings.ttftMs).toBeGreaterThan(0);
    expect(result.timings.tokensPerSecond).toBeGreaterThan(0);
    // Rows of positions 0 … 6 (the last token is not run): (p + layer) mod 4 experts in each of two layers.
    const experts = [0, 1, 2, 3, 4, 5, 6].flatMap((p) => [p % 4, (p + 1) % 4]);
    const mean = experts.reduce((a, b) => a + b) / experts.length;
    expect(result.routing.ffnExpertsPerToken).toBeCloseTo(mean, 12);
    expect(result.routing.zeroExpertShare).toBeCloseTo(1 - mean / 3, 12);
    expect(result).not.toHaveProperty("logprobs");
    expect(result).not.toHaveProperty("toolCalls");
    expect(result).not.toHaveProperty("reasoning");
    idle();
  });

  it("ends at an end token, which is counted and not shown; ignoreEos runs over it; stopTokens still end", async () => {
    const { engine } = make({ next: says("hi#there", 1) });
    expect(await engine.generate("a", { maxTokens: 8 })).toMatchObject({ text: "hi", finishReason: "stop", tokens: encodeFake("hi#") });
    const on = await engine.generate("a", { maxTokens: 8, ignoreEos: true });
    expect(on).toMatchObject({ finishReason: "length", tokens: encodeFake("hi#there") });
    const stopTokens = encodeFake("h");
    expect(await engine.generate("a", { maxTokens: 8, stopTokens })).toMatchObject({
      text: "",
      finishReason: "stop",
      usage: { completionTokens: 1 },
    });
    expect(await engine.generate("a", { maxTokens: 8, ignoreEos: true, stopTokens: encodeFake("e") })).toMatchObject({
      ...{ text: "hi#th", finishReason: "stop" },
    });
  });

  it("lets stop win over length in one step", async () => {
    const { engine } = make({ next: says("hi#", 1) });
    expect(await engine.generate("a", { maxTokens: 3 })).toMatchObject({ finishReason: "stop" });
    expect(await engine.generate("a", { maxTokens: 2 })).toMatchObject({ text: "hi", finishReason: "length" });
    expect(await engine.generate("a", { maxTokens: 2, stop: "i" })).toMatchObject({ text: "h", finishReason: "stop" });
  });

  it("cuts at a stop string across tokens, keeps the tokens behind the cut, and releases held text otherwise", async () => {
    const { engine } = make({ next: says("coinpearshell", 1) });
    const stop = ["arsh"];
    for (const maxTokens of [1, 2, 3, 4, 5, 6, 7, 8, 9])
      expect(await engine.generate("a", { maxTokens, stop })).toMatchObject({
        text: "coinpearshell".slice(0, maxTokens),
        finishReason: "length",
      });
    const cut = await engine.generate("a", { maxTokens: 10, stop });
    expect(cut).toMatchObject({ text: "coinpe", finishReason: "stop", tokens: encodeFake("coinpearsh") });
  });

  it("reports finished tool calls, and tool_calls as the reason only when the model ended", async () => {
    const { engine } = make({ next: says("x(f)#", 1) });
    expect(await engine.generate("a", { maxTokens: 9 })).toMatchObject({
      ...{ text: "x", finishReason: "tool_calls", toolCalls: [{ id: "call_0", name: "f", arguments: "{}" }] },
    });
    expect(await engine.generate("a", { maxTokens: 4 })).toMatchObject({ finishReason: "length", toolCalls: [{ name: "f" }] });
    const open = await engine.generate("a", { maxTokens: 3 });
    expect(open).toMatchObject({ text: "x", finishReason: "length" });
    expect(open).not.toHaveProperty("toolCalls");
  });

  it("lists log-probabilities, one entry a token", async () => {
    const { engine } = make({ next: says("xy#", 1) });
    const { logprobs } = await engine.generate("a", { maxTokens: 9, logprobs: 2 });
    expect(logprobs).toHaveLength(3);
    const bytes = (text: string) => [...new TextEncoder().encode(text)];
    expect(logprobs?.[0]).toEqual({
      ...{ token: encodeFake("x")[0], bytes: bytes("x"), logprob: -0.5 },
      top: [
        { token: 0, bytes: bytes("a"), logprob: -1 },
        { token: 1, bytes: bytes("b"), logprob: -2 },
      ],
    });
    expect((await engine.generate("a", { maxTokens: 1, logprobs: 0 })).logprobs).toMatchObject([{ top: [] }]);
  });

  it("writes −∞ as −9999", async () => {
    const { engine, runner } = make();
    const launch = runner.launch.bind(runner);
    const unlikely = (drawn: DrawnToken) => ({ ...drawn, logprob: Number.NEGATIVE_INFINITY });
    runner.launch = async (sequences) => (await launch(sequences)).map((result) => ({ ...result, drawn: result.drawn.map(unlikely) }));
    const { logprobs } = await engine.generate("a", { maxTokens: 1, logprobs: 0 });
    expect(logprobs?.[0]?.logprob).toBe(-9999);
  });

  it("hands the pieces of an answer to a listener, of an array with choices counted prompt by prompt; what it throws fails the call", async () => {
    const { engine, idle } = make();
    const params: GenerateParams = { maxTokens: 6, n: 2, seed: 1 };
    const prompts = ["abc", "de", "f"];
    const texts = new Array<string>(6).fill("");
    const ends: (number | undefined)[] = [];
    const results = await engine.generate(prompts, params, ({ index, text, finishReason, usage }) => {
      texts[index] += text;
      if (finishReason !== undefined) ends[index] = usage?.completionTokens;
    });
    expect(texts).toEqual(results.flatMap(({ choices = [] }) => choices.map(({ text }) => text)));
    expect(ends).toEqual([undefined, 12, undefined, 12, undefined, 12]);
    const thrown = new Error("no more");
    const failing = () => {
      throw thrown;
    };
    await expect(engine.generate("abc", params, failing)).rejects.toBe(thrown);
    await expect(engine.generate(["abc", "d"], params, failing)).rejects.toBe(thrown);
    idle();
  });

  it("ends a call with what its listener throws, whatever it is and whenever, and lets others go on", async () => {
    const { engine, idle } = make();
    const params = { n: 2, maxTokens: 12, ignoreEos: true, temperature: 1, seed: 4 };
    const alone = await engine.generate("xyz", params);
    for (const [thrown, at] of [
      [new Error("boom"), 0],
      [undefined, 5],
      ["a string", 23],
      [new LongcatError("OVERLOADED", "of the caller's own"), 3],
    ] as const) {
      let chunks = 0;
      const listen = (): void => {
        if (chunks++ === at) throw thrown;
      };
      const outcomes = await Promise.allSettled([
        engine.generate("abc", params, listen),
        engine.generate("xyz", params),
        engine.generate(["abc", "q"], params, () => {
          throw thrown;
        }),
      ]);
      expect(chunks, "the listener is not called again").toBe(at + 1);
      expect(outcomes[0]).toEqual({ status: "rejected", reason: thrown });
      expect(outcomes[1]).toMatchObject({ status: "fulfilled", value: { tokens: alone.tokens } });
      expect(outcomes[2]).toEqual({ status: "rejected", reason: thrown });
    }
    idle();
  });

  it("takes null for no listener, and refuses what is no function before anything runs", async () => {
    const { engine, runner } = make();
    for (const [value, shown] of [
      ["log", '"log"'],
      [{}, "{}"],
      [0, "0"],
      [true, "true"],
    ]) {
      const refused = code("OPTION_INVALID", `onChunk: ${shown} is not accepted; give a function`);
      await expect(engine.generate("abc", {}, value as never)).rejects.toEqual(refused);
      await expect(engine.generate(["abc", "d"], {}, value as never)).rejects.toEqual(refused);
    }
    expect(runner.steps).toHaveLength(0);
    expect(await engine.generate("abc", { maxTokens: 3 }, null)).toMatchObject({ tokens: { length: 3 } });
  });

  it("gives each prompt of an array what it gets alone, in order", async () => {
    const { engine, idle } = make();
    const prompts = ["abc", { tokens: [5, 6] }, "a", { messages: [{ role: "user" as const, content: "xyz" }] }, "qrstuv"];
    const many = await engine.generate(prompts, { maxTokens: 9, temperature: 0 });
    for (const [i, prompt] of prompts.entries()) {
      const alone = await engine.generate(prompt, { maxTokens: 9, temperature: 0 });
      expect(many[i]).toMatchObject({
        text: alone.text,
        tokens: alone.tokens,
        usage: { ...alone.usage, cachedTokens: 0 },
        routing: alone.routing,
      });
    }
    expect(await engine.generate([], {})).toEqual([]);
    idle();
  });

  it("shares steps between calls made at once", async () => {
    const { engine, runner } = make();
    await Promise.all([engine.generate("abc", { maxTokens: 5 }), engine.generate("de", { maxTokens: 5 })]);
    expect(runner.steps.map((step) => step.length)).toEqual([2, 2, 2, 2, 2]);
  });
});

describe("limits", () => {
  it("maxTokens 0 runs the prompt: no token, length", async () => {
    const { engine, runner, idle } = make();
    const result = await engine.generate("abc", { maxTokens: 0 });
    expect(result).toMatchObject({ text: "", tokens: [], finishReason: "length", usage: { promptTokens: 3, completionTokens: 0 } });
    expect(runner.steps).toHaveLength(1);
    expect(await collect(engine.stream("abc", { maxTokens: 0 }))).toEqual([
      { index: 0, text: "", tokens: [], finishReason: "length", usage: result.usage },
    ]);
    idle();
  });

  it("ends at the context's end with length; a prompt that fills it gives no token; a longer one is CONTEXT_OVERFLOW", async () => {
    const { engine } = make();
    const prompt = (length: number) => ({ tokens: new Array<number>(length).fill(7) });
    expect(await engine.generate(prompt(58), { maxTokens: 100 })).toMatchObject({ finishReason: "length", usage: { completionTokens: 6 } });
    expect((await engine.generate(prompt(58))).tokens).toHaveLength(6);
    expect((await engine.generate(prompt(63), { maxTokens: 1 })).tokens).toHaveLength(1);
    expect(await engine.generate(prompt(64), { maxTokens: 1 })).toMatchObject({ tokens: [], finishReason: "length" });
    await expect(engine.generate(prompt(65))).rejects.toEqual(code("CONTEXT_OVERFLOW", "the prompt has 65 tokens; the context has 64"));
  });

  it("B11: a prompt that the cache cannot hold fails at once and holds nobody up; a long answer ends at the real limit", async () => {
    const { engine, idle } = make({ limits: { contextLength: 32, numBlocks: 8, blockSize: 4 }, modelContext: 4096 });
    const [a, b, c] = await Promise.allSettled([
      engine.generate({ tokens: new Array<number>(48).fill(1) }, { maxTokens: 4 }),
      engine.generate("abc", { maxTokens: 4 }),
      engine.generate({ tokens: new Array<number>(25).fill(1) }, { maxTokens: 500, ignoreEos: true }),
    ]);
    expect(a).toMatchObject({ status: "rejected", reason: code("OUT_OF_MEMORY", "48 tokens; there is cache for 32") });
    expect(b).toMatchObject({ status: "fulfilled", value: { tokens: { length: 4 } } });
    expect(c).toMatchObject({ status: "fulfilled", value: { finishReason: "length", usage: { completionTokens: 7 } } });
    idle();
  });

  it("B11: choices that do not fit together run in turns", async () => {
    const wide = make({ limits: { maxSequences: 8, numBlocks: 200 } });
    const tight = make({ limits: { maxSequences: 8, contextLength: 32, numBlocks: 8 } });
    const params: GenerateParams = { n: 8, maxTokens: 16, seed: 3 };
    const { choices } = await wide.engine.generate("abcdefghijklm", params);
    const inTurns = await tight.engine.generate("abcdefghijklm", params);
    expect(inTurns.choices?.map(({ tokens }) => tokens)).toEqual(choices?.map(({ tokens }) => tokens));
    tight.idle();
  });

  it("gives the same tokens with any chunking", async () => {
    const whole = await make({ limits: { maxBatchTokens: 64 } }).engine.generate(
      { tokens: [...Array(40).keys()] },
      { maxTokens: 9, seed: 1 },
    );
    for (const maxBatchTokens of [1, 3, 7]) {
      const { engine } = make({ limits: { maxBatchTokens } });
      const chunked = await engine.generate({ tokens: [...Array(40).keys()] }, { maxTokens: 9, seed: 1 });
      expect(chunked.tokens).toEqual(whole.tokens);
    }
  });
});

describe("choices (B44)", () => {
  it("draw from seed + index, count the prompt once, and equal single calls with those seeds", async () => {
    const { engine, idle } = make();
    const result = await engine.generate("abcdefg", { n: 3, seed: 5, maxTokens: 6, temperature: 1 });
    expect(result.choices).toHaveLength(3);
    expect(result.usage).toEqual({ promptTokens: 7, cachedTokens: 0, completionTokens: 18 });
    for (const [i, choice] of (result.choices ?? []).entries()) {
      const alone = await engine.generate("abcdefg", { seed: 5 + i, maxTokens: 6, temperature: 1 });
      expect(choice).toMatchObject({
        text: alone.text,
        tokens: alone.tokens,
        usage: { ...alone.usage, cachedTokens: 0 },
        routing: alone.routing,
      });
    }
    expect(result.text).toBe(result.choices?.[0]?.text);
    idle();
  });

  it("end each once in a stream, whose joined chunks equal the result; usage comes last, once", async () => {
    const { engine } = make({
      next: (history, sampling) => (sampling.seed === 6 && history.length === 9 ? END_TOKEN : hashNext(47)(history, sampling)),
    });
    const params: GenerateParams = { n: 3, seed: 5, maxTokens: 6, temperature: 1, logprobs: 1 };
    const result = await engine.generate("abcdefg", params);
    const chunks = await collect(engine.stream("abcdefg", params));
    expect(chunks.at(-1)?.usage).toEqual({ ...result.usage, cachedTokens: 4 });
    expect(result.choices?.map(({ finishReason }) => finishReason)).toEqual(["length", "stop", "length"]);
    for (const [index, choice] of (result.choices ?? []).entries()) {
      const own = chunks.filter((chunk) => chunk.index === index);
      expect(own.map(({ text }) => text).join("")).toBe(choice.text);
      expect(own.flatMap(({ tokens }) => tokens)).toEqual(choice.tokens);
      expect(own.flatMap(({ logprobs }) => logprobs ?? [])).toEqual(choice.logprobs);
      expect(own.flatMap(({ routing }) => routing?.ffnExperts ?? [])).toHaveLength(choice.tokens.length);
      expect(own.filter(({ finishReason }) => finishReason !== undefined)).toHaveLength(1);
      expect(own.at(-1)?.finishReason).toBe(choice.finishReason);
    }
    expect(chunks.filter(({ usage }) => usage !== undefined)).toHaveLength(1);
  });

  it("differ without a seed, and repeat with one", async () => {
    const { engine } = make();
    const draw = async (params: GenerateParams) => (await engine.generate("abc", { maxTokens: 12, temperature: 1, ...params })).tokens;
    expect(await draw({ seed: 0 })).toEqual(await draw({ seed: 0 }));
    expect(await draw({})).not.toEqual(await draw({}));
  });
});

describe("more slots to set up than the device's ring has places for", () => {
  const limits = { maxSequences: 128, numBlocks: 1000, maxBatchTokens: 200 };

  it("get room one by one", async () => {
    const { engine, idle } = make({ limits });
    const { choices } = await engine.generate("abcdefg", { n: 128, seed: 5, maxTokens: 3 });
    const alone = await engine.generate("abcdefg", { seed: 5 + 127, maxTokens: 3 });
    expect(choices?.[127]?.tokens).toEqual(alone.tokens);
    idle();
  });

  it("and calls that are aborted meanwhile, in the coming step or behind it, harm nobody", async () => {
    const { engine, runner, idle } = make({ limits: { ...limits, maxBatchTokens: 4 } });
    const wanted = await engine.generate("ab", { temperature: 0, maxTokens: 6 });
    const controllers = Array.from({ length: 6 }, () => new AbortController());
    let set = 0;
    const room = runner.room.bind(runner);
    runner.room = async () => {
      if (++set === 3) for (const i of [0, 3, 5]) controllers[i]?.abort();
      await room();
    };
    const all = await Promise.allSettled(controllers.map(({ signal }) => engine.generate("ab", { temperature: 0, maxTokens: 6, signal })));
    expect(all.map(({ status }) => status)).toEqual(["rejected", "fulfilled", "fulfilled", "rejected", "fulfilled", "rejected"]);
    for (const one of all) if (one.status === "fulfilled") expect(one.value.tokens).toEqual(wanted.tokens);
    idle();
  });
});

describe("stream", () => {
  it("gives a tool call piece by piece", async () => {
    const { engine } = make({ next: says("x(f)#", 1) });
    const chunks = await collect(engine.stream("a", { maxTokens: 9 }));
    expect(chunks.flatMap(({ toolCallDelta }) => toolCallDelta ?? [])).toEqual([
      { index: 0, id: "call_0", name: "f" },
      { index: 0, arguments: "{}" },
    ]);
    expect(chunks.flatMap(({ tokens }) => tokens)).toEqual(encodeFake("x(f)#"));
  });

  it("says in the last chunk which calls are whole, cut off or not", async () => {
    const { engine } = make({ next: says("(f)(g)#", 1) });
    const whole = async (maxTokens: number) => {
      const chunks = await collect(engine.stream("a", { maxTokens }));
      expect(chunks.slice(0, -1).every(({ toolCalls }) => toolCalls === undefined)).toBe(true);
      expect(chunks.at(-1)?.toolCalls).toEqual((await engine.generate("a", { maxTokens })).toolCalls);
      return chunks.at(-1)?.toolCalls?.map(({ name }) => name);
    };
    expect(await whole(2)).toBeUndefined();
    expect(await whole(5)).toEqual(["f"]);
    expect(await whole(9)).toEqual(["f", "g"]);
  });

  it("stops the work when the loop is left", async () => {
    const { engine, runner, idle } = make();
    for await (const chunk of engine.stream("abc", { maxTokens: 50 })) if (chunk.tokens.length > 0) break;
    await ticks(4);
    idle();
    expect(runner.steps.length).toBeLessThan(6);
  });

  it("ends with ABORTED after the chunks that are there", async () => {
    const { engine, idle } = make();
    const controller = new AbortController();
    let text = "";
    const reading = (async () => {
      for await (const chunk of engine.stream("abc", { maxTokens: 50, signal: controller.signal, temperature: 0 })) {
        text += chunk.text;
        if (text.length === 5) controller.abort(new Error("enough"));
      }
    })();
    const error = await reading.then(
      () => undefined,
      (thrown: LongcatError) => thrown,
    );
    expect(error).toEqual(code("ABORTED"));
    expect(error?.cause).toMatchObject({ message: "enough" });
    const partial = (error as LongcatError & { partial: GenerateResult }).partial.text;
    expect(partial.startsWith(text)).toBe(true);
    expect(partial.length).toBeLessThanOrEqual(text.length + 2);
    await ticks(4);
    idle();
  });

  it("takes one prompt, and checks it when iterated", async () => {
    const { engine } = make();
    await expect(collect(engine.stream(["a"] as never))).rejects.toEqual(code("PROMPT_INVALID", "an array is not accepted by stream"));
    await expect(collect(engine.stream("a", { topP: 2 }))).rejects.toEqual(code("OPTION_INVALID", "topP: 2"));
  });
});

describe("abort", () => {
  const aborted = async (promise: Promise<unknown>) =>
    promise.then(
      () => undefined,
      (error: LongcatError) => error,
    );

  it("before the start runs nothing", async () => {
    const { engine, runner, idle } = make();
    const error = await aborted(engine.generate("abc", { signal: AbortSignal.abort() }));
    expect(error).toEqual(code("ABORTED"));
    expect(error?.partial).toMatchObject({ text: "", tokens: [], finishReason: "abort", usage: { promptTokens: 3, completionTokens: 0 } });
    expect(runner.steps).toHaveLength(0);
    idle();
  });

  it("in the queue leaves those before and behind alone", async () => {
    const { engine, idle } = make({ limits: { maxSequences: 1 } });
    const controller = new AbortController();
    const first = engine.generate("abc", { maxTokens: 20, temperature: 0 });
    const waiting = aborted(engine.generate("def", { maxTokens: 20, signal: controller.signal }));
    const behind = engine.generate("abc", { maxTokens: 20, temperature: 0 });
    await ticks(6);
    expect(engine.stats).toMatchObject({ runningSequences: 1, waitingSequences: 2 });
    controller.abort();
    expect(await waiting).toEqual(code("ABORTED"));
    expect((await first).tokens).toEqual((await behind).tokens);
    idle();
  });

  it("in mid-run stops within one step, with what there is, of all choices", async () => {
    const { engine, runner, idle } = make();
    const controller = new AbortController();
    runner.during = (step) => {
      if (step === 5) controller.abort();
    };
    const neighbour = engine.generate("xyz", { maxTokens: 20, temperature: 0 });
    const error = await aborted(engine.generate("abc", { n: 2, maxTokens: 50, signal: controller.signal }));
    const partial = error?.partial as GenerateResult;
    expect(partial.choices).toHaveLength(2);
    for (const { finishReason, tokens, text } of partial.choices ?? []) {
      expect(finishReason).toBe("abort");
      expect(text).toBe(decodeFake(tokens));
    }
    expect(runner.steps).toHaveLength(5);
    await neighbour;
    expect(runner.steps.slice(5).every((step) => step.length === 1)).toBe(true);
    idle();
  });

  it("of an array carries all partial results", async () => {
    const { engine, runner, idle } = make({ limits: { maxSequences: 1 } });
    const controller = new AbortController();
    runner.during = (step) => {
      if (step === 6) controller.abort();
    };
    const error = await aborted(engine.generate(["abc", "def", "ghi"], { maxTokens: 4, signal: controller.signal }));
    const partial = error?.partial as GenerateResult[];
    expect(partial.map(({ finishReason }) => finishReason)).toEqual(["length", "abort", "abort"]);
    await ticks(3);
    idle();
  });

  it("after the end changes nothing", async () => {
    const { engine } = make();
    const controller = new AbortController();
    const result = await engine.generate("abc", { maxTokens: 3, signal: controller.signal });
    controller.abort();
    expect(result.finishReason).toBe("length");
    expect(await engine.generate("abc", { maxTokens: 3 })).toMatchObject({ finishReason: "length" });
  });
});

describe("faults", () => {
  it("in a step reject those that had a part in it; the engine goes on", async () => {
    const { engine, runner, idle } = make({ limits: { maxSequences: 2 } });
    const fine = await engine.generate("ghi", { maxTokens: 4, temperature: 0 });
    const before = runner.steps.length;
    runner.during = (step) => {
      if (step === before + 2) runner.failWith = new Error("boom");
    };
    const all = await Promise.allSettled(["abc", "def", "ghi"].map((prompt) => engine.generate(prompt, { maxTokens: 4, temperature: 0 })));
    expect(all.map(({ status }) => status)).toEqual(["rejected", "rejected", "fulfilled"]);
    expect((all[0] as PromiseRejectedResult).reason).toEqual(code("INTERNAL", "a step failed: boom"));
    expect((all[2] as PromiseFulfilledResult<GenerateResult>).value.tokens).toEqual(fine.tokens);
    idle();
  });

  it("keep their own code when they have one, and take all choices of the call", async () => {
    const { engine, runner, idle } = make({ limits: { maxSequences: 1 } });
    runner.failWith = new LongcatError("OUT_OF_MEMORY", "no room");
    await expect(engine.generate("abc", { n: 4, maxTokens: 4 })).rejects.toEqual(code("OUT_OF_MEMORY", "no room"));
    idle();
    expect((await engine.generate("abc", { maxTokens: 4 })).tokens).toHaveLength(4);
  });

  it("while a slot is set up reject that call alone", async () => {
    const { engine, runner, idle } = make();
    const set = runner.setSampling.bind(runner);
    runner.setSampling = (slot, sampling) => {
      if (sampling.topK === 13) throw new Error("bad slot");
      set(slot, sampling);
    };
    await expect(engine.generate("abc", { topK: 13 })).rejects.toEqual(code("INTERNAL", "bad slot"));
    idle();
    expect((await engine.generate("abc", { topK: 12, maxTokens: 2 })).tokens).toHaveLength(2);
  });
});

describe("faults of the scheduler itself", () => {
  /** An engine whose next step, once `break()` was called, is one that the scheduler cannot make. */
  function breakable() {
    const runner = new FakeRunner();
    let broken = false;
    Object.defineProperty(runner.limits, "maxBatchTokens", {
      get: () => {
        if (!broken) return 16;
        broken = false;
        throw new LongcatError("INTERNAL", "a step cannot be made");
      },
    });
    const info = { endTokens: [END_TOKEN] } as unknown as EngineInfo;
    const engine = Engine.fromParts({
      ...{ runner, info, defaults: { temperature: 0 }, modelContext: 64, close: () => runner.close(), text: fakeText },
    });
    const idle = () => expect(engine.stats).toMatchObject({ runningSequences: 0, waitingSequences: 0, blocksInUse: 0 });
    return { engine, runner, idle, break: () => (broken = true) };
  }

  it("reject every call that runs or waits; later ones start anew", async () => {
    const { engine, runner, idle, break: breakNow } = breakable();
    const fine = await engine.generate("ghi", { maxTokens: 4, temperature: 0 });
    const start = runner.steps.length;
    runner.during = (step) => void (step === start + 1 && breakNow());
    const calls = ["abc", "def", "ghi", "abc", "def", "ghi"].map((prompt) => engine.generate(prompt, { maxTokens: 9, ignoreEos: true }));
    for (const { status, ...rest } of await Promise.allSettled([
      ...calls,
      engine.score("abc".repeat(12)), // longer than the steps before
      collect(engine.stream("abc", { ignoreEos: true })),
    ])) {
      expect(status).toBe("rejected");
      expect((rest as PromiseRejectedResult).reason).toEqual(code("INTERNAL", "a step cannot be made"));
    }
    idle();
    for (let i = 0; i < 5; i++) {
      expect((await engine.generate("ghi", { maxTokens: 4, temperature: 0 })).tokens).toEqual(fine.tokens);
    }
    await engine.close();
    expect(runner.closed).toBe(true);
  });

  it("while a failed step is cleared away do the same", async () => {
    const { engine, runner, idle } = make();
    runner.during = (step) => {
      if (step !== 2) return;
      runner.failWith = new Error("boom");
      // Whoever is asked for a sequence's blocks says that it has none.
      vi.spyOn(BlockManager.prototype, "release").mockImplementationOnce(() => {
        throw new LongcatError("INTERNAL", "cache block 3 has no owner");
      });
    };
    const all = await Promise.allSettled(["abc", "def"].map((prompt) => engine.generate(prompt, { maxTokens: 2 })));
    for (const one of all) expect(one).toMatchObject({ status: "rejected", reason: code("INTERNAL", "has no owner") });
    idle();
    expect((await engine.generate("abc", { maxTokens: 4 })).tokens).toHaveLength(4);
  });
});

describe("prompts", () => {
  it.each<[unknown, string, string]>([
    ["", "PROMPT_INVALID", "the prompt is empty"],
    [{ tokens: [] }, "PROMPT_INVALID", "the prompt is empty"],
    [{ tokens: [1, 50] }, "PROMPT_INVALID", "tokens[1]: 50 is not accepted; give a token id from 0 to 49"],
    [{ tokens: [-1] }, "PROMPT_INVALID", "tokens[0]: -1"],
    [{ tokens: [1.5] }, "PROMPT_INVALID", "tokens[0]: 1.5"],
    [{ tokens: ["1"] }, "PROMPT_INVALID", 'tokens[0]: "1"'],
    [{ tokens: "abc" }, "PROMPT_INVALID", 'tokens: "abc"'],
    [{ tokens: [1], text: "a" }, "PROMPT_INVALID", 'unknown field of a token prompt "text"'],
    [{ prompt: "a" }, "PROMPT_INVALID", "give a string, { messages } or { tokens }"],
    [undefined, "PROMPT_INVALID", "prompt: undefined"],
    [null, "PROMPT_INVALID", "prompt: null"],
    [5, "PROMPT_INVALID", "prompt: 5"],
  ])("%o is %s", async (prompt, wanted, message) => {
    const { engine } = make();
    await expect(engine.generate(prompt as never)).rejects.toEqual(code(wanted, message));
  });

  it("of an array are all checked before any runs; the error names the position", async () => {
    const { engine, runner } = make();
    await expect(engine.generate(["abc", { tokens: [1, 99] }], {})).rejects.toEqual(code("PROMPT_INVALID", "prompts[1]: tokens[1]: 99"));
    const long = { tokens: new Array<number>(65).fill(1) };
    await expect(engine.generate(["abc", "d", long], {})).rejects.toEqual(code("CONTEXT_OVERFLOW", "prompts[2]: the prompt has 65 tokens"));
    expect(runner.steps).toHaveLength(0);
  });

  it("refuse parameters that mean nothing to them", async () => {
    const { engine } = make();
    const chat = { messages: [{ role: "user" as const, content: "abc" }], toolChoice: "none" as const };
    await expect(engine.generate("abc", { toolChoice: "none" })).rejects.toEqual(code("OPTION_INVALID", "toolChoice: needs a chat prompt"));
    await expect(engine.generate({ tokens: [1] }, { parseSpecial: true })).rejects.toEqual(code("OPTION_INVALID", "parseSpecial"));
    await expect(engine.generate(chat, { parseSpecial: true })).rejects.toEqual(code("OPTION_INVALID", "parseSpecial"));
    await expect(engine.generate(chat, { toolChoice: "auto" })).rejects.toEqual(
      code("OPTION_INVALID", 'the prompt says "none" and the parameters "auto"'),
    );
    expect((await engine.generate(chat, { toolChoice: "none", maxTokens: 1 })).tokens).toHaveLength(1);
  });

  it("without a tokenizer are token ids only; text is empty", async () => {
    const { engine } = make({ withText: false });
    const result = await engine.generate({ tokens: [1, 2] }, { maxTokens: 3, logprobs: 0 });
    expect(result).toMatchObject({ text: "", tokens: { length: 3 }, logprobs: [{ bytes: [] }, { bytes: [] }, { bytes: [] }] });
    await expect(engine.generate("abc")).rejects.toEqual(code("PROMPT_INVALID", "this checkpoint has no tokenizer: a string prompt"));
    await expect(engine.generate({ messages: [{ role: "user", content: "a" }] })).rejects.toEqual(code("PROMPT_INVALID", "no tokenizer"));
    await expect(engine.generate({ tokens: [1] }, { stop: "x" })).rejects.toEqual(code("OPTION_INVALID", "no tokenizer"));
    expect(() => engine.detokenize([1])).toThrow(code("PROMPT_INVALID", "no tokenizer"));
  });

  it("tell the runner which ids may be drawn", () => {
    expect(make().runner.allowed).toHaveLength(50);
    expect(make({ withText: false }).runner.allowed).toBeUndefined();
  });
});

describe("score, tokenize, detokenize", () => {
  it("score gives one value for each token but the first, whatever the chunking", async () => {
    for (const maxBatchTokens of [1, 3, 64]) {
      const { engine, idle } = make({ limits: { maxBatchTokens } });
      const { tokens, logprobs, routing } = await engine.score([5, 9, 17, 33, 1]);
      expect(tokens).toEqual([5, 9, 17, 33, 1]);
      expect(logprobs).toEqual([null, -9, -17, -33, -1]);
      expect(routing.ffnExpertsPerToken).toBeCloseTo((0 + 1 + 1 + 2 + 2 + 3 + 3 + 0 + 0 + 1) / 10, 12);
      idle();
    }
  });

  it("score takes text and one token, and refuses what generate refuses", async () => {
    const { engine } = make();
    expect((await engine.score("ab")).tokens).toEqual([0, 1]);
    expect((await engine.score({ tokens: [3] })).logprobs).toEqual([null]);
    await expect(engine.score([])).rejects.toEqual(code("PROMPT_INVALID", "empty"));
    await expect(engine.score([1, 2, 77])).rejects.toEqual(code("PROMPT_INVALID", "tokens[2]: 77"));
    await expect(engine.score(new Array<number>(65).fill(1))).rejects.toEqual(code("CONTEXT_OVERFLOW", "65"));
    await expect(engine.score([1], { temperature: 1 } as never)).rejects.toEqual(code("OPTION_INVALID", 'unknown option "temperature"'));
    await expect(engine.score([1, 2], { signal: AbortSignal.abort() })).rejects.toEqual(code("ABORTED"));
  });

  it("tokenize and detokenize are each other's inverse", async () => {
    const { engine } = make();
    expect(await engine.tokenize("abc")).toEqual([0, 1, 2]);
    expect(engine.detokenize([0, 1, 2])).toBe("abc");
    expect(() => engine.detokenize([50])).toThrow(code("PROMPT_INVALID", "tokens[0]: 50"));
  });
});

describe("close", () => {
  it("aborts what runs and waits, closes the runner once, and everything after is DISPOSED", async () => {
    const { engine, runner } = make({ limits: { maxSequences: 1 } });
    const working = [engine.generate("abc", { maxTokens: 50 }), engine.generate("abc", { maxTokens: 50 }), collect(engine.stream("abc"))];
    const settled = Promise.allSettled(working);
    await ticks(8);
    await Promise.all([engine.close(), engine.close()]);
    for (const result of await settled)
      expect(result).toMatchObject({ status: "rejected", reason: code("ABORTED", "the engine was closed") });
    expect(runner.closed).toBe(true);
    await engine.close();
    await engine[Symbol.asyncDispose]();
    await expect(engine.generate("abc")).rejects.toEqual(code("DISPOSED"));
    await expect(collect(engine.stream("abc"))).rejects.toEqual(code("DISPOSED"));
    await expect(engine.score([1])).rejects.toEqual(code("DISPOSED"));
    await expect(engine.tokenize("abc")).rejects.toEqual(code("DISPOSED"));
  });

  it("aborts a call whose prompt is still being encoded", async () => {
    const { engine } = make();
    const call = engine.generate("abc");
    const closing = engine.close();
    await expect(call).rejects.toEqual(code("ABORTED"));
    await closing;
  });

  it("aborts a call whose encoding ends with it", async () => {
    let dispose: (error: LongcatError) => void = () => undefined;
    const encode = () => new Promise<never>((_, reject) => (dispose = reject));
    const runner = new FakeRunner();
    const info = { endTokens: [END_TOKEN] } as unknown as EngineInfo;
    const engine = Engine.fromParts({
      ...{ runner, info, defaults: {}, modelContext: 64, text: { ...fakeText, encode } },
      close: async () => dispose(new LongcatError("DISPOSED", "the tokenizer was closed before the text was encoded")),
    });
    const call = engine.generate("abc");
    await Promise.all([expect(call).rejects.toEqual(code("ABORTED", "the engine was closed")), engine.close()]);
  });
});
