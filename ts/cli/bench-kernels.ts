/**
 * `longcat bench kernels`: the operations one by one, by the `kernels` program that lies beside the addon.
 * @module
 */

import { spawn } from "node:child_process";
import { LongcatError } from "../index.js";
import { kernelsProgram } from "../runtime/kernels-program.js";
import { meansGpu, numberOr, numbers, oneOf } from "./bench-flags.js";
import { chartFile } from "./chart-file.js";
import { type Command, JSON_FLAG } from "./command.js";
import { type Flag, type ParsedFlags, UsageError } from "./flags.js";
import { INTERRUPTED, interruptible } from "./interrupt.js";

/** What can be timed. */
export const OPERATIONS = [
  ...["embed", "linear", "mla_decode", "mla_prefill", "mla_project", "moe_experts", "moe_route", "ngram_embed"],
  ...["random_fill", "rms_norm", "sample", "step_plan", "swiglu_mlp", "token_logprobs"],
];
const SHAPES = ["flash", "lite", "mini", "all"];
const ISAS = ["plain", "avx2", "avx512", "cuda", "cuda-bf16"];
const LARGEST = 2 ** 30;

/** What the program takes under the same names. */
const PASSED_ON: readonly Flag[] = [
  { name: "device", kind: "text", value: "D", help: "cpu, cuda or cuda:N (default: a GPU where there is one)" },
  { name: "shape", kind: "text", value: "NAME", help: "sizes of flash, lite, mini or all (default)" },
  { name: "tokens", kind: "text", value: "1,16,…", help: "rows to try" },
  { name: "svg", kind: "text", value: "FILE", help: "write a roofline of all rows" },
  { name: "threads", kind: "text", value: "N", help: "threads of the processor" },
  { name: "isa", kind: "text", value: "NAME", help: "plain, avx2, avx512; on a GPU cuda (float32 activations), cuda-bf16" },
];

export const benchKernelsCommand: Command = {
  usage: ["bench kernels [OPERATION] [--device D] [--shape NAME] [--tokens 1,16] [--json] [--svg FILE]"],
  about:
    "Times each operation, or one, at the sizes of each model: median µs, TFLOP/s, GB/s, and the share of the ceiling, the least time that\n" +
    "memory and arithmetic allow, both measured first by the same program. On a GPU each run comes from a captured graph, after all of the\n" +
    "card's cache was read over. In a clone `node scripts/run.mjs build` makes the program. Operations:\n" +
    `${OPERATIONS.slice(0, 8).join(", ")},\n${OPERATIONS.slice(8).join(", ")}.`,
  flags: [
    ...PASSED_ON,
    { name: "fp8-activations", kind: "flag", help: "on a GPU: inputs of products with FP8 weights are quantised" },
    { name: "no-batch-invariant", kind: "flag", help: "on a GPU: work may be cut as suits the batch" },
    JSON_FLAG,
  ],
  maxPositionals: 1,
  run: async (flags) => {
    checkValues(flags);
    await checkDevice(flags);
    chartFile(flags);
    return interruptible((signal) => runProgram(kernelsProgram(), ["bench", ...argumentsOf(flags)], signal));
  },
};

/** Refuses wrong values before the program is looked for, in the words of every other command. */
function checkValues(flags: ParsedFlags): void {
  const [operation] = flags.positionals;
  if (operation !== undefined && !OPERATIONS.includes(operation))
    throw new UsageError(`no operation ${JSON.stringify(operation)}; there are ${OPERATIONS.join(", ")}`);
  oneOf(flags, "shape", SHAPES, "all");
  oneOf(flags, "isa", ISAS, "");
  numbers(flags, "tokens", "", 1, LARGEST);
  numberOr(flags, "threads", 1, LARGEST, undefined);
  const device = flags.text("device") ?? "cpu";
  if (!/^(cpu|cuda(:\d{1,4})?)$/.test(device)) throw new UsageError(`--device: ${JSON.stringify(device)} is none of cpu, cuda, cuda:N`);
}

/** FP8 activations are refused where the processor is measured, as by the engine. */
async function checkDevice(flags: ParsedFlags): Promise<void> {
  if (flags.on("fp8-activations") && !(await measuresGpu(flags)))
    throw new UsageError("--fp8-activations needs a GPU, and the processor is measured");
}

/** Where the program runs: as told, else on a GPU where there is one and nothing says that the processor is meant. */
async function measuresGpu(flags: ParsedFlags): Promise<boolean> {
  const device = flags.text("device");
  if (device !== undefined) return device !== "cpu";
  const isa = flags.text("isa");
  if (flags.text("threads") !== undefined || (isa !== undefined && !isa.startsWith("cuda"))) return false;
  return meansGpu("auto");
}

function argumentsOf(flags: ParsedFlags): string[] {
  const values = PASSED_ON.flatMap(({ name }) => {
    const value = flags.text(name);
    return value === undefined ? [] : [`--${name}`, value];
  });
  const switches = ["fp8-activations", "no-batch-invariant", "json"].filter((name) => flags.on(name)).map((name) => `--${name}`);
  return [...flags.positionals, ...values, ...switches];
}

/** Runs the program on this process's own terminal, to its exit code. */
function runProgram(program: string, args: readonly string[], signal: AbortSignal): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: "inherit" });
    const stop = () => child.kill("SIGINT");
    signal.addEventListener("abort", stop, { once: true });
    child.on("error", (error) => reject(new LongcatError("NATIVE_MISSING", `${program} cannot be run: ${error.message}`)));
    child.on("close", (code, how) => {
      signal.removeEventListener("abort", stop);
      if (signal.aborted) resolve(INTERRUPTED);
      else if (code !== null) resolve(code);
      else reject(new LongcatError("INTERNAL", `${program} was ended by ${how}`));
    });
  });
}
