/**
 * What an experiment is: a claim of the report, runs at toy width that bear on it, and a verdict in numbers. A verdict against the report is
 * a result like any other.
 * @module
 */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import type { Plot } from "../train/plot.js";
import { type Forwarded, type StepReport, Trainer } from "../train/trainer.js";

/** A run that was trained to its end. */
export interface TrainedRun {
  steps: StepReport[];
  heldOutLoss: number;
  /** Root mean square of the last step's gradients, tensor by tensor. */
  gradientSizes: number[];
}

/** What an experiment may use. */
export interface Lab {
  /** The same question with far fewer steps, for tests: some seconds. */
  brief: boolean;
  /** What `read` finds in a run's model before its first step, with a forward of held-out sequences in memory. */
  atStart<T>(run: Record<string, unknown>, read: (left: Forwarded) => Promise<T>): Promise<T>;
  /** Trains a run to its end. */
  train(run: Record<string, unknown>): Promise<TrainedRun>;
  /** Trains a run to its end, whose layers are stacked `copies` times behind step `at`. */
  trainGrown(run: Record<string, unknown>, at: number, copies: number): Promise<TrainedRun>;
}

/** What came of it. */
export interface Outcome {
  /** The numbers, a row a run; the first row names them. */
  table: (string | number)[][];
  verdict: string;
  /** Whether that is what the report says. */
  agrees: boolean;
  plot: Plot;
}

/** One experiment. */
export interface Experiment {
  name: string;
  /** What the report says, in a sentence. */
  claim: string;
  run(lab: Lab): Promise<Outcome>;
}

/** Batches of held-out sequences that a trained run is measured on. */
const HELD_OUT_BATCHES = 8;

/** A lab whose runs have so many threads. `onRun` is told of each run before it begins, counted from 1. */
export function openLab(brief: boolean, threads: number | "auto", onRun: (run: number) => void, signal?: AbortSignal): Lab {
  let runs = 0;
  const stepsTo = async (trainer: Trainer, end: number) => {
    const steps: StepReport[] = [];
    while (trainer.steps < end) {
      signal?.throwIfAborted();
      steps.push(await trainer.step());
    }
    return steps;
  };
  const finish = async (trainer: Trainer, before: StepReport[]): Promise<TrainedRun> => {
    const steps = [...before, ...(await stepsTo(trainer, trainer.run.steps))];
    return { steps, heldOutLoss: await trainer.evaluate(HELD_OUT_BATCHES), gradientSizes: await trainer.gradientSizes() };
  };
  return {
    brief,
    atStart: async (json, read) => {
      onRun(++runs);
      return closing(await Trainer.begin(json, { threads }), (trainer) => trainer.look(read));
    },
    train: async (json) => {
      onRun(++runs);
      return closing(await Trainer.begin(json, { threads }), (trainer) => finish(trainer, []));
    },
    trainGrown: async (json, at, copies) => {
      onRun(++runs);
      const dir = mkdtempSync(join(tmpdir(), "longcat-lab-"));
      try {
        const checkpoint = join(dir, "checkpoint");
        const steps = await closing(await Trainer.begin(json, { threads }), async (trainer) => {
          const first = await stepsTo(trainer, at);
          await trainer.save(checkpoint);
          return first;
        });
        return await closing(await Trainer.grow(checkpoint, copies, { threads }), (trainer) => finish(trainer, steps));
      } finally {
        rmSync(dir, { recursive: true, force: true });
      }
    },
  };
}

async function closing<T>(trainer: Trainer, work: (trainer: Trainer) => Promise<T>): Promise<T> {
  try {
    return await work(trainer);
  } finally {
    await trainer.close();
  }
}

/** The model of the experiments: all that LongCat-Flash has, 78 thousand numbers. */
export const LAB_MODEL = {
  architectures: ["LongcatFlashForCausalLM"],
  model_type: "longcat_flash",
  ...{ hidden_size: 32, num_layers: 2, vocab_size: 24, max_position_embeddings: 64 },
  ...{ num_attention_heads: 2, q_lora_rank: 20, kv_lora_rank: 12, qk_nope_head_dim: 16, qk_rope_head_dim: 8, v_head_dim: 10 },
  ...{ ffn_hidden_size: 64, expert_ffn_hidden_size: 24, n_routed_experts: 8, zero_expert_num: 4, moe_topk: 3, routed_scaling_factor: 2 },
  ...{ rms_norm_eps: 1e-5, rope_theta: 10000, bos_token_id: 1, eos_token_id: 2 },
};

/** A run of it that learns sums of two digits, at a constant rate behind its warm-up. */
export function labRun(steps: number, changes: Record<string, unknown>): Record<string, unknown> {
  return {
    ...{ model: LAB_MODEL, seed: 1, steps, sequences: 16, task: { kind: "sums", digits: 2 }, rate: 0.01 },
    schedule: { kind: "wsd", warmup: 20, decay: 1, final: 1 },
    ...changes,
  };
}

/** The mean of some numbers. */
export function mean(numbers: readonly number[]): number {
  return numbers.reduce((sum, n) => sum + n, 0) / numbers.length;
}

/** A number of each step, as the mean of twenty at a time. */
export function smoothed(steps: readonly StepReport[], of: (step: StepReport) => number): [number, number][] {
  return steps.filter(({ step }) => step % 20 === 0).map(({ step }) => [step, mean(steps.slice(step - 20, step).map(of))]);
}

/** A difference over seeds: its mean, whether that is more than twice its standard error, and words for both. */
export function compared(differences: readonly number[]): { average: number; told: boolean; words: string } {
  const average = mean(differences);
  const error = Math.sqrt(mean(differences.map((d) => (d - average) ** 2)) / (differences.length - 1));
  const told = Math.abs(average) >= 2 * error;
  const words =
    `${Math.abs(average).toFixed(3)} ${average < 0 ? "lower" : "higher"} over ${differences.length} seeds (standard error ${error.toFixed(3)})` +
    (told ? "" : ": nothing that could be told from noise");
  return { average, told, words };
}
