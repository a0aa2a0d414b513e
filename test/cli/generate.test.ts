/** `longcat generate` and `score`: where prompts come from, what goes to which stream, exit codes. */
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { figures } from "../../ts/cli/generate.js";
import type { EngineStats } from "../../ts/index.js";
import { longcat, MINI } from "./longcat.js";

const TINY = fileURLToPath(new URL("../fixtures/tiny-a", import.meta.url));
const STORY = ", there was a curious cat named Owen.";
const GREEDY = ["--temperature", "0", "--max-tokens", "12"];

const folder = mkdtempSync(join(tmpdir(), "longcat-cli-"));
function file(name: string, content: unknown): string {
  const path = join(folder, name);
  writeFileSync(path, typeof content === "string" ? content : JSON.stringify(content));
  return path;
}

const SUM = { messages: [{ role: "user", content: "Compute 56 + 80." }] };

describe("generate", () => {
  it("streams the continuation alone to standard output", async () => {
    const { code, stdout, stderr } = await longcat(["generate", "Once upon a time", ...GREEDY]);
    expect([code, stderr]).toEqual([0, ""]);
    expect(stdout.startsWith(STORY.slice(0, 20))).toBe(true);
    expect(stdout.endsWith("\n")).toBe(true);
  });

  it("--json prints one document, the same text, and nothing else", async () => {
    const plain = await longcat(["generate", "Once upon a time", ...GREEDY]);
    const { code, stdout, stderr } = await longcat(["generate", "Once upon a time", ...GREEDY, "--json", "--logprobs", "2"]);
    expect([code, stderr]).toEqual([0, ""]);
    const result = JSON.parse(stdout) as Record<string, unknown> & { text: string; tokens: number[]; logprobs: unknown[] };
    expect(result).toMatchObject({ finishReason: "length", usage: { completionTokens: 12, cachedTokens: 0 } });
    expect(`${result.text}\n`).toBe(plain.stdout);
    expect(result.logprobs).toHaveLength(12);
  });

  it("takes the prompt from standard input, with or without -, less one last line break", async () => {
    const expected = (await longcat(["generate", "Once upon a time", ...GREEDY])).stdout;
    expect((await longcat(["generate", ...GREEDY], { input: "Once upon a time\n" })).stdout).toBe(expected);
    expect((await longcat(["generate", "-", ...GREEDY], { input: "Once upon a time" })).stdout).toBe(expected);
  });

  it("takes messages from a file or standard input", async () => {
    const fromFile = await longcat(["generate", "--messages", file("sum.json", SUM), "--temperature", "0", "--json"]);
    expect(JSON.parse(fromFile.stdout)).toMatchObject({ text: "136", usage: { promptTokens: 16 }, finishReason: "stop" });
    const fromInput = await longcat(["generate", "--messages", "-", "--temperature", "0"], { input: JSON.stringify(SUM) });
    expect(fromInput.stdout).toBe("136\n");
  });

  it("--chat and --think: reasoning goes to standard error, the answer to standard output", async () => {
    const { stdout, stderr } = await longcat(["generate", "--chat", "--think", "What is 879 + 904?", "--temperature", "0"]);
    expect(stdout).toBe("1783\n");
    expect(stderr).toContain("9 + 4 = 13");
  });

  it("prints a tool call as a line", async () => {
    const parameters = { type: "object", properties: { expression: { type: "string" } }, required: ["expression"] };
    const tools = [{ type: "function", function: { name: "calculator", description: "Compute the value of an expression.", parameters } }];
    const path = file("tool.json", { messages: [{ role: "user", content: "What is 441 * 861?" }], tools });
    const { stdout } = await longcat(["generate", "--messages", path, "--temperature", "0"]);
    expect(stdout).toBe('→ calculator({"expression": "441 * 861"})\n');
  });

  it("takes token ids, and prints several choices under their numbers", async () => {
    const { code, stdout } = await longcat(["generate", "--tokens", "1081,23", "--n", "2", "--seed", "1", "--max-tokens", "4"]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^\[0\] [\s\S]*^\[1\] /m);
  });

  it("without a tokenizer prints the generated ids and says so", async () => {
    const tokens = ["generate", "--tokens", "7,8", "--model", TINY, "--seed", "1", "--max-tokens", "5"];
    const { tokens: expected } = JSON.parse((await longcat([...tokens, "--json"])).stdout) as { tokens: number[] };
    expect(expected).toHaveLength(5);
    const { code, stdout, stderr } = await longcat(tokens);
    expect([code, stdout]).toEqual([0, `${expected.join(" ")}\n`]);
    expect(stderr).toMatch(/^this checkpoint has no tokenizer[^\n]*\n$/);
    expect((await longcat([...tokens, "--n", "2"])).stdout).toMatch(new RegExp(`^\\[0\\] ${expected.join(" ")}\n\\[1\\] [\\d ]+\n$`));
  });

  it("passes negative values on: the engine names what it accepts", async () => {
    const { code, stdout, stderr } = await longcat(["generate", "a", "--temperature", "-0.5"]);
    expect([code, stdout]).toEqual([1, ""]);
    expect(stderr).toMatch(/^error: OPTION_INVALID: temperature: -0\.5 .*\n$/);
    expect((await longcat(["generate", "a", "--presence-penalty", "-1", "--max-tokens", "1"])).code).toBe(0);
  });

  it("tells of tokens, their speed, and drafts where there were any", () => {
    const none = { draftTokens: 0, acceptedTokens: 0 } as EngineStats["speculation"];
    expect(figures({ generatedTokens: 48, speculation: none }, 0.1)).toBe("48 tokens, 480 tokens/s");
    expect(figures({ generatedTokens: 48, speculation: { ...none, draftTokens: 30, acceptedTokens: 21 } }, 0.1)).toBe(
      "48 tokens, 480 tokens/s, 21 of 30 drafts accepted",
    );
  });

  const failures: [string, string[], RegExp][] = [
    ["a seed that is no whole number", ["a", "--seed", "1.5"], /OPTION_INVALID: seed: 1\.5/],
    ["a seed too large", ["a", "--seed", "9007199254740993"], /OPTION_INVALID: seed/],
    ["a padding id in the bias", ["a", "--logit-bias", "2047=5"], /OPTION_INVALID: logitBias: 2047/],
    [
      "a schema of an unknown type",
      ["a", "--response-format", JSON.stringify({ type: "json_schema", json_schema: { schema: { type: "striing" } } })],
      /OPTION_INVALID: responseFormat.*"striing"/,
    ],
    ["ranks on one GPU", ["a", "--ranks", "2", "--device", "cuda:0"], /OPTION_INVALID: device: "cuda:0" is one GPU/],
    ["ranks that do not share the experts out", ["a", "--ranks", "5"], /OPTION_INVALID: parallel\.expert: 5 .* \(--ranks\)/],
    ["an exchange of one rank", ["a", "--exchange", "peer"], /OPTION_INVALID: parallel\.exchange: needs several ranks.* \(--exchange\)/],
    ["an unknown device", ["a", "--device", "tpu"], /OPTION_INVALID: device/],
    ["a GPU", ["a", "--device", "cuda"], /DEVICE_UNAVAILABLE/],
    ["an empty prompt", [""], /PROMPT_INVALID/],
    ["ids out of range", ["--tokens", "1,99999"], /PROMPT_INVALID.*99999/],
    ["a negative id", ["--tokens", "-1"], /PROMPT_INVALID.*-1/],
    ["no folder", ["a", "--model", join(folder, "none")], /CHECKPOINT_INVALID.*none/],
    ["a folder that is a file", ["a", "--model", join(MINI, "config.json")], /CHECKPOINT_INVALID.*config\.json/],
    ["a messages file that is not there", ["--messages", join(folder, "absent.json")], /PROMPT_INVALID.*absent\.json/],
    ["a messages file that is not JSON", ["--messages", file("broken.json", "{")], /PROMPT_INVALID.*broken\.json.*not JSON/],
    ["a messages file with a foreign key", ["--messages", file("foreign.json", { ...SUM, top_p: 1 })], /PROMPT_INVALID.*"top_p"/],
    ["a prompt over the context", ["--tokens", Array(4097).fill(28).join(",")], /CONTEXT_OVERFLOW.*4097.*4096/],
  ];
  it.each(failures)("%s: one line on standard error, code 1", async (_, args, message) => {
    const { code, stdout, stderr } = await longcat(["generate", ...args]);
    expect(stderr).toMatch(/^error: [A-Z_]+: .*\n$/);
    expect(stderr).toMatch(message);
    expect([code, stdout]).toEqual([1, ""]);
  });

  it("--think against enable_thinking: false in the file is wrong usage", async () => {
    const path = file("unthinking.json", { ...SUM, enable_thinking: false });
    const { code, stdout, stderr } = await longcat(["generate", "--messages", path, "--think"]);
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr).toMatch(/^usage error: --think and enable_thinking: false in .*unthinking\.json contradict each other\n$/);
  });

  it("refuses input that is not UTF-8", async () => {
    const { code, stderr } = await longcat(["generate"], { input: Uint8Array.of(0x61, 0xff) });
    expect([code, stderr]).toEqual([1, "error: PROMPT_INVALID: standard input: not valid UTF-8\n"]);
  });

  it("Ctrl-C stops it: code 130, no stack trace", async () => {
    // Once: a second Ctrl-C would end the program without a word.
    let interrupted = false;
    const { code, stdout, stderr } = await longcat(["generate", "Once upon a time", "--ignore-eos", "--seed", "1"], {
      onOutput: (child) => {
        if (!interrupted) child.kill("SIGINT");
        interrupted = true;
      },
    });
    expect(code).toBe(130);
    expect(stdout.length).toBeGreaterThan(0);
    expect(stderr).toMatch(/^error: ABORTED: [^\n]*\n$/);
  });

  it("ends quietly when its reader goes away", async () => {
    const { code, stderr } = await longcat(["generate", "Once upon a time", "--ignore-eos", "--seed", "1"], {
      onOutput: (child) => child.stdout?.destroy(),
    });
    expect([code, stderr]).toEqual([0, ""]);
  });
});

