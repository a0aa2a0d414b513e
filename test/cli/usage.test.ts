/** Wrong usage ends with code 2 and says what was wrong; help and version go to standard output with code 0. */
import { spawnSync } from "node:child_process";
import { closeSync, existsSync, openSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { longcat, MAIN } from "./longcat.js";

describe("help and version", () => {
  it("--help lists the commands that are there", async () => {
    const { code, stdout, stderr } = await longcat(["--help"]);
    expect([code, stderr]).toEqual([0, ""]);
    for (const name of ["generate", "chat", "score", "serve", "inspect", "quantize", "bench", "doctor"])
      expect(stdout).toMatch(new RegExp(`^  ${name} `, "m"));
  });

  it("each command has its help", async () => {
    for (const words of [
      ["generate"],
      ["chat"],
      ["score"],
      ["serve"],
      ["inspect"],
      ["inspect", "model"],
      ["inspect", "estimate"],
      ["inspect", "routing"],
      ["quantize"],
      ["bench", "decode"],
      ["bench", "kernels"],
    ]) {
      const { code, stdout } = await longcat([...words, "--help"]);
      expect(code, words.join(" ")).toBe(0);
      expect(stdout).toMatch(new RegExp(`^usage: longcat ${words.join(" ")}`));
    }
  });

  it("--speculative is in the help of what has drafts, or could leave the draft head out", async () => {
    const helpOf = async (...words: string[]) => (await longcat([...words, "--help"])).stdout;
    for (const words of [["generate"], ["chat"], ["serve"], ["inspect", "estimate"]])
      expect(await helpOf(...words)).toMatch(/^ {2}--speculative S .*auto \(as many as pay\), off, or 1 to 4$/m);
    expect(await helpOf("score")).toMatch(/^ {2}--speculative S .*changes no score/m);
    for (const bench of ["decode", "prefill", "speculate"]) expect(await helpOf("bench", bench)).not.toContain("--speculative");
  });

  it("--version prints the package's", async () => {
    const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as { version: string };
    expect((await longcat(["--version"])).stdout).toBe(`${version}\n`);
  });
});

describe("errors", () => {
  it.each([
    [["generate", "a", "--max-tokens", "-1"], /^error: OPTION_INVALID: maxTokens: -1 .* \(--max-tokens\)$/m],
    [["generate", "a", "--cache-dtype", "int8"], /^error: OPTION_INVALID: cacheDType: "int8" .* \(--cache-dtype\)$/m],
    [["generate", "a", "--ranks", "0"], /^error: OPTION_INVALID: parallel\.expert: 0 .* \(--ranks\)$/m],
    [["generate", "a", "--ranks", "2", "--rank-timeout", "1"], /^error: OPTION_INVALID: parallel\.timeoutMs: 1000 .* \(--rank-timeout\)$/m],
    [
      ["generate", "a", "--ranks", "2", "--join-timeout", "0"],
      /^error: OPTION_INVALID: parallel\.joinTimeoutMs: 0 .* \(--join-timeout\)$/m,
    ],
    [["generate", "a", "--dispatch-dtype", "fp4"], /^error: OPTION_INVALID: parallel\.dispatchDType: "fp4" .* \(--dispatch-dtype\)$/m],
    [["serve", "--drain-timeout", "-1"], /^error: OPTION_INVALID: drainTimeoutMs: -1000 .* \(--drain-timeout\)$/m],
    [["generate", "a", "--device", "tpu"], /^error: OPTION_INVALID: device: "tpu" .*[^)]$/m],
  ])("%j: the flag is named where the option is called otherwise", async (args, message) => {
    const { code, stderr } = await longcat(args);
    expect([code, stderr]).toEqual([1, expect.stringMatching(message)]);
  });

  it.each([
    ["--model", "/nowhere", "CHECKPOINT_INVALID: /nowhere: "],
    ["--max-sequences", "100000", "OPTION_INVALID: maxSequences: 100000 "],
  ])("serve %s %s: before the port is open", async (flag, value, message) => {
    const { code, stderr } = await longcat(["serve", "--port", "0", flag, value]);
    expect([code, stderr]).toEqual([1, expect.stringMatching(new RegExp(`^error: ${message}`))]);
  });

  it.skipIf(!existsSync("/dev/full"))("output that cannot be written is one line", () => {
    const full = openSync("/dev/full", "w");
    const { status, stderr } = spawnSync(process.execPath, [MAIN, "--help"], { encoding: "utf8", stdio: ["ignore", full, "pipe"] });
    closeSync(full);
    expect([status, stderr]).toEqual([1, expect.stringMatching(/^error: standard output cannot be written: ENOSPC.*\n$/)]);
  });
});

