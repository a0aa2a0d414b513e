/**
 * The block that the host writes before a step and those that it reads after one, as typed arrays over plain memory.
 * @module
 */

import { type Capacity, layoutActivations, type StepTensors } from "./activations.js";
import type { ModelConfig } from "./config.js";
import { StepCount } from "./program.js";
import { type DrawnToken, MAX_LOGPROBS, type StepResult, type StepSequence } from "./runner-types.js";

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

/** Rows of a sequence in a step. */
export function rowsOf({ tokens, drafts = 0 }: Pick<StepSequence, "tokens" | "drafts">): number {
  return tokens?.length ?? drafts + 1;
}

/**
 * Who draws when, by place in the step: in turn 0 everybody who samples, in turn j the decodes that have a j-th draft, each from its row
 * (ts/model/model.ts, sample).
 */
function turnsOf(sequences: readonly StepSequence[]): number[][] {
  const turns: number[][] = [];
  for (const [s, { tokens, drafts = 0, sample }] of sequences.entries()) {
    if (!sample) continue;
    for (let turn = 0; turn <= (tokens ? 0 : drafts); turn++) (turns[turn] ??= []).push(s);
  }
  return turns;
}

/** The step's tensors, as the host writes them. */
type StepArrays = StepTensors<Int32Array>;

/** Writes steps into one block, for programs of one capacity. Results are read into blocks of their own, used again and again. */
export class StepBlocks {
  readonly input: Uint8Array;
  readonly #config: ModelConfig;
  readonly #capacity: Capacity;
  /** Of each slot, the positions that its blocks hold: the runner's own. */
  readonly #limits: Int32Array;
  readonly #step: StepArrays;
  readonly #results: ResultBlock[] = [];

  constructor(config: ModelConfig, capacity: Capacity, limits: Int32Array) {
    const { activations, stepBytes } = places(config, capacity);
    this.#config = config;
    this.#capacity = capacity;
    this.#limits = limits;
    this.input = new Uint8Array(stepBytes.end - stepBytes.begin);
    const ints = ({ byteOffset, length }: Place) => new Int32Array(this.input.buffer, byteOffset - stepBytes.begin, length);
    this.#step = Object.fromEntries(
      Object.entries(activations.step).map(([name, place]) => [name, ints(place as Place)]),
    ) as unknown as StepArrays;
    this.#step.draftStart?.forEach((_, s, all) => {
      all[s] = s;
    });
  }

  /** A block for one step's results; `giveBack` it when they are read. */
  takeResult(): ResultBlock {
    return this.#results.pop() ?? new ResultBlock(this.#config, this.#capacity);
  }

  giveBack(result: ResultBlock): void {
    this.#results.push(result);
  }

  /** Fills the input block. Gives the number of turns in which the step draws. */
  writeStep(sequences: readonly StepSequence[]): number {
    const { counts, tokenIds, promptPositions, seqStart, seqSlot, seqLimit, seqNext, draftCounts, draftRange } = this.#step;
    let row = 0;
    let numPrefillRows = 0;
    let numPrefillSequences = 0;
    for (const [s, sequence] of sequences.entries()) {
      seqStart[s] = row;
      seqSlot[s] = sequence.slot;
      seqLimit[s] = this.#limits[sequence.slot]!;
      seqNext[s] = sequence.following ?? -1;
      sequence.tokens?.forEach((token, i) => {
        tokenIds[row + i] = token;
        promptPositions[row + i] = sequence.position + i;
      });
      row += rowsOf(sequence);
      if (sequence.tokens) {
        numPrefillRows = row;
        numPrefillSequences = s + 1;
      }
    }
    const { length } = sequences;
    seqStart[length] = row;
    const turns = turnsOf(sequences);
    const numLogitRows = this.#writeTurns(sequences, turns);
    // In the order of StepCount; the splits are counted on the device.
    counts.set([row, numPrefillRows, length, numPrefillSequences, numLogitRows, 0]);
    draftCounts?.set([length, 0, length, 0, length, 0]);
    draftRange?.set([0, length]);
    return turns.length;
  }

  /** Which rows have logits, in the order in which they are drawn from; gives how many. */
  #writeTurns(sequences: readonly StepSequence[], turns: readonly number[][]): number {
    const { seqStart, logitRows, logitSlot, turnStart } = this.#step;
    let at = 0;
    for (let turn = 0; turn + 1 < turnStart.length; turn++) {
      turnStart[turn] = at;
      for (const s of turns[turn] ?? []) {
        const { tokens, slot } = sequences[s]!;
        logitRows[at] = seqStart[s]! + (tokens ? tokens.length - 1 : turn);
        logitSlot[at] = slot;
        at++;
      }
    }
    turnStart[turnStart.length - 1] = at;
    return at;
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

