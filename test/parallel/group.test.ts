/** Ranks in processes of their own answer what one engine does, wherever a request goes and whatever the others do. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Engine } from "../../ts/engine/engine.js";
import type { Chunk, Prompt } from "../../ts/engine/types.js";
import type { GenerateParams } from "../../ts/sampling/parameters.js";
import { modelPath } from "../helpers/paths.js";
import { childrenOf, gone } from "../helpers/processes.js";
import { group, longAnswer, SMALL } from "./groups.js";

const PROMPTS: Prompt[] = [
  "Once upon a time",
  { messages: [{ role: "user", content: "Compute 56 + 80." }] },
  { messages: [{ role: "user", content: "Compute 80 - 38." }] },
  { tokens: [5, 9, 17, 33, 65] },
  "The quick brown fox jumps over the lazy dog. ".repeat(12),
];
const GREEDY = { temperature: 0, maxTokens: 24 };

/** One engine's answers, which ranks are compared with. */
let answers: number[][];
beforeAll(async () => {
  await using engine = await Engine.load(modelPath("mini"), SMALL);
  answers = (await engine.generate(PROMPTS, GREEDY)).map(({ tokens }) => tokens);
});

afterAll(async () => {
  await gone(childrenOf(process.pid).filter((pid) => !before.includes(pid)));
});
const before = childrenOf(process.pid);

describe("a group", () => {
  it.each([2, 4])("of %i ranks answers on each rank what one engine answers", async (ranks) => {
    const some = await group(ranks);
    expect(some.ranks.map(({ rank, info }) => [rank, info.device, info.parallel.expert])).toEqual(
      Array.from({ length: ranks }, (_, rank) => [rank, "cpu", ranks]),
    );
    for (let rank = 0; rank < ranks; rank++)
      for (const [i, prompt] of PROMPTS.entries()) {
        const { tokens } = await some.generate(rank, prompt, GREEDY, () => undefined).done;
        expect(tokens).toEqual(answers[i]);
      }
  });

  it("answers many requests at once, of all kinds and lengths, on all ranks", async () => {
    const some = await group(2);
    const calls = Array.from({ length: 40 }, (_, i) =>
      some.generate(i % 3 === 0 ? 0 : 1, PROMPTS[i % PROMPTS.length]!, GREEDY, () => undefined),
    );
    const results = await Promise.all(calls.map(({ done }) => done));
    for (const [i, { tokens }] of results.entries()) expect(tokens).toEqual(answers[i % PROMPTS.length]);
  });

  it("answers a request that comes to one rank while another decodes, and when all are idle again", async () => {
    const some = await group(2);
    const long = longAnswer(some, 0, 100);
    await long.started;
    expect((await some.generate(1, PROMPTS[1]!, GREEDY, () => undefined).done).tokens).toEqual(answers[1]);
    const { tokens } = await long.done;
    expect(tokens.slice(0, 24)).toEqual(answers[0]);
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect((await some.generate(1, PROMPTS[2]!, GREEDY, () => undefined).done).tokens).toEqual(answers[2]);
  });

  it("hands out pieces that join to the result, and counts what it did", async () => {
    const some = await group(2);
    const pieces: Chunk[] = [];
    const result = await some.generate(1, PROMPTS[0]!, { ...GREEDY, n: 2, logprobs: 1 }, (chunk) => pieces.push(chunk)).done;
    for (const [index, choice] of result.choices!.entries()) {
      const own = pieces.filter((piece) => piece.index === index);
      expect(own.map(({ text }) => text).join("")).toBe(choice.text);
      expect(own.flatMap(({ logprobs }) => logprobs)).toEqual(choice.logprobs);
    }
    expect(some.stats(1)).toMatchObject({ generatedTokens: 48 });
    expect(some.stats(0)).toMatchObject({ generatedTokens: 0, runningSequences: 0 });
  });

  it("scores as one engine does", async () => {
    await using engine = await Engine.load(modelPath("mini"), SMALL);
    const ids = await engine.tokenize("Once upon a time there was");
    const some = await group(2);
    const scores = await Promise.all([0, 1].map((rank) => some.score(rank, ids, {}).done));
    const { logprobs, ...others } = await engine.score(ids);
    expect(scores[1]).toEqual(scores[0]);
    expect(scores[0]).toMatchObject(others);
    // Ranks add their experts' products among themselves first, which rounds otherwise.
    for (const [i, logprob] of logprobs.entries()) expect(scores[0]?.logprobs[i] ?? 1).toBeCloseTo(logprob ?? 1, 4);
  });

  it("draws the same from the same seed on every rank, with and without drafts", async () => {
    const sampled = { temperature: 1, seed: 3, maxTokens: 32 };
    await using engine = await Engine.load(modelPath("mini"), SMALL);
    const { tokens } = await engine.generate("Once upon a time", sampled);
    for (const speculative of ["off", { drafts: 2 }] as const) {
      const some = await group(2, "mini", { speculative });
      const calls = [0, 1].map((rank) => some.generate(rank, "Once upon a time", sampled, () => undefined).done);
      for (const result of await Promise.all(calls)) expect(result.tokens).toEqual(tokens);
    }
  });

  it("has seven ranks over fourteen experts", async () => {
    await using engine = await Engine.load(modelPath("tiny-a"), SMALL);
    const prompt = { tokens: Array.from({ length: 200 }, (_, i) => 1 + ((i * 37) % 90)) };
    const { tokens } = await engine.generate(prompt, { temperature: 0, maxTokens: 8 });
    const some = await group(7, "tiny-a");
    const calls = Array.from(
      { length: 7 },
      (_, rank) => some.generate(rank, prompt, { temperature: 0, maxTokens: 8 }, () => undefined).done,
    );
    for (const result of await Promise.all(calls)) expect(result.tokens).toEqual(tokens);
  });

  it("tells progress of all ranks together, and a warning of theirs once", async () => {
    const progress: { doneBytes: number; totalBytes: number }[] = [];
    const warnings: string[] = [];
    await group(2, "mini", {
      batchInvariant: false,
      onProgress: (one) => progress.push(one),
      onWarning: (message) => warnings.push(message),
    });
    expect(warnings).toEqual(["batchInvariant: false has no effect on the CPU: its bits are the same in any batch"]);
    const last = progress.at(-1);
    expect(last?.doneBytes).toBe(last?.totalBytes);
    expect(new Set(progress.map(({ totalBytes }) => totalBytes)).size).toBe(1);
  });

  it("lives beside another one", async () => {
    const [one, other] = await Promise.all([group(2), group(2)]);
    const calls = [one, other].flatMap((some) => [0, 1].map((rank) => some.generate(rank, PROMPTS[0]!, GREEDY, () => undefined).done));
    for (const { tokens } of await Promise.all(calls)) expect(tokens).toEqual(answers[0]);
    await one.close();
    expect((await other.generate(0, PROMPTS[1]!, GREEDY, () => undefined).done).tokens).toEqual(answers[1]);
  });
});

