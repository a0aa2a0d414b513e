/** Token ids in answers: on request, and always where a checkpoint has no tokenizer and ids are all there is. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Engine } from "../../ts/engine/engine.js";
import { modelPath } from "../helpers/paths.js";
import { framesOf, post, type Served, servers } from "./servers.js";

const { mini, over, closeAll } = servers();
afterAll(closeAll);

interface Piece {
  index: number;
  text?: string;
  token_ids?: number[];
}

/** The choices of all frames of a stream. */
async function piecesOf(url: string, path: string, body: object): Promise<Piece[]> {
  const { text } = await post(url, path, { ...body, stream: true });
  const frames = framesOf(text);
  expect(frames.pop()).toBe("[DONE]");
  return frames.flatMap((frame) => JSON.parse(frame).choices as Piece[]);
}

const idsOf = (pieces: readonly Piece[], index = 0) =>
  pieces.filter((one) => one.index === index).flatMap(({ token_ids = [] }) => token_ids);

describe("return_token_ids", () => {
  let served: Served;
  beforeAll(async () => {
    served = await mini();
  });
  const routes: [string, { messages?: { role: "user"; content: string }[]; prompt?: string }][] = [
    ["/v1/chat/completions", { messages: [{ role: "user", content: "Compute 56 + 80." }] }],
    ["/v1/completions", { prompt: "12 + 30 =" }],
  ];

  it.each(routes)("%s: the ids that the engine generates, streamed and not", async (path, prompt) => {
    const body = { ...prompt, temperature: 0, max_tokens: 8 };
    const { tokens } = await served.engine.generate(prompt.prompt ?? { messages: prompt.messages ?? [] }, { temperature: 0, maxTokens: 8 });
    const { json } = await post(served.url, path, { ...body, return_token_ids: true });
    expect(json.choices[0].token_ids).toEqual(tokens);
    expect(idsOf(await piecesOf(served.url, path, { ...body, return_token_ids: true }))).toEqual(tokens);
  });

  it.each(routes)("%s: absent, false and null give none", async (path, prompt) => {
    for (const more of [{}, { return_token_ids: false }, { return_token_ids: null }]) {
      const body = { ...prompt, temperature: 0, max_tokens: 4, ...more };
      expect((await post(served.url, path, body)).json.choices[0]).not.toHaveProperty("token_ids");
      for (const piece of await piecesOf(served.url, path, body)) expect(piece).not.toHaveProperty("token_ids");
    }
  });

  it("says yes or no", async () => {
    const { status, json } = await post(served.url, "/v1/completions", { prompt: "a", return_token_ids: 1 });
    expect([status, json.error.param]).toEqual([400, "return_token_ids"]);
  });
});

describe("a checkpoint without a tokenizer", () => {
  let served: Served;
  beforeAll(async () => {
    served = await over(await Engine.load(modelPath("tiny-a"), { device: "cpu", threads: 2, cacheBytes: 16 * 1024 * 1024 }));
  });

  it("answers ids with ids, prompt by prompt and choice by choice", async () => {
    const body = { prompt: [[1, 2, 3], [4]], n: 2, seed: 5, max_tokens: 6, ignore_eos: true };
    const expected = (
      await served.engine.generate([{ tokens: [1, 2, 3] }, { tokens: [4] }], { n: 2, seed: 5, maxTokens: 6, ignoreEos: true })
    ).flatMap(({ choices = [] }) => choices.map(({ tokens }) => tokens));
    const { json } = await post(served.url, "/v1/completions", body);
    expect((json.choices as Piece[]).map(({ text, token_ids }) => [text, token_ids])).toEqual(expected.map((tokens) => ["", tokens]));
    const pieces = await piecesOf(served.url, "/v1/completions", body);
    expect(expected.map((_, index) => idsOf(pieces, index))).toEqual(expected);
  });
});
