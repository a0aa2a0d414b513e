/** Speculation over the bundled checkpoint: the same bits as without, whatever is asked for and whatever goes on beside. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Engine } from "../../ts/engine/engine.js";
import type { Chunk, GenerateResult, Prompt } from "../../ts/engine/types.js";
import type { GenerateParams } from "../../ts/sampling/parameters.js";
import { modelPath } from "../helpers/fixtures.js";
import * as mini from "../helpers/mini.js";

const { bits, engines, GOLDENS, GREEDY, golden, idle, ids, promptOf, refused, user } = mini;
const { open, closeAll } = engines();
afterAll(closeAll);

let plain: Engine;
beforeAll(async () => {
  plain = await open(undefined, { speculative: "off" });
});

/** All that must be the same: the ids of calls are random. */
const same = ({ text, tokens, finishReason, logprobs, routing, toolCalls, reasoning, choices }: GenerateResult): unknown => ({
  ...{ text, tokens, finishReason, routing, reasoning, choices: choices?.map(same as (choice: GenerateResult) => unknown) },
  toolCalls: toolCalls?.map(({ name, arguments: args }) => [name, args]),
  logprobs: bits(logprobs),
});

const STORY = user("Tell me a story.");
const TEXTS: Prompt[] = ["Once upon a time", "In a village by the lake,", STORY, user("Compute 56 + 80."), ids(40, 2)];

/** What may be asked for. */
const CALLS: Record<string, GenerateParams> = {
  greedy: GREEDY,
  sampled: { temperature: 1, seed: 1 },
  "hot, with alternatives": { temperature: 2, seed: 2, logprobs: 5 },
  filtered: { temperature: 1, topP: 0.7, topK: 20, minP: 0.02, seed: 3, logprobs: 0 },
  penalised: { temperature: 0.8, seed: 4, presencePenalty: 1, frequencyPenalty: 0.7, repetitionPenalty: 1.3, logprobs: 2 },
  "greedy, penalised": { temperature: 0, presencePenalty: 2, repetitionPenalty: 1.2, logprobs: 1 },
  biased: { temperature: 0, logitBias: { 25: -100, 284: 4 }, logprobs: 1 },
  "several choices": { temperature: 1, seed: 5, n: 3 },
  "over end tokens": { temperature: 0, ignoreEos: true, logprobs: 1 },
  "stop string": { temperature: 0, stop: ["he ", "a c"] },
  "stop token": { temperature: 1, seed: 6, stopTokens: [25, 23] },
  "a format": { temperature: 1, seed: 7, responseFormat: { type: "json_object" } },
};

describe.each([{ drafts: 1 }, { drafts: 3 }, "auto" as const])("speculative: %j", (speculative) => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await open(undefined, { speculative });
  });

  it.each(Object.keys(CALLS))("%s: the same as without, alone and beside others, streamed and not", async (name) => {
    const params: GenerateParams = { maxTokens: 40, ...CALLS[name] };
    const wanted = (await plain.generate(TEXTS, params)).map(same);
    expect((await engine.generate(TEXTS, params)).map(same)).toEqual(wanted);
    for (const [i, prompt] of TEXTS.entries()) {
      const chunks: Chunk[] = [];
      const alone = await engine.generate(prompt, params, (chunk) => chunks.push(chunk));
      expect(same(alone)).toEqual(wanted[i]);
      const first = chunks.filter(({ index }) => index === 0);
      expect(first.map(({ text }) => text).join("")).toBe(alone.text);
      expect(first.flatMap(({ tokens }) => tokens)).toEqual(alone.tokens);
      expect(first.flatMap(({ routing }) => routing?.ffnExperts ?? [])).toHaveLength(alone.tokens.length);
    }
    idle(engine);
  });

  const greedily = (one: Engine) =>
    Promise.all(
      GOLDENS.map((_, i) => one.generate(promptOf(GOLDENS[i]!), { ...GREEDY, maxTokens: golden(i).greedy_ids.length, logprobs: 1 })),
    );

  it("answers the recorded prompts as without", async () => {
    expect((await greedily(engine)).map(same)).toEqual((await greedily(plain)).map(same));
    idle(engine);
  });

  // Of "auto" it is chance whether it drafts here at all.
  it.runIf(speculative !== "auto")("accepts four first drafts of five there", async () => {
    const before = engine.stats.speculation;
    await greedily(engine);
    const after = engine.stats.speculation;
    const accepted = (after.acceptedByPlace[0] ?? 0) - (before.acceptedByPlace[0] ?? 0);
    expect(accepted / (after.draftedSteps - before.draftedSteps)).toBeGreaterThan(0.75);
  });

  it("ends at every limit as without", async () => {
    for (const maxTokens of [0, 1, 2, 3, 4, 5, 6, 7]) {
      const params: GenerateParams = { ...GREEDY, maxTokens, logprobs: 1 };
      expect(same(await engine.generate(STORY, params))).toEqual(same(await plain.generate(STORY, params)));
    }
  });

  it("is aborted in mid-draft with what was told, and leaves its neighbours alone", async () => {
    const wanted = same(await plain.generate(STORY, { ...GREEDY, logprobs: 1 }));
    for (const at of [1, 2, 5]) {
      const controller = new AbortController();
      const told: number[] = [];
      const [aborted, other] = await Promise.allSettled([
        engine.generate(STORY, { ...GREEDY, signal: controller.signal }, ({ tokens }) => {
          told.push(...tokens);
          if (told.length === at) controller.abort();
        }),
        engine.generate(STORY, { ...GREEDY, logprobs: 1 }),
      ]);
      expect(aborted).toMatchObject({ status: "rejected", reason: { code: "ABORTED", partial: { tokens: told } } });
      expect(same((other as PromiseFulfilledResult<GenerateResult>).value)).toEqual(wanted);
    }
    idle(engine);
  });
});

