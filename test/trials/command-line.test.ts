/** Trials through `longcat`, as a user types them: the same answers and refusals as through the engine (B01, B07, B10, B13, B25, B29, B38, B43, B44, B47). */
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import type { Finished } from "../cli/longcat.js";
import { longcat } from "../cli/longcat.js";
import { editConfig, editJson, type Json, linkModel, modelPath, temporaryFolder } from "../helpers/fixtures.js";
import { bits, engines, GREEDY, golden, ids, SORT, SUM, user } from "../helpers/mini.js";
import { onABusyMachine } from "../helpers/time.js";

const { open, closeAll } = engines();
afterAll(closeAll);

const folder = temporaryFolder();
let files = 0;
/** A file of messages. */
function messages(chat: object): string {
  const path = join(folder, `${files++}.json`);
  writeFileSync(path, JSON.stringify(chat));
  return path;
}
const sum = ["--messages", messages(SUM)];
const greedy = ["--temperature", "0"];
const list = (tokens: readonly number[]) => ["--tokens", tokens.join(",")];

/** The one JSON document of a run that ended well. */
async function json(...args: string[]): Promise<Json> {
  const { code, signal, stdout, stderr } = await longcat([...args, "--json"]);
  expect({ code, signal, stderr }).toEqual({ code: 0, signal: null, stderr: "" });
  return JSON.parse(stdout);
}

/** A refusal: one line, exit code 1, nothing on standard output. */
function expectRefused({ code, signal, stdout, stderr }: Finished, error: string, ...named: string[]): void {
  expect({ code, signal, stdout }).toEqual({ code: 1, signal: null, stdout: "" });
  expect(stderr).toMatch(new RegExp(`^error: ${error}: [^\\n]*\\n$`));
  for (const word of named) expect(stderr).toContain(word);
}

describe.concurrent("B01: a prompt is never cut", () => {
  it("over the context: refused with both numbers, by generate and score", async () => {
    const chat = {
      messages: [{ role: "system", content: "The word is kite." }, ...user(`${"a b ".repeat(3000)}What is the word?`).messages],
    };
    expectRefused(await longcat(["generate", "--messages", messages(chat), "--max-tokens", "8"]), "CONTEXT_OVERFLOW", "4096");
    const tooLong = list(new Array<number>(4097).fill(28));
    expectRefused(await longcat(["generate", ...tooLong]), "CONTEXT_OVERFLOW", "4097", "4096");
    expectRefused(await longcat(["score", ...tooLong]), "CONTEXT_OVERFLOW", "4097", "4096");
  });

  it.each([
    [4095, 1, 1],
    [4096, 1, 0],
    [4090, 100, 6],
  ])("%i tokens, at most %i more: %i", async (length, maxTokens, completionTokens) => {
    const result = await json(
      "generate",
      ...list(new Array<number>(length).fill(28)),
      "--max-tokens",
      `${maxTokens}`,
      "--ignore-eos",
      ...greedy,
    );
    expect(result).toMatchObject({ finishReason: "length", usage: { promptTokens: length, completionTokens } });
  });
});

describe.concurrent("B10: parameters out of bounds", () => {
  it.each<[string[], string]>([
    [["--logit-bias", "999999=-100"], "logitBias: 999999"],
    [["--logit-bias", "-1=5"], "logitBias"],
    [["--logit-bias", "1172=100"], "logitBias: 1172"],
    [["--max-tokens", "-1"], "maxTokens: -1"],
    [["--top-k", "-1"], "topK: -1"],
    [["--top-p", "1.0001"], "topP: 1.0001"],
    [["--min-p", "1.1"], "minP: 1.1"],
    [["--repetition-penalty", "0"], "repetitionPenalty: 0"],
    [["--n", "10000"], "n: 10000"],
    [["--logprobs", "10000", "--json"], "logprobs: 10000"],
    [["--stop", ""], "stop[0]"],
    [["--stop-token", "999999"], "stopTokens[0]: 999999"],
  ])("%j is refused by name", async (args, named) => {
    expectRefused(await longcat(["generate", ...sum, ...args]), "OPTION_INVALID", named);
  });

  it.each([
    ["--logit-bias", "1.5=5"],
    ["--logit-bias", "abc=5"],
    ["--logit-bias", "28=x"],
    ["--logit-bias", "28=1e400"],
    ["--max-tokens", "abc"],
  ])("%s %s is wrong usage", async (...args) => {
    const { code, stdout, stderr } = await longcat(["generate", ...sum, ...args]);
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr).toContain(args[0]);
  });

  it("0 tokens are none, a billion are as many as there are, a topK over the vocabulary is off", async () => {
    expect(await json("generate", ...sum, "--max-tokens", "0")).toMatchObject({
      text: "",
      finishReason: "length",
      usage: { completionTokens: 0 },
    });
    expect(await json("generate", ...sum, ...greedy, "--max-tokens", "1e9", "--top-k", "1e9")).toMatchObject({
      text: "136",
      finishReason: "stop",
    });
  });
});

