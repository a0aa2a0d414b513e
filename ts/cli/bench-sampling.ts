/**
 * `longcat bench sampling`: what masks and penalties cost a step.
 * @module
 */

import { benchSampling, type SampleTime, type SamplingResult, type StepTimes } from "../engine/bench-sampling.js";
import { cell, numberOr } from "./bench-flags.js";
import { type Command, JSON_FLAG } from "./command.js";
import { print, printJson } from "./output.js";

const DEFAULT_BATCH = 64;
const DEFAULT_VOCABULARY = 131_072;
const DEFAULT_STEPS = 600;
const LABEL_WIDTH = 54;

export const benchSamplingCommand: Command = {
  usage: ["bench sampling [--batch N] [--vocabulary N] [--steps N] [--json]"],
  about:
    "Keeps a batch of answers to four JSON schemas, over a made-up vocabulary, and prints what a step's masks cost on the main thread and on\n" +
    "their way to the device. Then times the operation that samples, on one thread of the processor, with and without masks and penalties.\n" +
    "No model is needed.",
  flags: [
    { name: "batch", kind: "number", value: "N", help: `sequences of a step (default ${DEFAULT_BATCH})` },
    { name: "vocabulary", kind: "number", value: "N", help: `token ids (default ${DEFAULT_VOCABULARY})` },
    { name: "steps", kind: "number", value: "N", help: `steps (default ${DEFAULT_STEPS})` },
    JSON_FLAG,
  ],
  maxPositionals: 0,
  run: async (flags) => {
    const result = await benchSampling({
      batch: numberOr(flags, "batch", 1, 1024, DEFAULT_BATCH),
      vocabulary: numberOr(flags, "vocabulary", 2048, 1_000_000, DEFAULT_VOCABULARY),
      steps: numberOr(flags, "steps", 4, 100_000, DEFAULT_STEPS),
    });
    if (flags.on("json")) await printJson(result);
    else await print(describe(result));
    return undefined;
  },
};

function describe(result: SamplingResult): string {
  const line = (what: string, { median, p99, max }: StepTimes): string =>
    `${what.padEnd(LABEL_WIDTH)} ${cell(median, 8, 3)} ms  p99 ${cell(p99, 8, 3)}  max ${cell(max, 8, 3)}`;
  const { batch, vocabulary, steps, sample, compileMs } = result;
  /** Names say what is on, from the way of drawing on: the time without masks and penalties has the same beginning. */
  const without = ({ what }: SampleTime): SampleTime | undefined => sample.find((other) => what.startsWith(`${other.what}, `));
  const beside = (time: SampleTime): string => {
    const plain = without(time);
    return plain ? `  ${cell(time.ms - plain.ms, 8, 3)} more than without` : "";
  };
  return [
    `${batch} sequences, ${vocabulary} token ids, ${steps} steps`,
    `vocabulary sorted in ${result.vocabularyMs.toFixed(0)} ms, at most ${result.vocabularyTurnMs.toFixed(1)} ms at a time`,
    `schemas compiled in ${compileMs.map((ms) => ms.toFixed(1)).join(", ")} ms`,
    line("masks of a step, first half of the steps", result.coldMs),
    line("masks of a step, second half", result.warmMs),
    line("handing them to the device's queue", result.uploadMs),
    line("taking in the tokens", result.acceptMs),
    `${"upload of a step".padEnd(LABEL_WIDTH)} ${cell(result.uploadBytes / 1024, 8, 0)} KiB`,
    ...sample.map((time) => `${`sample: ${time.what}`.padEnd(LABEL_WIDTH)} ${cell(time.ms, 8, 3)} ms${beside(time)}`),
    "",
  ].join("\n");
}
