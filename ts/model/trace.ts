/**
 * Runs one prompt and keeps what happened on the way: hidden states, routing, logits, the draft head's logits. For comparing with
 * other implementations and for looking at routing; not a fast path.
 * @module
 */

import { LongcatError } from "../errors.js";
import type { Queue, Tensor } from "../runtime/device.js";
import { ops } from "../runtime/ops.js";
import type { Tap } from "./program.js";
import type { Runner } from "./runner.js";

/** What a prompt of T tokens left behind; all arrays row-major. */
export interface Trace {
  /** [T, V] */
  logits: Float32Array;
  /** For each layer, [T, D] after it (before the final norm). */
  hidden: Float32Array[];
  /** For each layer, [T, K] ids ascending, their weights × factor, and [T, N+Z] probabilities. */
  routing: { ids: Int32Array; weights: Float32Array; probabilities: Float32Array }[];
  /** [T − 1, V]: row t has seen tokens 0 … t+1. Null where the runner makes no drafts. */
  draftLogits: Float32Array | null;
}

/**
 * Runs `tokens` as a prompt in slot 0, using the cache's first blocks: nothing else may run on the runner meanwhile.
 *
 * @throws LongcatError CONTEXT_OVERFLOW if the prompt is longer than a step or the context.
 */
export async function trace(runner: Runner, tokens: readonly number[]): Promise<Trace> {
  const { limits, weights, queue } = runner;
  const most = Math.min(limits.maxBatchTokens, limits.contextLength);
  if (tokens.length > most)
    throw new LongcatError("CONTEXT_OVERFLOW", `a traced prompt may have ${most} tokens, this one has ${tokens.length}`);
  const { program, blocks } = runner.promptProgram();
  const recorder = new Recorder(runner, tokens.length);
  runner.setBlocks(
    0,
    0,
    Array.from({ length: Math.ceil(tokens.length / limits.blockSize) }, (_, i) => i),
  );
  program.tap = recorder;
  try {
    await runner.step([{ slot: 0, position: 0, tokens, sample: false }]);
  } finally {
    delete program.tap;
  }
  const { normed, attended, step, logits: out } = program.activations;
  const allLogits = async (x: Tensor, rows: number): Promise<Float32Array> => {
    const V = limits.vocabulary;
    const logits = new Float32Array(rows * V);
    for (let first = 0; first < rows; first += program.capacity.logitRows) {
      const count = Math.min(program.capacity.logitRows, rows - first);
      blocks.writeTargets(first, new Array<number>(count).fill(-1));
      queue.write(program.stepBlock, blocks.input);
      ops.linear(queue, { x, rowIndex: step.logitRows, weight: weights.head, out, rows: program.logitCount });
      await queue.read(out, logits.subarray(first * V, (first + count) * V));
    }
    return logits;
  };
  const logits = await allLogits(normed, tokens.length);
  // The draft head has run over the step's rows, and left there what it found.
  const draftLogits = limits.maxDrafts > 0 && tokens.length > 1 ? await allLogits(attended, tokens.length - 1) : null;
  return { logits, draftLogits, ...(await recorder.read(queue)) };
}

/** A tap that copies everything aside. */
class Recorder implements Tap {
  readonly #hidden: Tensor[];
  readonly #routing: { ids: Tensor; weights: Tensor; probabilities: Tensor }[];

  constructor(runner: Runner, rows: number) {
    const { device, config } = runner;
    const layers = Array.from({ length: config.numLayers });
    this.#hidden = layers.map(() => device.tensor("float32", [rows, config.hiddenSize]));
    this.#routing = layers.map(() => ({
      ids: device.tensor("int32", [rows, config.topK]),
      weights: device.tensor("float32", [rows, config.topK]),
      probabilities: device.tensor("float32", [rows, config.numExperts + config.numZeroExperts]),
    }));
  }

  hiddenBefore(queue: Queue, index: number, x: Tensor): void {
    if (index > 0) copyAll(queue, x, this.#hidden[index - 1]!);
  }

  routing(queue: Queue, index: number, ids: Tensor, weights: Tensor, probabilities: Tensor): void {
    const kept = this.#routing[index]!;
    copyAll(queue, ids, kept.ids);
    copyAll(queue, weights, kept.weights);
    copyAll(queue, probabilities, kept.probabilities);
  }

  async read(queue: Queue): Promise<Pick<Trace, "hidden" | "routing">> {
    const floats = async (tensor: Tensor) => {
      const values = await queue.readFloats(tensor);
      tensor.release();
      return values;
    };
    const ints = async (tensor: Tensor) => {
      const values = new Int32Array(tensor.bytes / 4);
      await queue.read(tensor, values);
      tensor.release();
      return values;
    };
    const hidden: Float32Array[] = [];
    for (const tensor of this.#hidden) hidden.push(await floats(tensor));
    const routing: Trace["routing"] = [];
    for (const { ids, weights, probabilities } of this.#routing) {
      routing.push({ ids: await ints(ids), weights: await floats(weights), probabilities: await floats(probabilities) });
    }
    return { hidden, routing };
  }
}

/** The first rows of `from`, which is of `to`'s type: as many bytes as `to` has. */
function copyAll(queue: Queue, from: Tensor, to: Tensor): void {
  queue.copy(from, 0, to, 0, to.bytes);
}
