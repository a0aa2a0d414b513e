/** The bundled checkpoint on two ranks, processes with the CPU as their device: the same answers as on one, and nothing left behind. */
import { readdirSync, readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import type { Engine } from "../../ts/engine/engine.js";
import type { EngineOptions } from "../../ts/engine/options.js";
import type { Choice, Chunk, GenerateResult, Prompt, TokenLogprob } from "../../ts/engine/types.js";
import type { LongcatError } from "../../ts/errors.js";
import type { GenerateParams } from "../../ts/sampling/parameters.js";
import { alive, collect, engines, GOLDENS, GREEDY, ids, idle, promptOf, refused, SORT, SUM, THINK, user } from "../helpers/mini.js";
import { framesOf, post, servers } from "../server/servers.js";

const OPTIONS: EngineOptions = { device: "cpu", cacheBytes: 64 * 1024 * 1024 };
const { open, closeAll } = engines(OPTIONS);
const { over, closeAll: closeServers } = servers();
const load = (options: EngineOptions = {}) => open(undefined, { parallel: { expert: 2 }, ...options });

let engine: Engine;
let one: Engine;
beforeAll(async () => {
  [engine, one] = await Promise.all([load(), open(undefined, { threads: 1 })]);
});
afterAll(async () => {
  await closeServers();
  await closeAll();
});

/** The children of this process that are ranks, which have the number of theirs in their command line. */
function rankProcesses(): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        const parent = /^PPid:\s*(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
        return Number(parent) === process.pid && readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("rank-main");
      } catch {
        return false; // it has just ended
      }
    });
}

/** What answers have alike however many ranks there are; ids of calls are drawn. */
const answer = ({ text, tokens, finishReason, reasoning, toolCalls, usage }: Choice) => ({
  ...{ text, tokens, finishReason, reasoning, promptTokens: usage.promptTokens, completionTokens: usage.completionTokens },
  toolCalls: toolCalls?.map(({ name, arguments: text }) => [name, text]),
});
/** The same of a chunk. */
const piece = ({ toolCallDelta, toolCalls, usage, ...rest }: Chunk) => ({
  ...rest,
  ...(usage && { usage: { ...usage, cachedTokens: 0 } }),
  ...(toolCallDelta && { toolCallDelta: { ...toolCallDelta, id: toolCallDelta.id && "drawn" } }),
  ...(toolCalls && { toolCalls: toolCalls.map((call) => ({ ...call, id: "drawn" })) }),
});
const CALCULATOR = {
  type: "function" as const,
  function: {
    name: "calculator",
    description: "Computes an expression.",
    parameters: { type: "object", properties: { expression: { type: "string" } }, required: ["expression"] },
  },
};

const CLOCK = {
  type: "function" as const,
  function: { name: "clock", parameters: { type: "object", properties: { zone: { enum: ["CET", "UTC"] } } } },
};
const CALL_CLOCK = { type: "function" as const, function: { name: "clock" } };
const INTEGER: GenerateParams = { responseFormat: { type: "json_schema", json_schema: { schema: { type: "integer", maximum: 99_999 } } } };

