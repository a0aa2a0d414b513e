/**
 * `longcat bench kernels`: the operations one by one, by the `kernels` program that lies beside the addon.
 * @module
 */

import { spawn } from "node:child_process";
import { LongcatError } from "../index.js";
import { chooseDevice, type DeviceChoice, withoutEffect } from "../runtime/gpus.js";
import { kernelsProgram, operationNames } from "../runtime/kernels-program.js";
import { deviceName, numberOr, numbers, oneOf, SHAPE_NAMES } from "./bench-flags.js";
import { chartFile } from "./chart-file.js";
import { type Command, JSON_FLAG } from "./command.js";
import { type Flag, type ParsedFlags, UsageError } from "./flags.js";
import { INTERRUPTED, interruptible } from "./interrupt.js";
import { note } from "./output.js";

const ISAS = ["plain", "avx2", "avx512", "cuda", "cuda-bf16"];
const LARGEST = 2 ** 30;

/** What the program takes under the same names. */
const PASSED_ON: readonly Flag[] = [
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
    "memory and arithmetic allow, both measured first by the same program. On a GPU a time is that of one of many calls in a captured graph,\n" +
    "each over other copies of its operands, so that they come from memory. In a clone `npm run build` makes the program. An operation that\n" +
    "there is not is refused with the names of all.",
  flags: [
    { name: "device", kind: "text", value: "D", help: "auto (the first GPU, else the CPU; with --threads the CPU), cpu, cuda or cuda:N" },
    ...PASSED_ON,
    { name: "fp8-activations", kind: "flag", help: "on a GPU: inputs of products with FP8 weights are quantised" },
    { name: "no-batch-invariant", kind: "flag", help: "on a GPU: work may be cut as suits the batch" },
    JSON_FLAG,
  ],
  maxPositionals: 1,
  run: async (flags) => {
    checkValues(flags);
    const device = deviceOf(flags);
    chartFile(flags);
    return interruptible((signal) => runProgram(kernelsProgram(), ["bench", ...argumentsOf(flags, device)], signal));
  },
};

/** Refuses wrong values before the program is looked for, in the words of every other command. */
function checkValues(flags: ParsedFlags): void {
  const [operation] = flags.positionals;
  if (operation !== undefined && !operationNames().includes(operation))
    throw new UsageError(`no operation ${JSON.stringify(operation)}; there are ${operationNames().join(", ")}`);
  oneOf(flags, "shape", [...SHAPE_NAMES, "all"], "all");
  oneOf(flags, "isa", ISAS, "");
  numbers(flags, "tokens", "", 1, LARGEST);
}

/** Where the program runs: as told, else on a GPU where there is one and nothing says that the processor is meant. Tells and refuses as the engine does. */
function deviceOf(flags: ParsedFlags): DeviceChoice {
  const [threads, isa] = [numberOr(flags, "threads", 1, LARGEST, "auto" as const), flags.text("isa") ?? ""];
  const otherwise = isa.startsWith("cuda") ? "cuda" : isa !== "" || threads !== "auto" ? "cpu" : "auto";
  const choice = chooseDevice(deviceName(flags, otherwise));
  if (flags.on("fp8-activations") && choice.kind === "cpu")
    throw new UsageError("--fp8-activations needs a GPU, and the processor is measured");
  for (const warning of withoutEffect(choice, { threads, batchInvariant: !flags.on("no-batch-invariant") })) note(`warning: ${warning}`);
  return choice;
}

/** What was warned of already, since it has no effect on the device; the program refuses it. */
const WITHOUT_EFFECT = { cpu: "no-batch-invariant", cuda: "threads" };

function argumentsOf(flags: ParsedFlags, device: DeviceChoice): string[] {
  const without = WITHOUT_EFFECT[device.kind];
  const values = PASSED_ON.flatMap(({ name }) => {
    const value = flags.text(name);
    return value === undefined || name === without ? [] : [`--${name}`, value];
  });
  const switches = ["fp8-activations", "no-batch-invariant", "json"]
    .filter((name) => flags.on(name) && name !== without)
    .map((name) => `--${name}`);
  const where = ["--device", device.kind === "cpu" ? "cpu" : `cuda:${device.gpu.ordinal}`];
  return [...flags.positionals, ...where, ...values, ...switches];
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
