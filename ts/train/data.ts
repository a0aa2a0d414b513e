/**
 * What a run trains on: batches by their number, so that a run that goes on has those that it would have had.
 * @module
 */

import type { Batch, TrainSequence } from "./batch.js";
import { TextData } from "./data/text.js";
import type { BatchCapacity } from "./memory.js";
import { drawsOf } from "./random.js";
import type { Run } from "./run.js";
import { drawTask, type TaskOptions, taskLength } from "./tasks.js";

/** Batches of a run. */
export interface TrainData {
  /** Room for any of them. */
  readonly capacity: BatchCapacity;
  /** What goes beside the model in a checkpoint, by name. */
  readonly files: ReadonlyMap<string, Uint8Array>;
  /** Differs where the data do; null: the run's JSON says it all. */
  readonly digest: string | null;
  /** Batch `index` to train on, and of what is not trained on. */
  batch(index: number): Batch;
  heldOut(index: number): Batch;
}

/** Makes or reads what a run trains on. */
export async function openData({ source, seed, sequences, distinct, config }: Run): Promise<TrainData> {
  if (source.kind === "task") return new TaskData(source.task, { seed, sequences, distinct });
  return TextData.open(source.data, { seed, sequences, vocabSize: config.vocabSize });
}

/** Sequences of a task, made one by one. */
class TaskData implements TrainData {
  readonly capacity: BatchCapacity;
  readonly files = new Map<string, Uint8Array>();
  readonly digest = null;

  constructor(
    private readonly task: TaskOptions,
    private readonly run: Pick<Run, "seed" | "sequences" | "distinct">,
  ) {
    const length = taskLength(task);
    this.capacity = { sequences: run.sequences, length, tokens: run.sequences * length };
  }

  batch(index: number): Batch {
    const { distinct } = this.run;
    return this.#sequences(index, (sequence) => (distinct === null ? sequence : sequence % distinct));
  }

  heldOut(index: number): Batch {
    return this.#sequences(index, (sequence) => HELD_OUT + sequence);
  }

  #sequences(batch: number, numberOf: (sequence: number) => number): TrainSequence[] {
    const { sequences, seed } = this.run;
    return Array.from({ length: sequences }, (_, s) => drawTask(this.task, drawsOf(seed, numberOf(batch * sequences + s))));
  }
}

/** Sequences of a run are numbered from 0; those that it is measured on from here, where no run comes to. */
const HELD_OUT = 2 ** 40;