describe("score", () => {
  it("after -- even --help is a text", async () => {
    const { code, stdout } = await longcat(["score", "--json", "--", "--help"]);
    expect([code, Object.keys(JSON.parse(stdout))]).toEqual([0, ["tokens", "logprobs"]]);
    expect(stdout).toBe((await longcat(["score", "--json"], { input: "--help" })).stdout);
  });

  it("--json: tokens and log-probabilities, the first null", async () => {
    const { code, stdout } = await longcat(["score", "--tokens", "1081,23,913", "--json"]);
    const { tokens, logprobs } = JSON.parse(stdout) as { tokens: number[]; logprobs: (number | null)[] };
    expect([code, tokens]).toEqual([0, [1081, 23, 913]]);
    expect(logprobs[0]).toBeNull();
    expect(logprobs.slice(1).every((logprob) => logprob !== null && logprob <= 0)).toBe(true);
  });

  it("prints a table for a text: ids, log-probabilities that are not rounded to nothing, texts, the sum", async () => {
    const { stdout } = await longcat(["score", "Once upon\na"]);
    const { tokens, logprobs } = JSON.parse((await longcat(["score", "Once upon\na", "--json"])).stdout) as {
      tokens: number[];
      logprobs: (number | null)[];
    };
    const lines = stdout.trimEnd().split("\n");
    expect(lines[0]).toMatch(/^token +logprob +text$/);
    const rows = lines.slice(1, -1).map((line) => /^ *(\d+) {2}(\S+) +(".*")$/.exec(line) ?? []);
    expect(rows.map(([, id]) => Number(id))).toEqual(tokens);
    expect(rows.map(([, , , text]) => JSON.parse(text ?? "") as string).join("")).toBe("Once upon\na");
    expect(rows[0]?.[2]).toBe("-");
    // The second is a likely token: its log-probability is about -1e-6.
    for (const [i, row] of rows.entries()) if (i > 0) expect(Number(row[2]) / (logprobs[i] ?? 0)).toBeCloseTo(1, 4);
    const sum = logprobs.reduce<number>((total, logprob) => total + (logprob ?? 0), 0);
    expect(Number(/^sum +(\S+)$/.exec(lines.at(-1) ?? "")?.[1])).toBeCloseTo(sum, 5);
  });

  it("prints the table without texts where there is no tokenizer", async () => {
    const { code, stdout } = await longcat(["score", "--tokens", "1,2", "--model", TINY]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^token +logprob\n +1 +-\n +2 +-\d+\.\d{6}\nsum +-\d+\.\d{6}\n$/);
  });
});