describe("wrong usage", () => {
  const cases: [string[], RegExp][] = [
    [[], /no command/],
    [["dance"], /unknown command "dance"/],
    [["lab"], /lab needs one of balance, budget, epsilon, growth, transfer, variance, zero, zloss/],
    [["lab", "scaling"], /lab has no "scaling"; there are balance/],
    [["train", "run.json"], /train needs a file and a folder/],
    [["train", "--resume"], /train --resume needs one folder/],
    [["train", "--grow", "2", "out"], /train --grow needs two folders/],
    [["inspect"], /needs one of model, devices, estimate, routing/],
    [["inspect", "routing"], /inspect routing DIR TEXT… needs a text, --tokens, --file or --data/],
    [["bench", "all-to-all", "--device", "cuda:1"], /--device cuda:1 is one GPU, and each of 2 ranks has its own/],
    [["bench", "layer", "--device", "cpu", "--exchange", "peer"], /--exchange needs --ranks/],
    [["bench", "layer", "--device", "cpu", "--dispatch-dtype", "fp8"], /--dispatch-dtype needs --ranks/],
    [
      ["bench", "layer", "--device", "cpu", "--ranks", "2", "--experts-held", "2", "--expert-rows", "2"],
      /--expert-rows stands for other ranks/,
    ],
    [["inspect", "toString"], /has no "toString"/],
    [["generate", "a", "b"], /unexpected argument "b"/],
    [["generate", "a", "--colour"], /unknown flag "--colour"; put -- before a text that begins with "-"$/m],
    [["generate", "-5 degrees\nbelow"], /unknown flag "-5"; put -- before a text/],
    [["generate", "a", "--temprature", "1"], /unknown flag "--temprature"; did you mean --temperature\?/],
    [["generate", "a", "--maxTokens", "1"], /did you mean --max-tokens\?/],
    [["generate", "a", "--top_p", "1"], /did you mean --top-p\?/],
    [["doctor", "--jsno"], /did you mean --json\?/],
    [["doctor", "--colour"], /unknown flag "--colour"$/m],
    [["chat", "--system", "-x"], /--system=-XYZ/],
    [["generate", "a", "--seed"], /--seed/],
    [["generate", "a", "--temperature", "1", "--temperature", "2"], /--temperature is given 2 times/],
    [["generate", "a", "--tokens", "1"], /PROMPT and --tokens exclude each other/],
    [["generate", "a", "--messages", "x.json"], /exclude each other/],
    [["generate", "a", "--logprobs", "2"], /--logprobs needs --json/],
    [["generate", "a", "--think"], /--think needs --messages or --chat/],
    [["generate", "--tokens", "1,two"], /--tokens: "two" is not a token id/],
    [["generate", "a", "--logit-bias", "5"], /--logit-bias: "5" is not ID=VALUE/],
    [["generate", "a", "--logit-bias", "5=1", "--logit-bias", "5=2"], /token 5 is given twice/],
    ...["much", "on", "0", "5", "-1", "1.5", "01", ""].map((value): [string[], RegExp] => [
      ["generate", "a", "--speculative", value],
      new RegExp(`--speculative: ${JSON.stringify(value)} is not auto, off or a number of drafts from 1 to 4$`, "m"),
    ]),
    [["bench", "decode", "--speculative", "off"], /unknown flag "--speculative"/],
    [["bench", "prefill", "--speculative", "2"], /unknown flag "--speculative"/],
    [["inspect", "estimate", "--speculative", "5"], /--speculative: "5"/],
    [["score", "a", "--tokens", "1"], /exclude each other/],
    [["score", "a", "--temperature", "1"], /--temperature/],
    [["quantize", "only-one"], /needs two folders/],
    [["bench", "decode", "--batch", "0"], /--batch: 0 is not a whole number/],
    [["bench", "decode", "--tokens", "8,9"], /--tokens: "8,9" is not a number/],
    [["bench", "decode", "--batch", ""], /--batch: "" is not a number/],
    [["bench", "layer", "--batch", ""], /--batch: "" is not a number/],
    [["bench", "prefill", "--tokens", ""], /--tokens: "" is not a number/],
    [["inspect", "estimate", "--context", "abc"], /--context: "abc" is not a number/],
  ];
  it.each(cases)("longcat %j", async (args, message) => {
    const { code, stdout, stderr } = await longcat(args);
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr).toMatch(/^usage error: .*\n$/);
    expect(stderr).toMatch(message);
  });

  it.each(["abc", "", "NaN", "Infinity", "1e400", "0x10", "1,5", " 1"])("--temperature %j cannot be parsed: named", async (value) => {
    const { code, stderr } = await longcat(["generate", "a", `--temperature=${value}`]);
    expect(code).toBe(2);
    expect(stderr).toContain(`--temperature: ${JSON.stringify(value)} is not a number`);
  });
});