describe("with drafts", () => {
  const params: GenerateParams = { temperature: 1, seed: 3, maxTokens: 60, ignoreEos: true, logprobs: 1 };

  it.each<[string, Parameters<typeof open>[1]]>([
    ["in steps of 16 tokens", { maxBatchTokens: 16 }],
    ["in a cache that is too small for all", { cacheBytes: 1_500_000, prefixCache: false }],
    ["with decode-made blocks reused", { prefixCache: "all" }],
    ["with one thread", { threads: 1 }],
  ])("%s: the same as without", async (_name, options) => {
    const engine = await open(undefined, { speculative: { drafts: 2 }, ...options });
    const wanted = (await plain.generate(TEXTS, params)).map(same);
    expect((await engine.generate([...TEXTS, ...TEXTS], params)).map(same)).toEqual([...wanted, ...wanted]);
    expect((await engine.generate(TEXTS, params)).map(same)).toEqual(wanted);
    if (options?.cacheBytes !== undefined) expect(engine.stats.preemptions).toBeGreaterThan(0);
    idle(engine);
    await engine.close();
  });

  it("goes on with a chat as without: what the answer left in the cache is right, drafts or not", async () => {
    for (const prefixCache of [true, "all"] as const) {
      const engines = [
        await open(undefined, { speculative: { drafts: 3 }, prefixCache }),
        await open(undefined, { speculative: "off", prefixCache }),
      ];
      const results = [];
      for (const engine of engines) {
        const { text } = await engine.generate(STORY, GREEDY);
        const messages = [
          ...STORY.messages,
          { role: "assistant" as const, content: text },
          { role: "user" as const, content: "Tell me a story." },
        ];
        results.push(await engine.generate({ messages }, { ...GREEDY, logprobs: 2 }));
        await engine.close();
      }
      const [drafted, without] = results as [GenerateResult, GenerateResult];
      expect(same(drafted)).toEqual(same(without));
      expect(drafted.usage).toEqual(without.usage);
    }
  });

  it("scores as without", async () => {
    const engine = await open(undefined, { speculative: { drafts: 2 } });
    expect(await engine.score(ids(150, 1))).toEqual(await plain.score(ids(150, 1)));
    await engine.close();
  });
});

describe("a checkpoint without a draft head", () => {
  it("refuses drafts that are demanded before it loads anything, and has none with auto", async () => {
    await expect(open(modelPath("tiny-a"), { speculative: { drafts: 2 } })).rejects.toEqual(
      refused("OPTION_INVALID", "speculative: { drafts: 2 } needs a draft head, and the checkpoint has none"),
    );
    const engine = await open(modelPath("tiny-a"));
    expect(engine.info.speculative).toBe("off");
    expect((await engine.generate(ids(5), { maxTokens: 4 })).timings).not.toHaveProperty("drafts");
  });
});
