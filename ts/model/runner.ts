/**
 * Runs steps on a device: prompts eagerly, decode steps by replaying one recorded graph for each batch bucket.
 * @module
 */

import { LongcatError } from "../errors.js";
import type { Device, Graph, Queue, Tensor } from "../runtime/device.js";
import type { Capacity } from "./activations.js";
import { type ModelConfig, ropeParameters } from "./config.js";
import { COMMANDS_PER_LAYER } from "./layer.js";
import { forward, head, sample, score } from "./model.js";
import { createProgram, type Program, type ProgramParts, SPLIT_KEYS } from "./program.js";
import type { ModelRunner, RunnerLimits, SlotSampling, StepResult, StepSequence } from "./runner-types.js";
import type { ModelSizes } from "./sizing.js";
import { allocateState, blocksPerSequence, IN_PROMPT, type ModelState, NUM_SAMPLE_FIELDS, SampleField } from "./state.js";
import { StepBlocks } from "./step-block.js";
import type { ModelWeights } from "./weights.js";

/** A program, its host blocks, and its graph once it has been recorded. */
interface Ready {
  program: Program;
  blocks: StepBlocks;
  graph?: Graph;
}

/** Commands of a step beside its layers': slots' parameters, step block, plan, embedding, last norm, head, sampling, and some to spare. */
const COMMANDS_PER_STEP = 32;

/**
 * A step is enqueued at once, after there is room for it: what `room()` promises must hold it.
 *
 * @throws LongcatError CHECKPOINT_UNSUPPORTED for a model of too many layers.
 */
export function checkRing(device: Pick<Device, "roomCommands">, { numLayers }: Pick<ModelConfig, "numLayers">): void {
  const most = Math.floor((device.roomCommands - COMMANDS_PER_STEP) / COMMANDS_PER_LAYER);
  if (numLayers > most) throw new LongcatError("CHECKPOINT_UNSUPPORTED", `num_layers is ${numLayers}: not supported; at most ${most} are`);
}

/** See ModelRunner. One step runs at a time; the engine awaits each. */
export class Runner implements ModelRunner {
  readonly limits: RunnerLimits;
  readonly device: Device;
  readonly config: ModelConfig;
  readonly weights: ModelWeights;
  readonly #sizes: ModelSizes;
  readonly #queue: Queue;
  readonly #state: ModelState;
  readonly #parts: ProgramParts;
  readonly #arena: Tensor;
  readonly #programs = new Map<string, Ready>();
  /** Host copies of the slots' parameters, [S, fields]. */
  readonly #sampleParams: Float64Array;

  constructor(device: Device, config: ModelConfig, weights: ModelWeights, sizes: ModelSizes) {
    this.device = device;
    this.config = config;
    this.weights = weights;
    this.#sizes = sizes;
    this.#queue = device.queue();
    this.#state = allocateState(device, config, sizes);
    this.#arena = device.tensor("uint8", [sizes.scratchBytes]);
    const rope = ropeParameters(config);
    const invFreq = device.tensor("float32", [rope.invFreq.length]);
    this.#queue.write(invFreq, rope.invFreq);
    this.#parts = { config, rope, invFreq, state: this.#state, branch: device.queue() };
    this.#sampleParams = new Float64Array(sizes.maxSequences * NUM_SAMPLE_FIELDS);
    const { maxSequences, maxBatchTokens, contextLength, blockSize, numBlocks } = sizes;
    this.limits = {
      ...{ maxSequences, maxBatchTokens, contextLength, blockSize, numBlocks },
      ...{ vocabulary: config.vocabSize, numLayers: config.numLayers, topK: config.topK },
    };
    this.setAllowed(Array.from({ length: config.vocabSize }, (_, id) => id));
  }

  setAllowed(ids: Iterable<number>): void {
    const words = new Int32Array(Math.ceil(this.config.vocabSize / 32));
    for (const id of ids) if (id < this.config.vocabSize) words[id >> 5]! |= 1 << (id & 31);
    this.#queue.write(this.#state.allowed, words);
  }

