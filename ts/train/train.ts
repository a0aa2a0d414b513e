/**
 * A run from its beginning, or from its newest checkpoint, to its end: `longcat train`.
 *
 * ```
 *   OUTPUT/checkpoint-00000100/     the model after 100 steps, and what it takes to go on (ts/train/checkpoint.ts)
 *   OUTPUT/steps.csv loss.svg
 * ```
 * @module
 */

import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { integer, invalid } from "../checks.js";
import { LongcatError } from "../errors.js";
import { kindOf } from "../model/files.js";
import { type LoggedStep, StepLog } from "./log.js";
import { Trainer, type TrainerOptions } from "./trainer.js";

/** How to run. */
export interface TrainOptions extends TrainerOptions {
  /** Called after each step. */
  onStep?: (step: LoggedStep) => void;
  /** Stops the run after the step that is under way; what is done is saved first. */
  signal?: AbortSignal;
}

/** What a run came to. */
export interface TrainResult {
  steps: number;
  /** Mean cross-entropy of sequences that were not trained on. */
  heldOutLoss: number;
  /** The folder of the last checkpoint: `Engine.load` takes it. It has no tokenizer, so prompts are token ids. */
  checkpoint: string;
}

/**
 * Trains a model: a whole run, as docs/lab.md describes its file.
 *
 * @param run the parsed JSON of a run file
 * @param output a new or empty folder, where checkpoints, steps.csv and loss.svg are written
 * @throws LongcatError OPTION_INVALID or CONFIG_INVALID naming the field that is wrong; ABORTED after a checkpoint, if the signal says so
 */
export async function train(run: Record<string, unknown>, output: string, options: TrainOptions = {}): Promise<TrainResult> {
  requireNewFolder(output);
  const trainer = await Trainer.begin(run, options);
  mkdirSync(output, { recursive: true });
  return toTheEnd(trainer, output, options);
}

/**
 * Goes on with a run in a model of more layers: `copies` of those that a checkpoint has, stacked, with all training state kept (the report's
 * model growth).
 *
 * @param checkpoint one of a run's folders checkpoint-…
 * @param copies at least 2
 * @param output a new or empty folder for the grown run
 * @throws LongcatError CHECKPOINT_INVALID if it holds no checkpoint of a run; else as `train` does
 */
export async function growTraining(checkpoint: string, copies: number, output: string, options: TrainOptions = {}): Promise<TrainResult> {
  integer(copies, "copies", 2, 1024);
  requireNewFolder(output);
  const trainer = await Trainer.grow(checkpoint, copies, options);
  mkdirSync(output, { recursive: true });
  return toTheEnd(trainer, output, options);
}

function requireNewFolder(output: string): void {
  const kind = kindOf(output);
  if (kind !== "absent" && !(kind === "folder" && readdirSync(output).length === 0))
    throw invalid("output", output, "a new or empty folder");
}

/**
 * Goes on with a run that was stopped, from its newest checkpoint. What comes of it has the bits of a run that was not.
 *
 * @param output the folder that `train` was given
 * @throws LongcatError CHECKPOINT_INVALID if no checkpoint is there; ABORTED as `train` does
 */
export async function resumeTraining(output: string, options: TrainOptions = {}): Promise<TrainResult> {
  const trainer = await Trainer.resume(join(output, newestCheckpoint(output)), options);
  return toTheEnd(trainer, output, options);
}

const CHECKPOINT = /^checkpoint-\d{8}$/;

function checkpointName(step: number): string {
  return `checkpoint-${String(step).padStart(8, "0")}`;
}

function newestCheckpoint(output: string): string {
  const names = kindOf(output) === "folder" ? readdirSync(output).filter((name) => CHECKPOINT.test(name)) : [];
  const newest = names.sort().at(-1);
  if (newest === undefined)
    throw new LongcatError("CHECKPOINT_INVALID", `${output}: holds no checkpoint-…, so there is no run to go on with`);
  return newest;
}

/** Batches of held-out sequences that a look takes. */
const HELD_OUT_BATCHES = 4;

async function toTheEnd(trainer: Trainer, output: string, { onStep, signal }: TrainOptions): Promise<TrainResult> {
  try {
    const { steps, saveEvery, evaluateEvery, config } = trainer.run;
    const log = new StepLog(join(output, "steps.csv"), config.numLayers, trainer.steps);
    const isDue = (every: number | null) => trainer.steps === steps || (every !== null && trainer.steps % every === 0);
    const save = async () => {
      const path = join(output, checkpointName(trainer.steps));
      if (kindOf(path) === "absent") await trainer.save(path);
      writeFileSync(join(output, "loss.svg"), log.picture(`${steps} steps, seed ${trainer.run.seed}`));
      return path;
    };
    let heldOutLoss: number | null = null;
    while (trainer.steps < steps) {
      if (signal?.aborted) {
        const path = await save();
        throw new LongcatError("ABORTED", `training was stopped after ${trainer.steps} of ${steps} steps; ${path} goes on from there`, {
          cause: signal.reason,
        });
      }
      const report = await trainer.step();
      heldOutLoss = isDue(evaluateEvery) ? await trainer.evaluate(HELD_OUT_BATCHES) : null;
      const logged = { ...report, heldOutLoss };
      log.add(logged);
      if (isDue(saveEvery)) await save();
      onStep?.(logged);
    }
    return { steps, heldOutLoss: heldOutLoss ?? (await trainer.evaluate(HELD_OUT_BATCHES)), checkpoint: await save() };
  } finally {
    await trainer.close();
  }
}