describe.concurrent("B13: inspect says which rotation is in force", () => {
  it.each<["tiny-a" | "tiny-lite-a", Json, RegExp]>([
    ["tiny-a", {}, /10000\b/],
    ["tiny-a", { rope_theta: undefined, rope_parameters: { rope_type: "default", rope_theta: 500000 } }, /500000/],
    ["tiny-a", { rope_theta: undefined }, /10000000/],
    ["tiny-lite-a", {}, /yarn.*factor 4/],
  ])("%s with %j", async (name, changes, shown) => {
    const dir = linkModel(name);
    editConfig(dir, (config) => Object.assign(config, changes));
    const { code, stdout } = await longcat(["inspect", "model", dir]);
    expect(code).toBe(0);
    expect(stdout).toMatch(shown);
  });
});

describe.concurrent("B25: end tokens are the union of what the files say", () => {
  const variant = (eos: unknown) => {
    const dir = linkModel("mini");
    editJson(join(dir, "generation_config.json"), (config) => {
      config.eos_token_id = eos;
    });
    return dir;
  };
  const sort = ["--messages", messages(SORT), ...greedy];

  it("a list and one id stop at the full stop, which is not shown; --ignore-eos and --stop-token do what they say", async () => {
    for (const eos of [[2, 25], [25], 25])
      expect(await json("generate", ...sort, "--model", variant(eos))).toMatchObject({ text: "coin, pear, shell", finishReason: "stop" });
    const both = variant([2, 25]);
    const on = await json("generate", ...sort, "--model", both, "--ignore-eos", "--max-tokens", "20");
    expect(on).toMatchObject({ finishReason: "length", tokens: { length: 20 } });
    expect(await json("generate", ...sort, "--model", both, "--stop-token", "23")).toMatchObject({ text: "coin", finishReason: "stop" });
  });

  it("an empty list adds none; an id that is none and a text are refused, file and value named", async () => {
    expect(await json("generate", ...sort, "--model", variant([]))).toMatchObject({ text: "coin, pear, shell." });
    for (const eos of [[999_999], "2"])
      expectRefused(
        await longcat(["generate", ...sort, "--model", variant(eos)]),
        "CONFIG_INVALID",
        "generation_config.json",
        "eos_token_id",
      );
  });
});

describe("B29: flags that change the work change no bit", () => {
  it("threads and step size", async () => {
    const engine = await open();
    const { prompt_ids: tokens } = golden(3);
    const { logprobs } = await engine.generate({ tokens }, { ...GREEDY, maxTokens: 30, logprobs: 1 });
    for (const flags of [
      ["--threads", "1"],
      ["--threads", "3", "--max-batch-tokens", "8"],
      ["--max-sequences", "1", "--debug", "poison"],
    ]) {
      const result = await json("generate", ...list(tokens), ...greedy, "--max-tokens", "30", "--logprobs", "1", ...flags);
      expect(bits(result.logprobs)).toEqual(bits(logprobs));
    }
  });
});

describe("B38: a million characters on standard input", () => {
  it("are refused by generate and score in two seconds", async () => {
    for (const command of ["generate", "score"]) {
      const start = performance.now();
      expectRefused(await longcat([command], { input: "a".repeat(1_000_000) }), "CONTEXT_OVERFLOW", "4096");
      expect(performance.now() - start).toBeLessThan(onABusyMachine(2000));
    }
  });
});