/** What was drawn in one turn. */
interface Turn {
  tokens: Int32Array;
  logprob: Float32Array;
  topIds: Int32Array;
  topLogprobs: Float32Array;
}

/** Reads the results of one step. */
export class ResultBlock {
  readonly bytes: Uint8Array;
  readonly #capacity: Capacity;
  readonly #numLayers: number;
  readonly #turns: Turn[];
  readonly #ffnCount: Int32Array;

  constructor(config: ModelConfig, capacity: Capacity) {
    const { activations, resultBytes } = places(config, capacity);
    this.#capacity = capacity;
    this.#numLayers = config.numLayers;
    this.bytes = new Uint8Array(resultBytes.end - resultBytes.begin);
    const ints = ({ byteOffset, length }: Place) => new Int32Array(this.bytes.buffer, byteOffset - resultBytes.begin, length);
    const floats = ({ byteOffset, length }: Place) => new Float32Array(this.bytes.buffer, byteOffset - resultBytes.begin, length);
    const { result } = activations;
    this.#turns = result.turns.map(({ tokens, logprob, topIds, topLogprobs }) => ({
      ...{ tokens: ints(tokens), logprob: floats(logprob), topIds: ints(topIds), topLogprobs: floats(topLogprobs) },
    }));
    this.#ffnCount = ints(result.ffnCount);
  }

  /** What the block holds for the step's sequences. `alternatives`: how many each asked for. */
  read(sequences: readonly StepSequence[], alternatives: readonly number[]): StepResult[] {
    const drawn = this.#drawn(sequences, alternatives);
    let row = 0;
    return sequences.map((sequence, s) => {
      const first = row;
      row += rowsOf(sequence);
      const ran = sequence.tokens || !sequence.sample ? rowsOf(sequence) : drawn[s]!.length;
      return { drawn: drawn[s]!, ffnExperts: Array.from({ length: ran }, (_, i) => this.#experts(first + i)) };
    });
  }

  /** Of each sequence, its tokens of all turns. Where a row was void, so are those of the turns after it. */
  #drawn(sequences: readonly StepSequence[], alternatives: readonly number[]): DrawnToken[][] {
    const drawn: DrawnToken[][] = sequences.map(() => []);
    for (const [turn, who] of turnsOf(sequences).entries()) {
      const { tokens, logprob } = this.#turns[turn]!;
      for (const [i, s] of who.entries()) {
        if (tokens[i]! < 0) continue;
        drawn[s]!.push({ token: tokens[i]!, logprob: logprob[i]!, top: this.#alternatives(turn, i, Math.max(alternatives[s] ?? 0, 0)) });
      }
    }
    return drawn;
  }

  #experts(row: number): Uint8Array {
    const counts = new Uint8Array(this.#numLayers);
    for (let l = 0; l < this.#numLayers; l++) counts[l] = this.#ffnCount[l * this.#capacity.tokens + row]!;
    return counts;
  }

  #alternatives(turn: number, row: number, count: number): DrawnToken["top"] {
    const { topIds, topLogprobs } = this.#turns[turn]!;
    const top: DrawnToken["top"] = [];
    for (let i = 0; i < count; i++) {
      const token = topIds[row * MAX_LOGPROBS + i]!;
      if (token < 0) break;
      top.push({ token, logprob: topLogprobs[row * MAX_LOGPROBS + i]! });
    }
    return top;
  }
}