describe("mini on two ranks", () => {
  it("says what it is", () => {
    expect(engine.info).toMatchObject({
      parallel: { expert: 2, rank: 0, exchange: "peer" },
      device: "cpu",
      maxSequences: 128,
      hasTokenizer: true,
    });
    expect(engine.info.directory).toBe(one.info.directory);
    expect(engine.failure).toBeUndefined();
    expect(rankProcesses()).toHaveLength(2);
  });

  it("gives the recorded greedy tokens of all cases, all at once", async () => {
    const results = await Promise.all(
      GOLDENS.map((golden) => engine.generate(promptOf(golden), { ...GREEDY, maxTokens: golden.greedy_ids.length })),
    );
    for (const [i, { tokens }] of results.entries()) expect(tokens, `case ${i}`).toEqual(GOLDENS[i]?.greedy_ids);
    expect(engine.stats.ranks?.map(({ generatedTokens }) => generatedTokens > 0)).toEqual([true, true]);
    idle(engine);
  });

  it.each<[string, Prompt | Prompt[], GenerateParams]>([
    ["reasoning", THINK, GREEDY],
    ["several choices", SORT, { ...GREEDY, n: 3 }],
    ["a tool call", { ...user("What is 441 * 861?"), tools: [CALCULATOR], toolChoice: "required" }, GREEDY],
    ["a call that is free to come", { ...user("What is 441 * 861?"), tools: [CALCULATOR] }, GREEDY],
    [
      "a call of one of several tools",
      { ...user("What is 441 * 861?"), tools: [CALCULATOR, CLOCK] },
      { ...GREEDY, toolChoice: CALL_CLOCK },
    ],
    ["a call after reasoning", { ...THINK, tools: [CLOCK], toolChoice: "required" }, { ...GREEDY, maxTokens: 300 }],
    ["no call", { ...user("What is 441 * 861?"), tools: [CALCULATOR] }, { ...GREEDY, toolChoice: "none" }],
    ["a format", user("Describe a cat."), { ...GREEDY, maxTokens: 60, ...INTEGER }],
    ["a format, of text", "Once upon a time", { ...GREEDY, maxTokens: 60, ...INTEGER }],
    ["a format after reasoning", THINK, { ...GREEDY, maxTokens: 300, ...INTEGER }],
    ["a format or a call, drawn", { ...user("Hm?"), tools: [CALCULATOR] }, { temperature: 1.5, seed: 5, n: 4, maxTokens: 200, ...INTEGER }],
    ["any object", user("Describe a cat."), { temperature: 1, seed: 2, maxTokens: 80, responseFormat: { type: "json_object" } }],
    ["special tokens in a text", "<longcat_think>\nHm", { ...GREEDY, maxTokens: 40, parseSpecial: true }],
    ["a stop string in reasoning", THINK, { ...GREEDY, stop: ["\n", "e "] }],
    ["an array", [SUM, "Once upon a time", ids(40)], { ...GREEDY, maxTokens: 12 }],
    ["a stop string", "Once upon a time", { ...GREEDY, maxTokens: 40, stop: ["."] }],
  ])("answers as on one device, piece by piece: %s", async (_, prompt, params) => {
    const ask = async (of: Engine) => {
      const chunks: Chunk[] = [];
      const result: GenerateResult | GenerateResult[] = await of.generate(prompt as string, params, (chunk) => chunks.push(chunk));
      const choices = [result].flat().flatMap((first) => (first.choices ?? [first]).map(answer));
      return { choices, chunks: chunks.map(piece).sort((a, b) => a.index - b.index) };
    };
    expect(await ask(engine)).toEqual(await ask(one));
  });

  it("refuses as one device does, before anything runs", async () => {
    const refusals = async (of: Engine) => {
      const asked: [Prompt | Prompt[], GenerateParams][] = [
        [user("a"), { responseFormat: { type: "json_schema", json_schema: { schema: { type: "integer", multipleOf: 7 } } } }],
        [[SUM, { ...SUM, tools: [{ ...CALCULATOR, function: { name: "f", parameters: { not: {} } } }] }], { toolChoice: "required" }],
        [user("a"), { responseFormat: { type: "json_object" }, ignoreEos: true }],
        [{ ...user("a"), tools: [CALCULATOR] }, { toolChoice: { type: "function", function: { name: "x" } } }],
      ];
      const errors: string[] = [];
      for (const [prompt, params] of asked)
        await of.generate(prompt as string, params).catch(({ code, message }: LongcatError) => errors.push(`${code} ${message}`));
      return errors;
    };
    const { generatedTokens } = engine.stats;
    const errors = await refusals(engine);
    expect(errors).toHaveLength(4);
    expect(errors).toEqual(await refusals(one));
    expect(engine.stats.generatedTokens).toBe(generatedTokens);
  });

  it("takes schemas that are no plain data, as one device does", async () => {
    const schema = new Proxy({ type: "integer", description: () => "a function", maximum: 9 }, {});
    const params: GenerateParams = { ...GREEDY, responseFormat: { type: "json_schema", schema } };
    expect(answer(await engine.generate(SUM, params))).toEqual(answer(await one.generate(SUM, params)));
  });

  it("streams what it generates", async () => {
    const chunks = await collect(engine.stream(THINK, GREEDY));
    const { text, reasoning, tokens } = await engine.generate(THINK, GREEDY);
    expect(chunks.map((chunk) => chunk.text).join("")).toBe(text);
    expect(chunks.map((chunk) => chunk.reasoning ?? "").join("")).toBe(reasoning);
    expect(chunks.flatMap((chunk) => chunk.tokens)).toEqual(tokens);
    expect(chunks.at(-1)).toMatchObject({ finishReason: "stop", usage: { promptTokens: 24 } });
  });

  it("draws the same for the same seed, alone and beside others", async () => {
    const params = { temperature: 1, seed: 11, maxTokens: 24, logprobs: 2 };
    const alone = await engine.generate("In a village", params);
    const [beside] = await Promise.all([
      engine.generate("In a village", params),
      ...[1, 2, 3, 4, 5].map((seed) => engine.generate(ids(30, seed), { ...params, seed })),
    ]);
    expect(beside.tokens).toEqual(alone.tokens);
    expect(beside.logprobs).toEqual(alone.logprobs);
  });

  it("log-probabilities and scores are those of one device, but for the order in which experts are added", async () => {
    const near = (a: readonly (number | null)[], b: readonly (number | null)[]) =>
      expect(Math.max(...a.map((value, i) => Math.abs((value ?? 0) - (b[i] ?? 0))))).toBeLessThan(1e-4);
    const of = (entries: TokenLogprob[] | undefined) => (entries ?? []).map(({ logprob }) => logprob);
    const params = { ...GREEDY, maxTokens: 16, logprobs: 1 };
    near(of((await engine.generate(SUM, params)).logprobs), of((await one.generate(SUM, params)).logprobs));
    const [many, alone] = await Promise.all([engine.score(ids(200)), one.score(ids(200))]);
    expect(many.tokens).toEqual(alone.tokens);
    near(many.logprobs, alone.logprobs);
  });

  it("finds a prompt's beginning where it has run", async () => {
    const system = ids(64, 3).tokens;
    await engine.generate({ tokens: [...system, 20] }, { ...GREEDY, maxTokens: 1 });
    for (const last of [21, 22, 23])
      expect((await engine.generate({ tokens: [...system, last] }, { ...GREEDY, maxTokens: 1 })).usage.cachedTokens).toBe(64);
  });

  it("ends calls by their signal, and goes on", async () => {
    const controller = new AbortController();
    const call = engine.generate("Once upon a time", { maxTokens: 2000, ignoreEos: true, signal: controller.signal }, () =>
      controller.abort("enough"),
    );
    const error = (await call.catch((reason: unknown) => reason)) as LongcatError;
    expect(error).toEqual(refused("ABORTED", "the call was aborted"));
    expect(error.cause).toBe("enough");
    expect((error.partial as GenerateResult).tokens.length).toBeLessThan(500);
    await vi.waitFor(() => idle(engine));
    await alive(engine);
  });

  it("serves over HTTP, streamed and not, and tells what each rank does", async () => {
    const { url } = await over(engine);
    const body = { messages: SUM.messages, temperature: 0 };
    expect((await post(url, "/v1/chat/completions", body)).json.choices[0].message.content).toBe("136");
    const { text } = await post(url, "/v1/chat/completions", { ...body, stream: true });
    const frames = framesOf(text);
    expect(frames.at(-1)).toBe("[DONE]");
    const pieces = frames.slice(0, -1).map((frame) => JSON.parse(frame).choices[0]?.delta.content ?? "");
    expect(pieces.join("")).toBe("136");
    const metrics = await (await fetch(`${url}/metrics`)).text();
    expect(metrics).toMatch(/^longcat_rank_generation_tokens_total\{model_name="mini",rank="1"\} [1-9]/m);
    expect((await fetch(`${url}/health`)).status).toBe(200);
  });
});

