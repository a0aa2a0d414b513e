/**
 * Checkpoints of a run: the model in the layout that every engine reads, and beside it, in the folder `training`, what it takes to go on to
 * the same bits: AdamW's momenta and variances, the step, the run.
 *
 * ```
 *   config.json model.safetensors          float32
 *   training/run.json                      the run, and how many steps are done
 *   training/optimizer.safetensors         momentum.NAME, variance.NAME
 * ```
 * @module
 */

import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { invalid } from "../checks.js";
import { LongcatError } from "../errors.js";
import { SINGLE_NAME } from "../model/files.js";
import { SafetensorsWriter } from "../model/safetensors-writer.js";
import type { Queue } from "../runtime/device.js";
import { openSafetensors } from "../runtime/files.js";
import type { Memory, Parameter, Parameters } from "./parameters.js";

/** What a checkpoint holds beside numbers. */
export interface TrainState {
  /** The run's JSON. */
  run: Record<string, unknown>;
  /** Steps that are done. */
  step: number;
}

const FOLDER = "training";
const RUN_NAME = "run.json";
const OPTIMIZER_NAME = "optimizer.safetensors";

/**
 * Writes a checkpoint to the new folder `dir`, which appears under its name when it is whole.
 *
 * @throws LongcatError OPTION_INVALID if something is there
 */
export async function saveCheckpoint(
  queue: Queue,
  dir: string,
  parameters: Parameters,
  config: Record<string, unknown>,
  state: TrainState,
): Promise<void> {
  if (existsSync(dir)) throw invalid("checkpoint", dir, "a folder that is not there yet");
  const partial = `${dir}.partial-${process.pid}`;
  mkdirSync(join(partial, FOLDER), { recursive: true });
  try {
    writeFileSync(join(partial, "config.json"), JSON.stringify(config, null, 2));
    writeFileSync(join(partial, FOLDER, RUN_NAME), JSON.stringify(state, null, 2));
    await writeTensors(queue, join(partial, SINGLE_NAME), parameters, ["weight"], ({ name }) => name);
    await writeTensors(queue, join(partial, FOLDER, OPTIMIZER_NAME), parameters, ["momentum", "variance"], ({ name }, memory) =>
      stateName(name, memory),
    );
    renameSync(partial, dir);
  } catch (error) {
    rmSync(partial, { recursive: true, force: true });
    throw error;
  }
}

/**
 * What a checkpoint says of its run.
 *
 * @throws LongcatError CHECKPOINT_INVALID if it is none of a run
 */
export function readTrainState(dir: string): TrainState {
  const path = join(dir, FOLDER, RUN_NAME);
  try {
    const { run, step } = JSON.parse(readFileSync(path, "utf8")) as Partial<TrainState>;
    if (typeof run === "object" && run !== null && Number.isSafeInteger(step) && step! >= 0) return { run, step: step! };
  } catch (error) {
    throw new LongcatError("CHECKPOINT_INVALID", `${path}: cannot be read, so there is no run to go on with`, { cause: error });
  }
  throw new LongcatError("CHECKPOINT_INVALID", `${path}: holds no run`);
}

/**
 * Fills weights, momenta and variances from a checkpoint.
 *
 * @param sourceOf the checkpoint's name of a tensor of the model. Default: the same.
 */
export async function loadCheckpoint(
  queue: Queue,
  dir: string,
  parameters: Parameters,
  sourceOf: (name: string) => string = (name) => name,
): Promise<void> {
  await readTensors(queue, join(dir, SINGLE_NAME), parameters, ["weight"], ({ name }) => sourceOf(name));
  const optimizer = join(dir, FOLDER, OPTIMIZER_NAME);
  await readTensors(queue, optimizer, parameters, ["momentum", "variance"], ({ name }, memory) => stateName(sourceOf(name), memory));
}

type NameOf = (parameter: Parameter, memory: Memory) => string;

function stateName(name: string, memory: Memory): string {
  return `${memory}.${name}`;
}

async function writeTensors(
  queue: Queue,
  path: string,
  parameters: Parameters,
  memories: readonly Memory[],
  nameOf: NameOf,
): Promise<void> {
  const all = memories.flatMap((memory) => parameters.list.map((parameter) => ({ parameter, memory })));
  const writer = new SafetensorsWriter(
    path,
    all.map(({ parameter, memory }) => ({
      name: nameOf(parameter, memory),
      dtype: "F32",
      shape: parameter.shape,
      bytes: 4 * parameter.count,
    })),
  );
  try {
    for (const { parameter, memory } of all) {
      const numbers = new Float32Array(parameter.count);
      await queue.read(parameters.view(memory, parameter.name), numbers);
      writer.write(nameOf(parameter, memory), numbers);
    }
  } finally {
    writer.close();
  }
}

async function readTensors(queue: Queue, path: string, parameters: Parameters, memories: readonly Memory[], nameOf: NameOf): Promise<void> {
  const file = openSafetensors(path);
  try {
    const entries = new Map(file.entries.map((entry) => [entry.name, entry]));
    for (const memory of memories) {
      for (const parameter of parameters.list) {
        const name = nameOf(parameter, memory);
        const entry = entries.get(name);
        if (entry?.storedDtype !== "F32" || entry.end - entry.begin !== 4 * parameter.count)
          throw new LongcatError("CHECKPOINT_INVALID", `${path}: tensor "${name}" is not there as F32 [${parameter.shape.join(", ")}]`);
        if (!queue.hasRoom(1)) await queue.room();
        const stored = queue.device.fromFile(file, entry);
        queue.copy(stored, 0, parameters.view(memory, parameter.name), 0, 4 * parameter.count);
        stored.release();
      }
    }
    await queue.done();
  } finally {
    file.close();
  }
}