describe.concurrent("B43: log-probabilities are JSON", () => {
  const prompt = ["generate", "12 + 30 =", "--max-tokens", "4"];

  it.each([
    ["--top-k", "1", "--temperature", "1"],
    ["--top-p", "0.01", "--temperature", "2"],
    ["--logit-bias", "23=-100", "--temperature", "0"],
    ["--temperature", "0"],
  ])("with %s %s %s %s", async (...flags) => {
    const { logprobs, tokens } = await json(...prompt, "--logprobs", "5", "--seed", "1", ...flags);
    expect(logprobs.map(({ token }: Json) => token)).toEqual(tokens);
    for (const { logprob, top } of logprobs) {
      expect(Number.isFinite(logprob) && logprob <= 0 && logprob >= -9999).toBe(true);
      expect(top).toHaveLength(5);
      expect(top.reduce((total: number, one: Json) => total + Math.exp(one.logprob), 0)).toBeLessThanOrEqual(1 + 1e-6);
    }
  });

  it("without alternatives, with a stop that cuts the text, and by score", async () => {
    expect((await json(...prompt, "--logprobs", "0", ...greedy)).logprobs.every(({ top }: Json) => top.length === 0)).toBe(true);
    const cut = await json("generate", "--messages", messages(SORT), ...greedy, "--logprobs", "1", "--stop", "ar, sh");
    expect(cut).toMatchObject({ text: "coin, pe", finishReason: "stop", logprobs: { length: 5 } });
    const scored = await json("score", ...list(ids(20).tokens));
    expect(scored.logprobs[0]).toBeNull();
    expect(scored.logprobs).toHaveLength(20);
    expect(scored.logprobs.slice(1).every((value: unknown) => typeof value === "number" && value <= 0)).toBe(true);
    expect(scored.tokens).toEqual(ids(20).tokens);
  });
});

describe.concurrent("B44: choices", () => {
  it("each with its own text, the prompt counted once, as the engine gives them", async () => {
    const engine = await open();
    const wanted = await engine.generate(SUM, { n: 3, temperature: 1, seed: 5 });
    const got = await json("generate", ...sum, "--n", "3", "--temperature", "1", "--seed", "5");
    expect(got.choices.map(({ tokens }: Json) => tokens)).toEqual(wanted.choices?.map(({ tokens }) => tokens));
    expect(got.choices.map(({ finishReason }: Json) => finishReason)).toEqual(wanted.choices?.map(({ finishReason }) => finishReason));
    expect(got.usage).toEqual(wanted.usage);
    expect(got.usage.promptTokens).toBe(16);
    expect(got.text).toBe(got.choices[0].text);
  });

  it.each(["best-of", "echo", "suffix"])("--%s is refused by name", async (name) => {
    const { code, stderr } = await longcat(["generate", "a", `--${name}`]);
    expect(code).toBe(2);
    expect(stderr).toContain(`--${name}`);
  });
});

describe.concurrent("B47: temperatures at the edge", () => {
  it.each(["1e-5", "1e-30", "5e-324", "-0"])("--temperature=%s is greedy", async (temperature) => {
    expect((await longcat(["generate", ...sum, `--temperature=${temperature}`, "--seed", "1"])).stdout).toBe("136\n");
  });

  it("filters that leave one candidate are greedy, a huge temperature draws ids that exist", async () => {
    for (const flags of [
      ["--top-p", "1e-9"],
      ["--min-p", "1"],
      ["--top-k", "1"],
    ])
      expect((await longcat(["generate", ...sum, "--temperature", "1", "--seed", "1", ...flags])).stdout).toBe("136\n");
    const { tokens } = await json("generate", ...sum, "--temperature", "1e308", "--seed", "3", "--ignore-eos", "--max-tokens", "20");
    expect(tokens).toHaveLength(20);
    expect(Math.max(...tokens)).toBeLessThan(1172);
  });
});

describe("B07: hostile files", () => {
  it("end the command with one line, never with a signal", async () => {
    const dir = linkModel("tiny-a");
    const weights = join(dir, "model.safetensors");
    for (const bytes of [Buffer.alloc(0), Buffer.alloc(8, 255), Buffer.from("[".repeat(100_000)), Buffer.alloc(8)]) {
      rmSync(weights);
      writeFileSync(weights, bytes);
      expectRefused(await longcat(["score", "--model", dir, "--tokens", "5,9"]), "CHECKPOINT_INVALID", "model.safetensors");
    }
    expect((await longcat(["score", "--model", modelPath("tiny-a"), "--tokens", "5,9"])).code).toBe(0);
  });
});