describe("the life of two ranks", () => {
  it("closing during work aborts it and leaves no process", async () => {
    const engine = await load();
    const before = rankProcesses().length;
    const calls = [1, 2, 3].map((seed) =>
      engine.generate(ids(30, seed), { maxTokens: 2000, ignoreEos: true }).catch((error: unknown) => error),
    );
    await new Promise((resolve) => setTimeout(resolve, 100));
    await engine.close();
    for (const error of await Promise.all(calls)) expect(error).toEqual(refused("ABORTED", "the engine was closed"));
    expect(rankProcesses()).toHaveLength(before - 2);
    await expect(engine.ended).resolves.toBeUndefined();
    await expect(engine.generate("a")).rejects.toThrow(refused("DISPOSED"));
  });

  it("a rank that dies: COMM_ERROR that names it, at the calls, in health, at later calls; and a new load works", async () => {
    const before = rankProcesses();
    const engine = await load();
    const { url } = await over(engine);
    const call = engine.generate(ids(30), { maxTokens: 2000, ignoreEos: true }).catch((error: unknown) => error);
    await new Promise((resolve) => setTimeout(resolve, 100));
    const victim = rankProcesses().filter((pid) => !before.includes(pid));
    process.kill(Math.max(...victim), "SIGKILL");
    expect(await call).toEqual(refused("COMM_ERROR", "rank 1 of 2"));
    await expect(engine.ended).rejects.toThrow(refused("COMM_ERROR", "rank 1 of 2"));
    expect(engine.failure).toEqual(refused("COMM_ERROR", "rank 1 of 2"));
    await expect(engine.generate(SUM)).rejects.toThrow(refused("COMM_ERROR", "rank 1 of 2"));
    const health = await fetch(`${url}/health`);
    expect([health.status, ((await health.json()) as { reason: string }).reason]).toEqual([503, expect.stringContaining("rank 1 of 2")]);
    expect((await post(url, "/v1/completions", { prompt: "a" })).status).toBe(503);
    await engine.close();
    expect(rankProcesses().length).toBe(before.length);
    await alive(await load());
  });

  it("ranks that do not share the experts out evenly are refused before anything starts", async () => {
    await expect(load({ parallel: { expert: 5 } })).rejects.toThrow(
      refused("OPTION_INVALID", "parallel.expert: 5 is not accepted: 24 experts"),
    );
  });

  it("a load that is aborted leaves no process", async () => {
    const before = rankProcesses().length;
    await expect(load({ signal: AbortSignal.abort() })).rejects.toThrow(refused("ABORTED"));
    await expect(load({ signal: AbortSignal.timeout(150) })).rejects.toThrow(refused("ABORTED", "the load was aborted"));
    expect(rankProcesses()).toHaveLength(before);
  });
});