  setSampling(slot: number, sampling: SlotSampling): void {
    const row = this.#paramsOf(slot);
    row[SampleField.temperature] = sampling.temperature;
    row[SampleField.topP] = sampling.topP;
    row[SampleField.topK] = sampling.topK;
    row[SampleField.minP] = sampling.minP;
    row[SampleField.repetition] = sampling.repetitionPenalty;
    row[SampleField.presence] = sampling.presencePenalty;
    row[SampleField.frequency] = sampling.frequencyPenalty;
    row[SampleField.seed] = sampling.seed;
    row[SampleField.forced] = -1;
    row[SampleField.useBias] = sampling.logitBias.size > 0 ? 1 : 0;
    row[SampleField.useMask] = 0;
    row[SampleField.numLogprobs] = sampling.logprobs;
    row[SampleField.hostDraw] = 0;
    this.#writeParams(slot);

    const V = this.config.vocabSize;
    const counts = new Int32Array(V);
    if (sampling.repetitionPenalty !== 1) for (const id of sampling.promptTokens) counts[id] = IN_PROMPT;
    this.#queue.write(this.#state.tokenCounts, counts, slot * V * 4);
    if (sampling.logitBias.size > 0) {
      const bias = new Float32Array(V);
      for (const [id, value] of sampling.logitBias) bias[id] = value;
      this.#queue.write(this.#state.bias, bias, slot * V * 4);
    }
  }

