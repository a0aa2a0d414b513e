/** The server through OpenAI's own client: chat, streams, tools, reasoning, several choices, log-probabilities, errors, aborts. */
import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { golden, SORT, SUM } from "../helpers/questions.js";
import { alive, isIdle, type Served, servers, until } from "./servers.js";

const { mini, closeAll } = servers();
let served: Served;
let client: OpenAI;
beforeAll(async () => {
  served = await mini();
  client = served.client;
});
afterAll(closeAll);

type ChatParams = OpenAI.ChatCompletionCreateParamsNonStreaming;
const greedy = { model: "mini", temperature: 0 };
const sum: ChatParams = { ...greedy, messages: SUM.messages };
const sort: ChatParams = { ...greedy, messages: SORT.messages };
/** Fields that the client's types do not have. */
const beyond = (fields: object) => fields as Partial<ChatParams>;
const think: ChatParams = { ...greedy, messages: [{ role: "user", content: "What is 879 + 904?" }], ...beyond({ enable_thinking: true }) };
const toolCase = golden(20);
const mul: ChatParams = {
  ...greedy,
  messages: toolCase.messages as ChatParams["messages"],
  tools: toolCase.tools as ChatParams["tools"],
};

interface Joined {
  content: string;
  reasoning: string;
  calls: { id?: string; type?: string; name?: string; arguments: string }[];
  finish: (string | null)[];
  logprobs: unknown[];
}

/** Runs a request as a stream and joins what it gives, choice by choice. */
async function streamed(params: ChatParams, includeUsage = false) {
  const stream = await client.chat.completions.create({
    ...params,
    stream: true,
    ...(includeUsage && { stream_options: { include_usage: true } }),
  });
  const choices: Joined[] = [];
  const chunks: OpenAI.ChatCompletionChunk[] = [];
  for await (const chunk of stream) {
    chunks.push(chunk);
    for (const { index, delta, finish_reason, logprobs } of chunk.choices) {
      const joined = (choices[index] ??= { content: "", reasoning: "", calls: [], finish: [], logprobs: [] });
      joined.content += delta.content ?? "";
      joined.reasoning += (delta as { reasoning_content?: string }).reasoning_content ?? "";
      for (const { index: at, id, type, function: called } of delta.tool_calls ?? []) {
        const call = (joined.calls[at] ??= { ...(id && { id, type, name: called?.name }), arguments: "" });
        call.arguments += called?.arguments ?? "";
      }
      if (finish_reason !== null) joined.finish.push(finish_reason);
      joined.logprobs.push(...(logprobs?.content ?? []));
    }
  }
  return { choices, chunks, usage: chunks.at(-1)?.usage };
}

