/**
 * The block that the host writes before a step and those that it reads after one, as typed arrays over plain memory.
 * @module
 */

import { type Capacity, layoutActivations, type StepTensors } from "./activations.js";
import type { ModelConfig } from "./config.js";
import { StepCount } from "./program.js";
import { MAX_LOGPROBS, type StepResult, type StepSequence } from "./runner-types.js";

/** Where a tensor lies in its block. */
interface Place {
  byteOffset: number;
  length: number;
}

/** The places of a program's blocks. What activations are does not move them: both blocks come first. */
function places(config: ModelConfig, capacity: Capacity) {
  return layoutActivations(config, capacity, "float32", (_dtype, shape, byteOffset) => ({
    byteOffset,
    length: shape.reduce((product, n) => product * n, 1),
  }));
}

/** Writes steps into one block, for programs of one capacity. Results are read into blocks of their own, used again and again. */
export class StepBlocks {
  readonly input: Uint8Array;
  readonly #config: ModelConfig;
  readonly #capacity: Capacity;
  readonly #step: Record<keyof StepTensors<unknown>, Int32Array>;
  readonly #results: ResultBlock[] = [];

  constructor(config: ModelConfig, capacity: Capacity) {
    const { activations, stepBytes } = places(config, capacity);
    this.#config = config;
    this.#capacity = capacity;
    this.input = new Uint8Array(stepBytes.end - stepBytes.begin);
    const ints = ({ byteOffset, length }: Place) => new Int32Array(this.input.buffer, byteOffset - stepBytes.begin, length);
    const { step } = activations;
    this.#step = {
      counts: ints(step.counts),
      tokenIds: ints(step.tokenIds),
      positions: ints(step.positions),
      seqStart: ints(step.seqStart),
      seqSlot: ints(step.seqSlot),
      logitRows: ints(step.logitRows),
      logitSlot: ints(step.logitSlot),
      logitPosition: ints(step.logitPosition),
      targets: ints(step.targets),
    };
  }

  /** A block for one step's results; `giveBack` it when they are read. */
  takeResult(): ResultBlock {
    return this.#results.pop() ?? new ResultBlock(this.#config, this.#capacity);
  }

  giveBack(result: ResultBlock): void {
    this.#results.push(result);
  }

  /** Fills the input block. */
  writeStep(sequences: readonly StepSequence[]): void {
    const { counts, tokenIds, positions, seqStart, seqSlot, logitRows, logitSlot, logitPosition } = this.#step;
    let row = 0;
    let numPrefillRows = 0;
    let numPrefillSequences = 0;
    let numLogitRows = 0;
    sequences.forEach((sequence, s) => {
      const length = sequence.tokens?.length ?? 1;
      seqStart[s] = row;
      seqSlot[s] = sequence.slot;
      for (let i = 0; i < length; i++) {
        tokenIds[row + i] = sequence.tokens?.[i] ?? -1;
        positions[row + i] = sequence.position + i;
      }
      row += length;
      if (sequence.tokens) {
        numPrefillRows = row;
        numPrefillSequences = s + 1;
      }
      if (sequence.sample) {
        logitRows[numLogitRows] = row - 1;
        logitSlot[numLogitRows] = sequence.slot;
        logitPosition[numLogitRows] = sequence.position + length;
        numLogitRows++;
      }
    });
    seqStart[sequences.length] = row;
    counts[StepCount.numRows] = row;
    counts[StepCount.numPrefillRows] = numPrefillRows;
    counts[StepCount.numSequences] = sequences.length;
    counts[StepCount.numPrefillSequences] = numPrefillSequences;
    counts[StepCount.numLogitRows] = numLogitRows;
    counts[StepCount.numSplits] = 0;
  }

  /** Points the head at rows [first, first + targets.length) and their targets, for scoring. */
  writeTargets(first: number, targets: readonly number[]): void {
    targets.forEach((target, i) => {
      this.#step.logitRows[i] = first + i;
      this.#step.targets[i] = target;
    });
    this.#step.counts[StepCount.numLogitRows] = targets.length;
  }
}

/** Reads the results of one step. */
export class ResultBlock {
  readonly bytes: Uint8Array;
  readonly #capacity: Capacity;
  readonly #numLayers: number;
  readonly #tokens: Int32Array;
  readonly #logprob: Float32Array;
  readonly #topIds: Int32Array;
  readonly #topLogprobs: Float32Array;
  readonly #ffnCount: Int32Array;

  constructor(config: ModelConfig, capacity: Capacity) {
    const { activations, resultBytes } = places(config, capacity);
    this.#capacity = capacity;
    this.#numLayers = config.numLayers;
    this.bytes = new Uint8Array(resultBytes.end - resultBytes.begin);
    const ints = ({ byteOffset, length }: Place) => new Int32Array(this.bytes.buffer, byteOffset - resultBytes.begin, length);
    const floats = ({ byteOffset, length }: Place) => new Float32Array(this.bytes.buffer, byteOffset - resultBytes.begin, length);
    const { result } = activations;
    this.#tokens = ints(result.tokens);
    this.#logprob = floats(result.logprob);
    this.#topIds = ints(result.topIds);
    this.#topLogprobs = floats(result.topLogprobs);
    this.#ffnCount = ints(result.ffnCount);
  }

  /** What the block holds for the step's sequences. `alternatives`: how many each asked for. */
  read(sequences: readonly StepSequence[], alternatives: readonly number[]): StepResult[] {
    let row = 0;
    let logitRow = 0;
    return sequences.map((sequence, s) => {
      const length = sequence.tokens?.length ?? 1;
      const ffnExperts = Array.from({ length }, (_, i) => this.#experts(row + i));
      row += length;
      if (!sequence.sample) return { drawn: [], ffnExperts };
      const at = logitRow++;
      const top = this.#alternatives(at, Math.max(alternatives[s] ?? 0, 0));
      return { drawn: [{ token: this.#tokens[at]!, logprob: this.#logprob[at]!, top }], ffnExperts };
    });
  }

  #experts(row: number): Uint8Array {
    const counts = new Uint8Array(this.#numLayers);
    for (let l = 0; l < this.#numLayers; l++) counts[l] = this.#ffnCount[l * this.#capacity.tokens + row]!;
    return counts;
  }

  #alternatives(row: number, count: number): { token: number; logprob: number }[] {
    const top: { token: number; logprob: number }[] = [];
    for (let i = 0; i < count; i++) {
      const token = this.#topIds[row * MAX_LOGPROBS + i]!;
      if (token < 0) break;
      top.push({ token, logprob: this.#topLogprobs[row * MAX_LOGPROBS + i]! });
    }
    return top;
  }
}
