/**
 * `longcat train`: a training run from its file to its end.
 * @module
 */

import { readFileSync } from "node:fs";
import { growTraining, LongcatError, resumeTraining, type TrainOptions, type TrainResult, type TrainStep, train } from "../index.js";
import type { Command } from "./command.js";
import { type ParsedFlags, UsageError } from "./flags.js";
import { interruptible } from "./interrupt.js";
import { note, print } from "./output.js";

export const trainCommand: Command = {
  usage: ["train RUN.json OUT", "train --resume OUT", "train --grow COPIES CHECKPOINT OUT"],
  about:
    "Trains the model that RUN.json describes, on the CPU, and writes checkpoints, steps.csv and loss.svg to the new folder OUT. " +
    "Ctrl-C saves a checkpoint; --resume goes on from the newest one, to the same bits; --grow goes on from CHECKPOINT with COPIES of its " +
    "layers stacked. docs/lab.md describes the file.",
  flags: [
    { name: "resume", kind: "flag", help: "go on with the run in OUT" },
    { name: "grow", kind: "number", value: "COPIES", help: "go on with a model of so many times the layers" },
    { name: "threads", kind: "number", value: "N", help: "threads of the CPU (default: all that this process may use)" },
  ],
  maxPositionals: 2,
  run: async (flags) => {
    const threads = flags.number("threads");
    const progress = new StepLines();
    const result = await interruptible((signal) =>
      start(flags, { signal, ...(threads !== undefined && { threads }), onStep: (step: TrainStep) => progress.step(step) }),
    );
    await print(`held-out loss ${result.heldOutLoss.toFixed(4)} after ${result.steps} steps\n`);
    note(`wrote ${result.checkpoint}`);
    return undefined;
  },
};

/** Does what the words ask for. */
function start(flags: ParsedFlags, options: TrainOptions): Promise<TrainResult> {
  const [first, second] = flags.positionals;
  const copies = flags.number("grow");
  if (flags.on("resume")) {
    if (first === undefined || second !== undefined || copies !== undefined) throw new UsageError("train --resume needs one folder: OUT");
    return resumeTraining(first, options);
  }
  if (first === undefined || second === undefined)
    throw new UsageError(
      copies === undefined ? "train needs a file and a folder: RUN.json and OUT" : "train --grow needs two folders: CHECKPOINT and OUT",
    );
  return copies === undefined ? train(readRun(first), second, options) : growTraining(first, copies, second, options);
}

function readRun(file: string): Record<string, unknown> {
  try {
    return JSON.parse(readFileSync(file, "utf8")) as Record<string, unknown>;
  } catch (cause) {
    throw new LongcatError("OPTION_INVALID", `${file}: ${(cause as Error).message.replaceAll("\n", " ")}`, { cause });
  }
}

const LINE_MS = 2000;

/** A line on standard error every two seconds, and for each look at held-out sequences. */
class StepLines {
  #writtenAt = performance.now();
  #tokens = 0;

  step({ step, loss, heldOutLoss, gradientNorm, ffnExperts, tokens }: TrainStep): void {
    this.#tokens += tokens;
    const seconds = (performance.now() - this.#writtenAt) / 1000;
    if (heldOutLoss === null && seconds * 1000 < LINE_MS) return;
    const mean = ffnExperts.reduce((sum, n) => sum + n, 0) / ffnExperts.length;
    note(
      `step ${step}  loss ${loss.toFixed(4)}${heldOutLoss === null ? "" : `  held out ${heldOutLoss.toFixed(4)}`}  ` +
        `gradient ${gradientNorm.toPrecision(3)}  FFN experts ${mean.toFixed(2)}  ${Math.round(this.#tokens / seconds)} tokens/s`,
    );
    this.#writtenAt = performance.now();
    this.#tokens = 0;
  }
}