describe("chat", () => {
  it("answers", async () => {
    const { choices, usage, model, object } = await client.chat.completions.create(sum);
    expect(choices).toEqual([
      { index: 0, message: { role: "assistant", content: "136", refusal: null }, finish_reason: "stop", logprobs: null },
    ]);
    expect(usage).toMatchObject({ prompt_tokens: 16, completion_tokens: 4, total_tokens: 20 });
    expect([model, object]).toEqual(["mini", "chat.completion"]);
  });

  it.each([
    ["sum", sum],
    ["sort", sort],
    ["think", think],
    ["a stop string", { ...sort, stop: ["ar, sh"] }],
    ["a limit", { ...sort, max_tokens: 3 }],
    ["a limit in reasoning", { ...think, max_completion_tokens: 10 }],
    ["nothing at all", { ...sum, max_tokens: 0 }],
  ])("the same streamed and not: %s", async (_, params) => {
    const whole = await client.chat.completions.create(params);
    const { choices, usage } = await streamed(params, true);
    const [choice] = whole.choices;
    const message = choice?.message as { content: string; reasoning_content?: string };
    expect(choices).toEqual([
      { content: message.content, reasoning: message.reasoning_content ?? "", calls: [], finish: [choice?.finish_reason], logprobs: [] },
    ]);
    // What the prefix cache held may differ from one request to the next.
    const { prompt_tokens_details: _details, ...counts } = whole.usage as OpenAI.CompletionUsage;
    expect(usage).toMatchObject(counts);
  });

  it("reasoning travels as reasoning_content", async () => {
    const { choices } = await client.chat.completions.create(think);
    const message = choices[0]?.message as unknown as { content: string; reasoning_content: string };
    expect(message.content).toBe("1783");
    expect(message.reasoning_content).toMatch(/^9 \+ 4 = 13; .* So 1 7 8 3\.$/s);
  });

  it("calls tools, streamed and not, and takes the answer back", async () => {
    const { choices } = await client.chat.completions.create(mul);
    const [choice] = choices;
    expect(choice?.finish_reason).toBe("tool_calls");
    const calls = choice?.message.tool_calls as OpenAI.ChatCompletionMessageFunctionToolCall[];
    expect(calls.map((call) => [call.type, call.function.name, JSON.parse(call.function.arguments)])).toEqual([
      ["function", "calculator", { expression: "441 * 861" }],
    ]);
    expect(choice?.message.content).toBeNull();
    const { choices: fromStream } = await streamed(mul);
    expect(fromStream[0]).toMatchObject({ content: "", finish: ["tool_calls"] });
    expect(fromStream[0]?.calls).toEqual([
      { id: expect.any(String), type: "function", name: "calculator", arguments: calls[0]?.function.arguments },
    ]);
    const answer = await client.chat.completions.create({
      ...mul,
      messages: [
        ...mul.messages,
        choice?.message as OpenAI.ChatCompletionMessageParam,
        { role: "tool", tool_call_id: calls[0]?.id as string, content: "379701" },
      ],
    });
    expect(answer.choices[0]?.message.content).toContain("379701");
  });

  it("n choices: each index once, the prompt counted once, the same streamed and not (B44)", async () => {
    const params: ChatParams = { ...sum, temperature: 1, seed: 5, n: 3, logprobs: true, top_logprobs: 2 };
    const whole = await client.chat.completions.create(params);
    const { choices, chunks, usage } = await streamed(params, true);
    expect(whole.choices.map(({ index }) => index)).toEqual([0, 1, 2]);
    expect(choices.map(({ content }) => content)).toEqual(whole.choices.map(({ message }) => message.content));
    expect(choices.map(({ finish }) => finish)).toEqual(whole.choices.map(({ finish_reason }) => [finish_reason]));
    expect(choices.map(({ logprobs }) => logprobs)).toEqual(whole.choices.map(({ logprobs }) => logprobs?.content));
    expect(usage).toMatchObject({ prompt_tokens: 16, completion_tokens: whole.usage?.completion_tokens });
    expect(new Set(chunks.map(({ id }) => id)).size).toBe(1);
  });

  it("log-probabilities: an entry for each token, the chosen one among the alternatives (B43)", async () => {
    const { choices } = await client.chat.completions.create({ ...sum, logprobs: true, top_logprobs: 3 });
    const content = choices[0]?.logprobs?.content ?? [];
    expect(content.map(({ token }) => token)).toEqual(["1", "3", "6", "</longcat_s>"]);
    for (const { token, bytes, top_logprobs } of content) {
      expect(new TextDecoder().decode(Uint8Array.from(bytes ?? []))).toBe(token);
      expect(top_logprobs).toHaveLength(3);
      expect(top_logprobs[0]?.token).toBe(token);
      expect(top_logprobs.reduce((total, { logprob }) => total + Math.exp(logprob), 0)).toBeLessThanOrEqual(1 + 1e-6);
    }
    const none = await client.chat.completions.create({ ...sum, logprobs: true, top_logprobs: 0 });
    expect(none.choices[0]?.logprobs?.content?.map(({ top_logprobs }) => top_logprobs)).toEqual([[], [], [], []]);
  });

  it("routing: experts of each token and layer, streamed and not", async () => {
    const params = { ...sum, ...beyond({ routing: true }) };
    type Routed = { routing?: { ffn_experts: number[][]; top_k: number } };
    const whole = (await client.chat.completions.create(params)).choices[0] as Routed;
    expect(whole.routing?.top_k).toBe(6);
    expect(whole.routing?.ffn_experts).toHaveLength(4);
    const { chunks } = await streamed(params);
    const counts = chunks.flatMap(({ choices }) => (choices[0] as Routed | undefined)?.routing?.ffn_experts ?? []);
    expect(counts).toEqual(whole.routing?.ffn_experts);
  });

  it.each([
    ["sum", sum, [0, 3, undefined]],
    ["think", think, [0, 1, 20, 58, undefined]],
    ["a tool call, wherever it is cut", mul, [8, 18, 20, 21, 22, 23, 24, 25, undefined]],
    ["choices", { ...sum, n: 3, temperature: 1, seed: 5, logprobs: true, top_logprobs: 1 }, [undefined]],
  ])("routing changes nothing else: %s", async (_, params, limits) => {
    for (const max_tokens of limits) {
      const [plain, routed] = await Promise.all(
        [{}, { routing: true }].map((more) => client.chat.completions.create({ ...params, max_tokens, ...beyond(more) } as ChatParams)),
      );
      const essence = (answer: OpenAI.ChatCompletion | undefined) =>
        answer?.choices.map(({ message, finish_reason, logprobs }) => ({
          ...{ finish_reason, logprobs },
          message: { ...message, tool_calls: message.tool_calls?.map((call) => ({ ...call, id: "" })) },
        }));
      expect(essence(routed)).toEqual(essence(plain));
      const [first, second] = [plain, routed].map((answer) => ({ ...answer?.usage, prompt_tokens_details: undefined }));
      expect(second).toEqual(first);
    }
  });

  it("cached_tokens says what the prefix cache had, streamed, whole and with routing", async () => {
    const long: ChatParams = { ...greedy, messages: [{ role: "user", content: "One day ".repeat(40) }], max_tokens: 2 };
    const { usage } = await client.chat.completions.create(long);
    const blocks = Math.floor(((usage?.prompt_tokens ?? 0) - 1) / 16);
    expect(usage?.prompt_tokens_details?.cached_tokens).toBe(0);
    for (const again of [
      (await client.chat.completions.create(long)).usage,
      (await client.chat.completions.create({ ...long, ...beyond({ routing: true }) })).usage,
      (await streamed(long, true)).usage,
    ])
      expect(again?.prompt_tokens_details?.cached_tokens).toBe(16 * blocks);
  });
});

