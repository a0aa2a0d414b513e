/**
 * The block that the host writes before a step and the one that it reads after it, as typed arrays over plain memory.
 * @module
 */

import { type Capacity, layoutActivations } from "./activations.js";
import type { ModelConfig } from "./config.js";
import { StepCount } from "./program.js";
import { MAX_LOGPROBS, type StepResult, type StepSequence } from "./runner-types.js";

/** Writes steps into one block and reads results from another, for programs of one capacity. */
export class StepBlocks {
  readonly input: Uint8Array;
  readonly output: Uint8Array;
  readonly #capacity: Capacity;
  readonly #numLayers: number;
  readonly #step: Record<
    "counts" | "tokenIds" | "positions" | "seqStart" | "seqSlot" | "logitRows" | "logitSlot" | "logitPosition" | "targets",
    Int32Array
  >;
  readonly #tokens: Int32Array;
  readonly #logprob: Float32Array;
  readonly #topIds: Int32Array;
  readonly #topLogprobs: Float32Array;
  readonly #ffnCount: Int32Array;

  constructor(config: ModelConfig, capacity: Capacity) {
    const { activations, stepBytes, resultBytes } = layoutActivations(config, capacity, (_dtype, shape, byteOffset) => ({
      byteOffset,
      length: shape.reduce((product, n) => product * n, 1),
    }));
    type Place = typeof activations.tokens;
    this.#capacity = capacity;
    this.#numLayers = config.numLayers;
    this.input = new Uint8Array(stepBytes.end - stepBytes.begin);
    this.output = new Uint8Array(resultBytes.end - resultBytes.begin);
    const ints = (bytes: Uint8Array, begin: number, { byteOffset, length }: Place) =>
      new Int32Array(bytes.buffer, byteOffset - begin, length);
    const floats = (place: Place) => new Float32Array(this.output.buffer, place.byteOffset - resultBytes.begin, place.length);
    const { step, result } = activations;
    this.#step = {
      counts: ints(this.input, stepBytes.begin, step.counts),
      tokenIds: ints(this.input, stepBytes.begin, step.tokenIds),
      positions: ints(this.input, stepBytes.begin, step.positions),
      seqStart: ints(this.input, stepBytes.begin, step.seqStart),
      seqSlot: ints(this.input, stepBytes.begin, step.seqSlot),
      logitRows: ints(this.input, stepBytes.begin, step.logitRows),
      logitSlot: ints(this.input, stepBytes.begin, step.logitSlot),
      logitPosition: ints(this.input, stepBytes.begin, step.logitPosition),
      targets: ints(this.input, stepBytes.begin, step.targets),
    };
    this.#tokens = ints(this.output, resultBytes.begin, result.tokens);
    this.#logprob = floats(result.logprob);
    this.#topIds = ints(this.output, resultBytes.begin, result.topIds);
    this.#topLogprobs = floats(result.topLogprobs);
    this.#ffnCount = ints(this.output, resultBytes.begin, result.ffnCount);
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

  /** Reads the output block for the sequences that `writeStep` was given. `alternatives(slot)`: how many each slot asked for. */
  readResults(sequences: readonly StepSequence[], alternatives: (slot: number) => number): StepResult[] {
    let row = 0;
    let logitRow = 0;
    return sequences.map((sequence) => {
      const length = sequence.tokens?.length ?? 1;
      const ffnExperts = Array.from({ length }, (_, i) => this.#experts(row + i));
      row += length;
      if (!sequence.sample) return { token: -1, logprob: 0, top: [], ffnExperts };
      const at = logitRow++;
      return {
        token: this.#tokens[at]!,
        logprob: this.#logprob[at]!,
        top: this.#alternatives(at, Math.max(alternatives(sequence.slot), 0)),
        ffnExperts,
      };
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