/** A format of which a rank finds only when it draws that its answer cannot begin. */
async function impossible(): Promise<GenerateParams> {
  await using engine = await Engine.load(modelPath("mini"), SMALL);
  return { responseFormat: { type: "json_schema", schema: { const: 7 } }, stopTokens: await engine.tokenize("7") };
}

describe("a call to a rank", () => {
  it("ends when it is aborted, with what there was", async () => {
    const some = await group(2);
    const long = longAnswer(some, 1);
    await long.started;
    const reason = new Error("enough");
    long.abort("the call was aborted", reason);
    const error = await long.done.catch((one) => one);
    expect(error).toMatchObject({ code: "ABORTED", message: "the call was aborted", cause: reason });
    expect(error.partial.finishReason).toBe("abort");
    expect(error.partial.tokens.length).toBeGreaterThan(0);
    expect((await some.generate(1, PROMPTS[1]!, GREEDY, () => undefined).done).tokens).toEqual(answers[1]);
  });

  it("rejects with what its listener throws", async () => {
    const some = await group(2);
    const thrown = new Error("no more");
    const call = some.generate(0, PROMPTS[0]!, GREEDY, () => {
      throw thrown;
    });
    await expect(call.done).rejects.toBe(thrown);
  });

  it("fails alone, whatever the reason, and with its own error", async () => {
    const params = await impossible();
    const some = await group(2);
    const others = [0, 1, 1].map((rank) => longAnswer(some, rank, 150));
    await Promise.all(others.map(({ started }) => started));
    await expect(some.generate(1, "x", params, () => undefined).done).rejects.toMatchObject({
      code: "OPTION_INVALID",
      message: "responseFormat: no token goes on in this format that is not a stop token",
    });
    const thrown = new TypeError("no more");
    const throws = () => {
      throw thrown;
    };
    await expect(some.generate(1, PROMPTS[0]!, GREEDY, throws).done).rejects.toBe(thrown);
    const aborted = some.generate(1, PROMPTS[4]!, { maxTokens: 100 }, () => aborted.abort("enough"));
    await expect(aborted.done).rejects.toMatchObject({ code: "ABORTED", message: "enough", partial: { finishReason: "abort" } });
    const [first, ...rest] = await Promise.all(others.map(({ done }) => done));
    expect(first?.tokens.slice(0, 24)).toEqual(answers[0]);
    for (const { tokens, finishReason } of rest) expect([tokens, finishReason]).toEqual([first?.tokens, "length"]);
  });

  it("ends when the group is closed, with what there was; no process is left", async () => {
    const pids = childrenOf(process.pid);
    const some = await group(2);
    const own = childrenOf(process.pid).filter((pid) => !pids.includes(pid));
    expect(own.sort()).toEqual(some.ranks.map(({ pid }) => pid).sort());
    const calls = [longAnswer(some, 0), longAnswer(some, 1), longAnswer(some, 1)];
    await Promise.all(calls.map(({ started }) => started));
    const closed = some.close();
    expect(some.close()).toBe(closed);
    for (const { done } of calls) {
      const error = await done.catch((one) => one);
      expect(error).toMatchObject({ code: "ABORTED", partial: { finishReason: "abort" } });
    }
    await closed;
    expect(childrenOf(process.pid)).toEqual(pids);
    await expect(some.generate(0, "x", {}, () => undefined).done).rejects.toMatchObject({ code: "ABORTED" });
    expect(await Promise.race([some.lost, "nothing"])).toBe("nothing");
  });
});