describe("completions", () => {
  it("continues a text, streamed and not", async () => {
    const params = { ...greedy, prompt: "12 + 30 =", max_tokens: 8 };
    const { choices, usage } = await client.completions.create(params);
    expect(choices).toEqual([{ index: 0, text: " 42", finish_reason: "stop", logprobs: null }]);
    expect(usage?.prompt_tokens).toBe(7);
    let text = "";
    for await (const chunk of await client.completions.create({ ...params, stream: true })) text += chunk.choices[0]?.text;
    expect(text).toBe(" 42");
  });

  it("lists of prompts, prompt by prompt (B44)", async () => {
    const params = { ...greedy, prompt: ["12 + 30 =", "Once upon"], max_tokens: 8, n: 2, logprobs: 1 };
    const { choices, usage } = await client.completions.create(params);
    expect(choices.map(({ index }) => index)).toEqual([0, 1, 2, 3]);
    expect(choices.map(({ text }) => text.slice(0, 5))).toEqual([" 42", " 42", " a ti", " a ti"]);
    expect(usage?.prompt_tokens).toBe(9);
    const texts: string[] = [];
    const tokens: string[][] = [];
    const finishes: unknown[] = [];
    let last: OpenAI.CompletionUsage | null | undefined;
    for await (const chunk of await client.completions.create({ ...params, stream: true, stream_options: { include_usage: true } })) {
      last = chunk.usage;
      for (const { index, text, finish_reason, logprobs } of chunk.choices) {
        texts[index] = (texts[index] ?? "") + text;
        (tokens[index] ??= []).push(...(logprobs?.tokens ?? []));
        if (finish_reason !== null) finishes.push([index, finish_reason]);
      }
    }
    expect(texts).toEqual(choices.map(({ text }) => text));
    expect(tokens).toEqual(choices.map(({ logprobs }) => logprobs?.tokens));
    expect(finishes.sort()).toEqual(choices.map(({ index, finish_reason }) => [index, finish_reason]));
    expect([last?.prompt_tokens, last?.completion_tokens]).toEqual([9, usage?.completion_tokens]);
  });

  it("token ids, one list or several; a bad one names its position", async () => {
    expect((await client.completions.create({ ...greedy, prompt: [28, 29, 315], max_tokens: 2 })).usage?.prompt_tokens).toBe(3);
    expect((await client.completions.create({ ...greedy, prompt: [[28, 29], [30]], max_tokens: 2 })).choices).toHaveLength(2);
    for (const stream of [false, true]) {
      const bad = client.completions.create({ ...greedy, prompt: [[28], new Array<number>(4097).fill(28)], max_tokens: 2, stream });
      await expect(bad).rejects.toMatchObject({ status: 400, code: "context_length_exceeded", param: "prompt[1]" });
    }
  });

  it("log-probabilities as four arrays of one length", async () => {
    const { choices } = await client.completions.create({ ...greedy, prompt: "12 + 30 =", logprobs: 2 });
    const logprobs = choices[0]?.logprobs;
    expect(logprobs?.tokens).toEqual([" ", "4", "2", "</longcat_s>"]);
    expect(logprobs?.text_offset).toEqual([0, 1, 2, 3]);
    expect(logprobs?.top_logprobs?.map((top) => Object.keys(top).length)).toEqual([2, 2, 2, 2]);
    expect(logprobs?.token_logprobs).toHaveLength(4);
  });
});

