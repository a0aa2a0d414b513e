/**
 * One binary, every x86-64 processor (field trial B49): each instruction set of this machine by name, and older processors emulated by
 * qemu, where it is installed. That wide instructions stand only in functions chosen at run time: test/runtime/isa-leak.test.ts.
 */
import { execFile, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { MAIN } from "../cli/longcat.js";
import { ROOT } from "../helpers/fixtures.js";
import { hasIsa, ISAS } from "../runtime/devices.js";

interface Ended {
  code: number | string | null;
  signal: string | null;
  stdout: string;
  stderr: string;
}

function run(command: readonly string[], env: Record<string, string> = {}): Promise<Ended> {
  const [file = "", ...args] = command;
  return new Promise((resolve) => {
    execFile(file, args, { env: { ...process.env, ...env }, timeout: 100_000 }, (error, stdout, stderr) => {
      resolve({ code: error ? (error.code ?? null) : 0, signal: error?.signal ?? null, stdout, stderr });
    });
  });
}

const SUM = ["generate", "--chat", "Compute 56 + 80.", "--temperature", "0", "--json", "--logprobs", "0"];

/** The answer's log-probabilities, after checking that it is right. */
function expectSum({ code, signal, stdout }: Ended): number[] {
  expect({ code, signal }).toEqual({ code: 0, signal: null });
  const { text, tokens, logprobs } = JSON.parse(stdout) as { text: string; tokens: number[]; logprobs: { logprob: number }[] };
  expect({ text, tokens }).toEqual({ text: "136", tokens: [28, 30, 33, 2] });
  return logprobs.map(({ logprob }) => logprob);
}

describe("LONGCAT_ISA", () => {
  it("each instruction set of this processor gives the right tokens, and log-probabilities that differ by rounding alone", async () => {
    const sets = ISAS.filter(hasIsa);
    expect(sets).toContain("plain");
    const answers: number[][] = [];
    for (const isa of sets) answers.push(expectSum(await run([process.execPath, MAIN, ...SUM], { LONGCAT_ISA: isa })));
    for (const answer of answers)
      answer.forEach((logprob, i) => {
        expect(Math.abs(logprob - (answers[0]?.[i] as number))).toBeLessThan(1e-4);
      });
  });

  it("one that is none, or that this processor lacks, is named, by doctor too; import and --help work", async () => {
    const env = { LONGCAT_ISA: "sse9" };
    const generated = await run([process.execPath, MAIN, "generate", "a"], env);
    expect(generated).toMatchObject({ code: 1, stdout: "", stderr: expect.stringMatching(/^error: DEVICE_UNAVAILABLE: .*"sse9".*\n$/) });
    const doctor = await run([process.execPath, MAIN, "doctor", "--json"], env);
    expect(doctor).toMatchObject({ code: 1, stdout: expect.stringContaining("sse9") });
    expect((await run([process.execPath, MAIN, "--help"], env)).code).toBe(0);
  });
});

const emulated = process.arch === "x64" && spawnSync("qemu-x86_64", ["--version"]).error === undefined;
if (!emulated) console.log("skipped: older processors need an x86-64 machine with qemu-x86_64 (apt-get install -y qemu-user)");

describe.skipIf(!emulated).concurrent("emulated by qemu", () => {
  const on = (processor: string, ...command: string[]) => run(["qemu-x86_64", "-cpu", processor, ...command]);

  it.each([
    ["Westmere", "plain"],
    ["Haswell", "avx2"],
    ["Skylake-Server", "avx2"], // qemu has no AVX-512
  ])("%s: the addon takes %s, and the tokens are right", async (processor, isa) => {
    const devices = await on(processor, process.execPath, MAIN, "inspect", "devices", "--json");
    expect(devices).toMatchObject({ code: 0, signal: null });
    expect(JSON.parse(devices.stdout)).toMatchObject([{ kind: "cpu", isa }]);
    expectSum(await on(processor, process.execPath, MAIN, ...SUM, "--threads", "1"));
  });

  it("Westmere refuses wider instructions than it has with words, not with a signal", async () => {
    const asked = await run(["qemu-x86_64", "-cpu", "Westmere", "-E", "LONGCAT_ISA=avx512", process.execPath, MAIN, "generate", "a"]);
    expect(asked).toMatchObject({ code: 1, signal: null, stderr: expect.stringMatching(/^error: DEVICE_UNAVAILABLE: .*"avx512".*\n$/) });
  });

  // The operations whose tests are quick to emulate. (Those of sample go through whole vocabularies; the answers above are drawn by it.)
  const kernels = join(ROOT, "build", "kernels");
  const built = existsSync(kernels);
  if (!built) console.log("skipped: the operations' own tests need their program (node scripts/build-native.mjs kernels)");
  it.skipIf(!built).each(["Westmere", "Haswell"])("%s: the operations' own tests", async (processor) => {
    for (const op of ["embed", "rms_norm", "moe_route", "ngram_embed", "step_plan", "token_logprobs"])
      expect(await on(processor, kernels, "test", op), op).toMatchObject({ code: 0, signal: null });
  });
});
