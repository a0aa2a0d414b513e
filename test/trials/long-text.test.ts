/** Texts far over the context are refused soon, and meanwhile nobody else waits (field trial B38). */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Engine } from "../../ts/engine/engine.js";
import type { Prompt } from "../../ts/engine/types.js";
import { alive, engines, GREEDY, idle, refused, user } from "../helpers/mini.js";
import { onABusyMachine } from "../helpers/time.js";

const { open, closeAll } = engines();
afterAll(closeAll);
let engine: Engine;
beforeAll(async () => {
  engine = await open();
  await alive(engine);
});

/** The trial's bounds: 2 s and 250 ms. */
const [ANSWER_MS, LAG_MS] = [onABusyMachine(2000), onABusyMachine(250)];

/** Runs `work` beside a stream. The longest times, in ms, that timers came late and that the stream's tokens kept apart. */
async function besideAStream(work: () => Promise<unknown>): Promise<{ lag: number; apart: number; tokens: number }> {
  const longest = { lag: 0, apart: 0, tokens: 0 };
  let tick = performance.now();
  const timer = setInterval(() => {
    const now = performance.now();
    longest.lag = Math.max(longest.lag, now - tick - 10);
    tick = now;
  }, 10);
  const controller = new AbortController();
  let started: () => void = () => undefined;
  const running = new Promise<void>((resolve) => {
    started = resolve;
  });
  const stream = (async () => {
    let last = performance.now();
    for await (const { tokens } of engine.stream("Once upon a time", { ignoreEos: true, seed: 1, signal: controller.signal })) {
      const now = performance.now();
      if (longest.tokens > 0) longest.apart = Math.max(longest.apart, now - last);
      last = now;
      longest.tokens += tokens.length;
      started();
    }
  })().catch((error: unknown) => expect(error).toEqual(refused("ABORTED")));
  await running;
  await work();
  await new Promise((resolve) => setTimeout(resolve, 50));
  clearInterval(timer);
  controller.abort();
  await stream;
  return longest;
}

const prose = "The quick brown fox, whose name was Owen, jumped over 12 lazy dogs; then it slept.\n".repeat(12_500);
let state = 7;
const letters = Array.from({ length: 300_000 }, () => {
  state = (Math.imul(state, 1103515245) + 12345) >>> 0;
  return String.fromCharCode(97 + ((state >>> 16) % 26));
}).join("");
const texts: [string, string][] = [
  ...["a", "_", " ", "\n", "1", "é", "中", "👍"].map((unit): [string, string] => [
    `${JSON.stringify(unit)} × 1,000,000`,
    unit.repeat(1_000_000),
  ]),
  ["ab × 500,000", "ab".repeat(500_000)],
  ["300,000 random letters", letters],
  ["a megabyte of prose", prose],
];

describe("B38: a million characters", () => {
  it.each(texts)("%s: refused by every call that takes text, while a stream runs on", async (_, text) => {
    const long: [string, () => Promise<unknown>][] = [
      ["generate", () => engine.generate(text)],
      ["score", () => engine.score(text)],
      ["tokenize", () => engine.tokenize(text)],
      ["a chat", () => engine.generate(user(text))],
      ["an array", () => engine.generate(["Once", text])],
    ];
    const { lag, apart, tokens } = await besideAStream(async () => {
      for (const [name, call] of long) {
        const start = performance.now();
        await expect(call(), name).rejects.toEqual(refused("CONTEXT_OVERFLOW", "the context has 4096"));
        expect(performance.now() - start, name).toBeLessThan(ANSWER_MS);
      }
    });
    expect(tokens).toBeGreaterThan(1);
    expect(lag).toBeLessThan(LAG_MS);
    expect(apart).toBeLessThan(LAG_MS);
    await alive(engine);
    idle(engine);
  });

  it("as stop strings and biases are refused at once", async () => {
    await expect(engine.generate("Once", { stop: "a".repeat(1_000_000) })).rejects.toEqual(refused("OPTION_INVALID", "stop"));
    // A Map: counting a record's million keys alone takes the better part of a second.
    const logitBias = new Map(Array.from({ length: 1_000_000 }, (_, i) => [i, 1]));
    const start = performance.now();
    await expect(engine.generate("Once", { logitBias })).rejects.toEqual(refused("OPTION_INVALID", "logitBias: 1000000 entries"));
    expect(performance.now() - start).toBeLessThan(LAG_MS);
    await alive(engine);
  });

  it("as twenty thousand messages are refused before they are rendered, as two thousand prompts run while others go on", async () => {
    const messages = Array.from({ length: 20_000 }, (_, i) => ({ role: i % 2 ? ("assistant" as const) : ("user" as const), content: "a" }));
    const many = Array.from({ length: 2000 }, () => "Once");
    const { lag } = await besideAStream(async () => {
      await expect(engine.generate({ messages })).rejects.toEqual(refused("CONTEXT_OVERFLOW", "20000 tokens; the context has 4096"));
      expect(await engine.generate(many, { ...GREEDY, maxTokens: 1 })).toHaveLength(2000);
    });
    expect(lag).toBeLessThan(LAG_MS);
  });

  it("as ten million ids, or where something else belongs, are refused at once and shown in short", async () => {
    const tokens = new Array<number>(1e7).fill(28);
    const wrong: [() => Promise<unknown>, ReturnType<typeof refused>][] = [
      [() => engine.generate({ tokens }), refused("CONTEXT_OVERFLOW", "10000000 tokens; the context has 4096")],
      [() => engine.score(tokens), refused("CONTEXT_OVERFLOW", "10000000 tokens")],
      [() => engine.generate({ tokens: "a".repeat(1e7) } as never), refused("PROMPT_INVALID", "tokens: ")],
      [() => engine.generate("Once", { stop: tokens } as never), refused("OPTION_INVALID", "stop: 10000000 strings")],
      [() => engine.generate("Once", { seed: tokens } as never), refused("OPTION_INVALID", "seed: [28,28,28")],
      [() => engine.generate("Once", { seed: [[tokens, tokens], { a: tokens }] } as never), refused("OPTION_INVALID", "seed: [[[28,28")],
    ];
    for (const [call, error] of wrong) {
      const start = performance.now();
      const thrown = await call().catch((reason: Error) => reason);
      expect(performance.now() - start).toBeLessThan(LAG_MS);
      expect(thrown).toEqual(error);
      expect((thrown as Error).message.length).toBeLessThan(300);
    }
    await alive(engine);
  });

  it("that fit take no longer for being one run: as many tokens as the context holds, in time that grows with them", async () => {
    // mini has no token of several of these: each is one token at least, so half of the context fits for certain.
    const timed = async (prompt: Prompt): Promise<number> => {
      const start = performance.now();
      await engine.tokenize(prompt);
      return performance.now() - start;
    };
    for (const unit of ["a", "_", " ", "\n", "1"]) {
      expect(await timed(unit.repeat(2000))).toBeLessThan(onABusyMachine(250));
      expect((await engine.generate(unit.repeat(2000), { ...GREEDY, maxTokens: 1 })).usage.completionTokens).toBe(1);
    }
  });
});