describe("models, errors, aborts", () => {
  it("finds the model by its name, and no other", async () => {
    expect(await client.models.retrieve("mini")).toMatchObject({ id: "mini", object: "model", max_model_len: 4096 });
    for (const name of ["gpt", "mini/x", "%zz"])
      await expect(client.models.retrieve(name)).rejects.toMatchObject({ status: 404, param: "model" });
    expect((await fetch(`${served.url}/v1/models/%zz`)).status).toBe(404);
    expect((await fetch(`${served.url}/v1/models/mini`, { method: "DELETE" })).status).toBe(405);
  });

  it("lists the model", async () => {
    const models = await client.models.list();
    expect(models.data.map(({ id }) => id)).toEqual(["mini"]);
  });

  it("errors are the client's own classes", async () => {
    const refuse = (params: object) => expect(client.chat.completions.create({ ...sum, ...params }));
    await refuse({ model: "gpt" }).rejects.toBeInstanceOf(OpenAI.NotFoundError);
    await refuse({ top_p: 7 }).rejects.toMatchObject({ status: 400, param: "top_p", message: expect.stringContaining("7") });
    await refuse({ messages: [] }).rejects.toMatchObject({ status: 400, param: "messages" });
    await refuse({ stream: true, top_p: 7 }).rejects.toBeInstanceOf(OpenAI.BadRequestError);
    const long = [{ role: "user", content: `${"a b ".repeat(3000)}What is the word?` }];
    await refuse({ messages: long }).rejects.toMatchObject({
      status: 400,
      code: "context_length_exceeded",
      message: expect.stringContaining("4096"),
    });
  });

  it("a client that aborts or leaves its loop ends the work within a step", async () => {
    const endless: ChatParams = { ...sum, max_tokens: 3500, ...beyond({ ignore_eos: true }) };
    const controller = new AbortController();
    const whole = client.chat.completions.create(endless, { signal: controller.signal });
    await until(() => served.engine.stats.runningSequences === 1);
    controller.abort();
    await expect(whole).rejects.toBeInstanceOf(OpenAI.APIUserAbortError);
    await until(() => isIdle(served.engine.stats), "the aborted request to end");
    let count = 0;
    for await (const _ of await client.chat.completions.create({ ...endless, stream: true })) if (++count === 5) break;
    await until(() => isIdle(served.engine.stats), "the left stream to end");
    await alive(served);
  });
});