  setBlocks(slot: number, first: number, blocks: readonly number[]): void {
    const offset = slot * blocksPerSequence(this.#sizes) + first;
    this.#queue.write(this.#state.blockTables, Int32Array.from(blocks), offset * 4);
  }

  copyBlock(from: number, to: number): void {
    for (const cache of this.#state.caches) {
      const bytes = cache.bytes / this.#sizes.numBlocks;
      this.#queue.copy(cache, from * bytes, cache, to * bytes, bytes);
    }
  }

  copyHistory(from: number, to: number, length: number): void {
    const row = this.#sizes.contextLength * 4;
    this.#queue.copy(this.#state.history, from * row, this.#state.history, to * row, length * 4);
  }

  room(): Promise<void> {
    return this.#queue.room();
  }

  async step(sequences: readonly StepSequence[]): Promise<StepResult[]> {
    const results: StepResult[] = [];
    for (const part of this.#cut(sequences)) results.push(...(await this.#run(part)));
    return results;
  }

  /** The program for prompts, for those who want to look inside (ts/model/trace.ts). */
  promptProgram(): Ready {
    return this.#ready("prompt", this.#sizes.prompt, { prefill: true, decode: false });
  }

  /** Fills all scratch with 0xFF bytes, so that anything read before it is written shows. */
  poisonScratch(): void {
    this.#queue.fill(this.#arena, 0xff);
  }

  /** How many decode buckets have been recorded. */
  get recordedGraphs(): number {
    return [...this.#programs.values()].filter(({ graph }) => graph).length;
  }

  async close(): Promise<void> {
    await this.device.close();
  }

  /** Cuts a step where its decode splits would not fit the program's list: rare, many long rows over shared blocks. */
  #cut(sequences: readonly StepSequence[]): StepSequence[][] {
    const parts: StepSequence[][] = [];
    let part: StepSequence[] = [];
    let splits = 0;
    for (const sequence of sequences) {
      const more = sequence.tokens ? 0 : Math.ceil((sequence.position + 1) / SPLIT_KEYS);
      if (part.length > 0 && splits + more > this.#decodeCapacity(part.length + 1).splits) {
        parts.push(part);
        part = [];
        splits = 0;
      }
      part.push(sequence);
      splits += more;
    }
    if (part.length > 0) parts.push(part);
    return parts;
  }

  async #run(sequences: readonly StepSequence[]): Promise<StepResult[]> {
    const isPrompt = sequences.some((sequence) => sequence.tokens !== null);
    const ready = isPrompt ? this.promptProgram() : this.#decodeProgram(sequences.length);
    const { program, blocks } = ready;
    this.#check(sequences, program.capacity);
    blocks.writeStep(sequences);
    await this.#queue.room();
    this.#setForced(sequences);
    this.#queue.write(program.stepBlock, blocks.input);
    if (isPrompt) this.#enqueue(program);
    else if (ready.graph) this.#queue.replay(ready.graph);
    else ready.graph = await this.device.record(() => this.#enqueue(program));
    await this.#queue.read(program.resultBlock, blocks.output);
    const results = blocks.readResults(sequences, (slot) => this.#paramsOf(slot)[SampleField.numLogprobs]!);
    await this.#scoreRows(ready, sequences, results);
    return results;
  }

  /** A whole step, from tokens to tokens. */
  #enqueue(program: Program): void {
    forward(this.#queue, program, this.weights);
    head(this.#queue, program, this.weights);
    sample(this.#queue, program);
  }

  /** Log-probabilities of scoreTargets, as many rows at a time as the head takes. */
  async #scoreRows({ program, blocks }: Ready, sequences: readonly StepSequence[], results: StepResult[]): Promise<void> {
    let row = 0;
    for (const [s, sequence] of sequences.entries()) {
      const targets = sequence.scoreTargets;
      if (targets) {
        const scores = new Float32Array(targets.length);
        for (let first = 0; first < targets.length; first += program.capacity.logitRows) {
          const piece = targets.slice(first, first + program.capacity.logitRows);
          blocks.writeTargets(row + first, piece);
          this.#queue.write(program.stepBlock, blocks.input);
          head(this.#queue, program, this.weights);
          score(this.#queue, program);
          await this.#queue.read(program.activations.scores, scores.subarray(first, first + piece.length));
        }
        results[s]!.scores = scores;
      }
      row += sequence.tokens?.length ?? 1;
    }
  }

  /** Writes `forceNext` where it is given, and takes it back where it was before: one command for all slots, if any. */
  #setForced(sequences: readonly StepSequence[]): void {
    let changed = false;
    for (const { slot, forceNext = -1 } of sequences) {
      const row = this.#paramsOf(slot);
      changed ||= row[SampleField.forced] !== forceNext;
      row[SampleField.forced] = forceNext;
    }
    if (changed) this.#queue.write(this.#state.sampleParams, this.#sampleParams);
  }

  #paramsOf(slot: number): Float64Array {
    return this.#sampleParams.subarray(slot * NUM_SAMPLE_FIELDS, (slot + 1) * NUM_SAMPLE_FIELDS);
  }

  #writeParams(slot: number): void {
    this.#queue.write(this.#state.sampleParams, this.#paramsOf(slot), slot * NUM_SAMPLE_FIELDS * 8);
  }

  #decodeCapacity(batch: number): Capacity {
    const { decode } = this.#sizes;
    return decode.find((capacity) => capacity.sequences >= batch) ?? decode[decode.length - 1]!;
  }

  #decodeProgram(batch: number): Ready {
    const capacity = this.#decodeCapacity(batch);
    return this.#ready(`decode ${capacity.sequences}`, capacity, { prefill: false, decode: true });
  }

  #ready(name: string, capacity: Capacity, kind: { prefill: boolean; decode: boolean }): Ready {
    let ready = this.#programs.get(name);
    if (!ready) {
      const program = createProgram(this.device, this.#arena, this.#parts, capacity, kind);
      ready = { program, blocks: new StepBlocks(this.config, capacity) };
      this.#programs.set(name, ready);
    }
    return ready;
  }

  #check(sequences: readonly StepSequence[], capacity: Capacity): void {
    const prompts = sequences.filter(({ tokens }) => tokens !== null).length;
    if (prompts > 0 && prompts < sequences.length)
      throw new LongcatError("INTERNAL", `a step of ${prompts} prompts and ${sequences.length - prompts} decodes: it may have one kind`);
    const tokens = sequences.reduce((sum, { tokens }) => sum + (tokens?.length ?? 1), 0);
    const fits =
      sequences.length <= capacity.sequences &&
      tokens <= capacity.tokens &&
      sequences.every(({ position, tokens }) => position + (tokens?.length ?? 1) <= this.limits.contextLength);
    if (!fits) throw new LongcatError("INTERNAL", `a step of ${sequences.length} sequences and ${tokens} tokens does not fit its program`);
  }
}
