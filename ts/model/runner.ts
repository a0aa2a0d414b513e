/**
 * Runs steps on a device: those with prompts eagerly, decode steps by replaying one recorded graph for each batch bucket.
 *
 * As one rank of several (ts/model/exchange.ts) it asks before each forward pass for its round, and runs its rows in the program that serves all ranks;
 * `join` runs those in which it has no rows.
 * @module
 */

import { LongcatError } from "../errors.js";
import { MAX_RECORDED_NCCL_RANKS } from "../runtime/communicator.js";
import type { Device, Graph, Queue, Tensor } from "../runtime/device.js";
import { ADJUSTMENT_WORDS, adjustmentsOf } from "./adjustments.js";
import { type ActivationDType, type Capacity, KEY_TILE } from "./activations.js";
import { type ModelConfig, ropeParameters } from "./config.js";
import { type Exchange, failureOf, giveUp, ONE_RANK } from "./exchange.js";
import { COMMANDS_PER_EXCHANGE, COMMANDS_PER_LAYER } from "./layer.js";
import type { Forward, Lockstep, Round } from "./lockstep.js";
import { forward, head, sample, score } from "./model.js";
import { makeDrafts } from "./mtp.js";
import { createProgram, type Program, type ProgramKind, type ProgramParts, SPLIT_KEYS } from "./program.js";
import { Rounds } from "./rounds.js";
import type { ModelRunner, RunnerLimits, SlotSampling, StepResult, StepSequence } from "./runner-types.js";
import { type ModelSizes, withDrafts } from "./sizing.js";
import {
  allocateState,
  blocksPerSequence,
  cacheBlocks,
  type CacheDType,
  type ModelState,
  NUM_SAMPLE_FIELDS,
  SampleField,
} from "./state.js";
import { SlotMasks } from "./slot-masks.js";
import { rowsOf, StepBlocks } from "./step-block.js";
import type { ModelWeights } from "./weights.js";

/** A program, its host blocks, and its graph once it has been recorded. */
interface Ready {
  program: Program;
  blocks: StepBlocks;
  graph?: Graph;
  /** It is being recorded: steps that come meanwhile run eagerly, with the same bits. */
  recording?: boolean;
}

/** A step, or what of it fits one program. */
interface Part {
  sequences: readonly StepSequence[];
  /** What it needs. Its drafts, which it makes for the next step, are as many as any sequence of the whole step asks for. */
  forward: Forward;
  /** Some of its sequences have scoreTargets. */
  scored: boolean;
}

/** What a rank of several has beside a model. */
export interface RunnerOfRank {
  exchange: Exchange;
  lockstep: Lockstep;
}

/** Commands of a step beside its layers': slots' parameters, step block, plan, embedding, last norm, head, sampling, and some to spare. */
const COMMANDS_PER_STEP = 32;
/**
 * Recorded graphs that are kept: those used last. There is one for each batch bucket and number of drafts, and a GPU's memory has room for
 * some beside all that is counted (ts/model/sizing.ts); one that comes back is recorded again.
 */
export const MOST_GRAPHS = 16;
/** Commands of each draft: plans, the draft head, its draw, and the turn in which the draft is verified. */
const COMMANDS_PER_DRAFT = 20;

/**
 * A step is enqueued at once, after there is room for it: what `room()` promises must hold it.
 *
 * @throws LongcatError CHECKPOINT_UNSUPPORTED for a model of too many layers.
 */
export function checkRing(
  device: Pick<Device, "roomCommands" | "kind">,
  { numLayers }: Pick<ModelConfig, "numLayers">,
  { maxDrafts, sharding = ONE_RANK }: Pick<ModelSizes, "maxDrafts"> & Partial<Pick<ModelSizes, "sharding">>,
): void {
  const beside = COMMANDS_PER_STEP + maxDrafts * COMMANDS_PER_DRAFT;
  const perLayer = COMMANDS_PER_LAYER[device.kind] + (sharding.ranks > 1 ? COMMANDS_PER_EXCHANGE : 0);
  const most = Math.floor((device.roomCommands - beside) / perLayer);
  if (numLayers > most) throw new LongcatError("CHECKPOINT_UNSUPPORTED", `num_layers is ${numLayers}: not supported; at most ${most} are`);
}

/** See ModelRunner. */
export class Runner implements ModelRunner {
  readonly limits: RunnerLimits;
  readonly device: Device;
  readonly config: ModelConfig;
  readonly weights: ModelWeights;
  readonly activationDType: ActivationDType;
  readonly cacheDType: CacheDType;
  /** What it has in common with other ranks; undefined: it has all experts. */
  readonly exchange: Exchange | undefined;
  readonly #sizes: ModelSizes;
  readonly #queue: Queue;
  readonly #state: ModelState;
  readonly #parts: ProgramParts;
  readonly #arena: Tensor;
  readonly #programs = new Map<string, Ready>();
  /** Those that are recorded, the one used last at the end. */
  #recorded: Ready[] = [];
  /** Host copies of the slots' parameters, [S, fields]. */
  readonly #sampleParams: Float64Array;
  /** Of each slot, the positions that its blocks hold. */
  readonly #limits: Int32Array;
  readonly #masks: SlotMasks;
  readonly #lockstep: Lockstep | undefined;
  readonly #rounds = new Rounds();
  /** Of a launch of which parts are still to be enqueued. */
  #entering: Promise<void> | undefined;
  /** Why this rank takes part in no more rounds. */
  #failure: LongcatError | undefined;

  constructor(device: Device, config: ModelConfig, weights: ModelWeights, sizes: ModelSizes, rank?: RunnerOfRank) {
    this.device = device;
    this.config = config;
    this.weights = weights;
    this.activationDType = sizes.activationDType;
    this.cacheDType = sizes.cacheDType;
    this.exchange = rank?.exchange;
    this.#lockstep = rank?.lockstep;
    this.#sizes = sizes;
    this.#queue = device.queue();
    this.#state = allocateState(device, config, sizes);
    this.#arena = device.tensor("uint8", [sizes.scratchBytes]);
    const rope = ropeParameters(config);
    const invFreq = device.tensor("float32", [rope.invFreq.length]);
    this.#queue.write(invFreq, rope.invFreq);
    const { activationDType } = sizes;
    this.#parts = { config, rope, invFreq, state: this.#state, branch: device.queue(), activationDType, exchange: this.exchange };
    this.#sampleParams = new Float64Array(sizes.maxSequences * NUM_SAMPLE_FIELDS);
    this.#limits = new Int32Array(sizes.maxSequences);
    this.#masks = new SlotMasks(sizes.maxSequences, config.vocabSize);
    const { maxSequences, maxBatchTokens, contextLength, blockSize, numBlocks, maxDrafts } = sizes;
    this.limits = {
      ...{ maxSequences, maxBatchTokens, contextLength, blockSize, numBlocks },
      ...{ vocabulary: config.vocabSize, numLayers: config.numLayers, topK: config.topK, maxDrafts },
    };
    this.setAllowed(Array.from({ length: config.vocabSize }, (_, id) => id));
    if (maxDrafts > 0) this.#writeBlocks(maxSequences, 0, [numBlocks]);
  }

  setAllowed(ids: Iterable<number>): void {
    const words = new Int32Array(Math.ceil(this.config.vocabSize / 32));
    for (const id of ids) if (id < this.config.vocabSize) words[id >> 5]! |= 1 << (id & 31);
    this.#queue.write(this.#state.allowed, words);
  }

  setSampling(slot: number, sampling: SlotSampling, generated: readonly number[] = []): void {
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

    const adjustments = adjustmentsOf(sampling, generated, this.config.vocabSize);
    if (!adjustments) return;
    const { adjustments: all, numAdjustments } = this.#state;
    if (adjustments.length > 0) this.#queue.write(all, adjustments, (slot * all.bytes) / this.#sizes.maxSequences);
    this.#queue.write(numAdjustments, Int32Array.of(adjustments.length / ADJUSTMENT_WORDS), slot * 4);
  }

  setBlocks(slot: number, first: number, blocks: readonly number[]): void {
    this.#writeBlocks(slot, first, blocks);
    this.#limits[slot] = Math.min((first + blocks.length) * this.#sizes.blockSize, this.#sizes.contextLength);
  }

  copyBlock(from: number, to: number): void {
    const bytes = this.#blockBytes();
    for (const cache of this.#state.caches) {
      this.#queue.copy(cache, from * bytes, cache, to * bytes, bytes);
    }
  }

  copyHistory(from: number, to: number, length: number): void {
    const row = this.#sizes.contextLength * 4;
    this.#queue.copy(this.#state.history, from * row, this.#state.history, to * row, length * 4);
  }

  setHistory(slot: number, tokens: readonly number[]): void {
    this.#queue.write(this.#state.history, Int32Array.from(tokens), slot * this.#sizes.contextLength * 4);
    this.rewind(slot, tokens.length - 1);
  }

  /** Goes on from a position whose token the slot's history has; for benches, which run the same steps again and again. */
  rewind(slot: number, position: number): void {
    this.#queue.write(this.#state.lengths, Int32Array.of(position), slot * 4);
  }

  async readBlock(block: number): Promise<Uint8Array> {
    const bytes = this.#blockBytes();
    const into = new Uint8Array(bytes * this.#state.caches.length);
    const parts = this.#state.caches.map((_, i) => into.subarray(i * bytes, (i + 1) * bytes));
    await this.#watched(Promise.all(this.#state.caches.map((cache, i) => this.#queue.read(cache, parts[i]!, block * bytes))));
    return into;
  }

  writeBlock(block: number, from: Uint8Array): void {
    const bytes = this.#blockBytes();
    for (const [i, cache] of this.#state.caches.entries())
      this.#queue.write(cache, from.subarray(i * bytes, (i + 1) * bytes), block * bytes);
  }

  async room(): Promise<void> {
    while (this.#entering) await this.#entering;
    await this.#queue.room();
  }

  async step(sequences: readonly StepSequence[]): Promise<StepResult[]> {
    await this.room();
    return this.launch(sequences);
  }

  async launch(sequences: readonly StepSequence[], onOver: (ms: number) => void = () => undefined): Promise<StepResult[]> {
    if (this.#entering) throw new LongcatError("INTERNAL", "a step was launched while another was not all enqueued: await room() before");
    const drafts = draftsOf(sequences);
    const parts = this.#cut(sequences, drafts).map((part) => this.#prepare(part, drafts));
    const [only, ...more] = parts;
    if (only && more.length === 0 && !only.scored && !this.#lockstep) return this.#enter(only, only.forward, onOver);
    const results: Promise<StepResult[]>[] = [];
    const entering = this.#enterByParts(parts, results, onOver);
    const over = () => {
      this.#entering = undefined;
    };
    this.#entering = entering.then(over, over);
    await entering;
    return (await Promise.all(results)).flat();
  }

  /**
   * Runs a round in which this rank has no rows, so that the others have its experts: enqueued in its turn, over when the promise resolves.
   *
   * @throws LongcatError COMM_ERROR where a rank is lost meanwhile
   */
  async join(round: Round): Promise<void> {
    const nothing: Part = { sequences: [], forward: round, scored: false };
    const { over } = await this.#inTurn(round, () => {
      const { recorded } = this.#run(nothing, round);
      return { over: this.#watched(Promise.all([this.#queue.done(), recorded])) };
    });
    await over;
  }

  /** The program for prompts, for those who want to look inside (ts/model/trace.ts). */
  promptProgram(): Ready {
    return this.#ready("prompt", this.#sizes.prompt, { prefill: true, decode: false, recorded: false });
  }

  /** The program that decodes `batch` sequences, each with so many drafts; public for those who measure it (ts/engine/bench-layer.ts). */
  decodeProgram(batch: number, drafts = 0): Ready {
    const capacity = this.#decodeCapacity(batch, drafts);
    const kind = { prefill: false, decode: true, recorded: canRecord(this.exchange) };
    return this.#ready(`decode ${capacity.sequences} × ${drafts + 1}`, capacity, kind);
  }

  /** For prompts and decodes in one step. */
  #mixedProgram(): Ready {
    return this.#ready("mixed", this.#sizes.mixed, { prefill: true, decode: true, recorded: false });
  }

  /** Fills all scratch with 0xFF bytes, so that anything read before it is written shows. */
  poisonScratch(): void {
    this.#queue.fill(this.#arena, 0xff);
  }

  /** The queue of its steps, for those who look at what they left. */
  get queue(): Queue {
    return this.#queue;
  }

  /** How many graphs there are. */
  get recordedGraphs(): number {
    return this.#recorded.length;
  }

  /**
   * Takes part in no more rounds and ends all waiting for other ranks: what is under way, and all that comes, fails with COMM_ERROR. The first reason counts.
   * Nothing happens to a model on one rank.
   */
  giveUp(why: LongcatError): void {
    if (!this.exchange || this.#failure) return;
    this.#failure = why;
    giveUp(this.exchange);
  }

  async close(): Promise<void> {
    // Whatever still waits for other ranks would do so for ever.
    this.giveUp(new LongcatError("DISPOSED", "the model was closed"));
    await this.device.close();
    await this.exchange?.nccl?.communicator.close();
  }

  /** Cuts a step where its decode splits would not fit the program's list: rare, many long rows over shared blocks. */
  #cut(sequences: readonly StepSequence[], drafts: number): StepSequence[][] {
    const parts: StepSequence[][] = [];
    let part: StepSequence[] = [];
    let splits = 0;
    for (const sequence of sequences) {
      const more = this.#mostSplits(sequence, drafts);
      if (part.length > 0 && splits + more > this.#splitsFor([...part, sequence], drafts)) {
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

  /** Decode splits that a sequence may take: of each of its rows; a prompt's drafts behind the first are made of one that decodes. */
  #mostSplits(sequence: StepSequence, drafts: number): number {
    const rows = sequence.tokens ? Number(sequence.sample && drafts > 1) : rowsOf(sequence);
    return rows * Math.ceil(this.#mostKeys(sequence) / SPLIT_KEYS);
  }

  /** Keys that a row may have. Where there are drafts, it may be further than is known, but not beyond its blocks. */
  #mostKeys({ slot, position, tokens }: StepSequence): number {
    return this.limits.maxDrafts > 0 ? this.#limits[slot]! : position + (tokens?.length ?? 1);
  }

  /** What the program of such a part has room for. */
  #splitsFor(part: readonly StepSequence[], drafts: number): number {
    return this.#capacity(forwardOf(part, drafts), part).splits;
  }

  /** Checks that a part fits its program, before anything is enqueued. */
  #prepare(sequences: readonly StepSequence[], drafts: number): Part {
    const forward = forwardOf(sequences, drafts);
    this.#check(sequences, drafts, this.#capacity(forward, sequences));
    return { sequences, forward, scored: sequences.some(({ scoreTargets }) => scoreTargets) };
  }

  /** What the program of a forward pass with these sequences has room for. */
  #capacity({ kind, sequences, drafts }: Forward, own: readonly StepSequence[]): Capacity {
    if (kind === "decode") return this.#decodeCapacity(sequences, drafts);
    return kindOf(own).decodes ? this.#sizes.mixed : this.#sizes.prompt;
  }

  /** The program of a forward pass with these sequences: where it serves other ranks too, the one that has the rows of a prompt step for a decode step, or for nothing. */
  #program({ kind, sequences, drafts }: Forward, own: readonly StepSequence[]): Ready {
    if (kind === "decode") return this.decodeProgram(sequences, drafts);
    const { isPrompt, decodes } = kindOf(own);
    if (!isPrompt)
      return this.#ready("decode beside others' prompts", this.#sizes.mixed, {
        ...{ prefill: false, decode: true, recorded: false },
      });
    return decodes ? this.#mixedProgram() : this.promptProgram();
  }

  /** Enqueues a part at once, in a forward pass that serves it; its results come later. There must be room. */
  #enter(part: Part, forward: Forward, onOver: (ms: number) => void): Promise<StepResult[]> {
    const { sequences } = part;
    const { ready, recorded } = this.#run(part, forward);
    const { program, blocks } = ready;
    const result = blocks.takeResult();
    const read = this.#queue.read(program.resultBlock, result.bytes);
    // A slot may belong to another sequence when the results are there.
    const alternatives = sequences.map(({ slot }) => this.#paramsOf(slot)[SampleField.numLogprobs]!);
    return this.#watched(Promise.all([read, recorded])).then(([ms]) => {
      onOver(ms);
      const results = result.read(sequences, alternatives);
      blocks.giveBack(result);
      return results;
    });
  }

  /** Enqueues a part's forward pass, with all that it draws: eagerly, or as the program's graph, which is recorded if there is none. */
  #run({ sequences, forward: { drafts } }: Part, forward: Forward): { ready: Ready; recorded: Promise<void> } {
    const ready = this.#program(forward, sequences);
    const { program, blocks } = ready;
    this.#setChoices(sequences);
    const draws = { turns: blocks.writeStep(sequences), drafts };
    this.#queue.write(program.stepBlock, blocks.input);
    if (!program.recorded) {
      program.promptKeys = sequences.reduce(
        (sum, { position, tokens }) => sum + (tokens ? roundUp(position + tokens.length, KEY_TILE) : 0),
        0,
      );
      this.#enqueue(program, draws);
    } else if (ready.graph) {
      this.#queue.replay(ready.graph);
      this.#keep(ready);
    } else if (ready.recording) this.#enqueue(program);
    else return { ready, recorded: this.#record(ready) };
    return { ready, recorded: Promise.resolve() };
  }

  /** Enqueues a step and keeps it as the program's graph. */
  async #record(ready: Ready): Promise<void> {
    ready.recording = true;
    try {
      ready.graph = await this.device.record(() => this.#enqueue(ready.program));
      this.#keep(ready);
    } finally {
      ready.recording = false;
    }
  }

  /** A graph was used: of too many, the one that was not for longest is forgotten. */
  #keep(ready: Ready): void {
    this.#recorded = [...this.#recorded.filter((other) => other !== ready), ready];
    if (this.#recorded.length <= MOST_GRAPHS) return;
    const oldest = this.#recorded.shift()!;
    oldest.graph?.release();
    delete oldest.graph;
  }

  /** Enqueues parts one after another, as there is room: the first at once, or as one rank of several each in its round. */
  async #enterByParts(parts: readonly Part[], results: Promise<StepResult[]>[], onOver: (ms: number) => void): Promise<void> {
    for (const [i, part] of parts.entries()) {
      if (this.#lockstep) {
        this.#throwIfFailed();
        const round = await this.#lockstep.agree(part.forward);
        await this.#inTurn(round, () => this.#enterScored(part, round, results, onOver));
      } else {
        if (i > 0) await this.#queue.room();
        await this.#enterScored(part, part.forward, results, onOver);
      }
    }
  }

  /** Enqueues what belongs to a round when all of those before it is, and there is room. */
  #inTurn<T>({ round }: Round, enter: () => T | Promise<T>): Promise<T> {
    return this.#rounds.enter(round, async () => {
      if (!this.#queue.hasRoom(this.device.roomCommands)) await this.#queue.room();
      this.#throwIfFailed();
      return enter();
    });
  }

  /**
   * What a forward pass resolves with, or a read of what it left. One that failed or was given up has left some exchanges out: another one's rows would be
   * taken for theirs, so there is none, and what other ranks wait for does not come.
   */
  #watched<T>(over: Promise<T>): Promise<T> {
    const { exchange } = this;
    if (!exchange) return over;
    const checked = over.then((value) => {
      this.#throwIfFailed(); // then the device may be closed, and is not looked at
      const failure = failureOf(exchange);
      if (failure) throw failure;
      return value;
    });
    checked.catch((error: LongcatError) => this.giveUp(error));
    return checked;
  }

  #throwIfFailed(): void {
    if (this.#failure)
      throw new LongcatError("COMM_ERROR", `this rank has lost step with the others: ${this.#failure.message}`, { cause: this.#failure });
  }

  /** Enqueues a part, then its scoring as there is room. */
  async #enterScored(part: Part, forward: Forward, results: Promise<StepResult[]>[], onOver: (ms: number) => void): Promise<void> {
    const scores = part.sequences.map(({ scoreTargets }) => scoreTargets && new Float32Array(scoreTargets.length));
    // Whatever fails early is told when all is awaited.
    const reads: [Promise<StepResult[]>, ...Promise<unknown>[]] = [quiet(this.#enter(part, forward, onOver))];
    if (part.scored)
      for await (const read of this.#score(part, this.#program(forward, part.sequences), scores))
        reads.push(quiet(this.#watched(read.done)));
    const all = Promise.all(reads).then(([rows]) => rows.map((row, s) => (scores[s] ? { ...row, scores: scores[s] } : row)));
    results.push(quiet(all));
  }

  /** A whole step, from tokens to tokens, and the drafts for the next one. A program that is recorded does as much as any of its steps asks for. */
  #enqueue(program: Program, { turns, drafts } = { turns: program.turns.length, drafts: program.capacity.drafts }): void {
    const { mtp } = this.weights;
    forward(this.#queue, program, this.weights);
    head(this.#queue, program, this.weights);
    sample(this.#queue, program, turns);
    if (mtp && program.capacity.drafts > 0) makeDrafts(this.#queue, program, { ...this.weights, mtp }, drafts);
  }

  /** Enqueues the log-probabilities of scoreTargets into `scores`, as many rows at a time as the head takes. Gives the reads. */
  async *#score(
    { sequences }: Part,
    { program, blocks }: Ready,
    scores: readonly (Float32Array | undefined)[],
  ): AsyncGenerator<{ done: Promise<unknown> }> {
    const most = program.capacity.logitRows;
    let row = 0;
    for (const [s, sequence] of sequences.entries()) {
      const { scoreTargets = [] } = sequence;
      for (let first = 0; first < scoreTargets.length; first += most) {
        if (!this.#queue.hasRoom(COMMANDS_PER_STEP)) await this.#queue.room();
        const piece = scoreTargets.slice(first, first + most);
        blocks.writeTargets(row + first, piece);
        this.#queue.write(program.stepBlock, blocks.input);
        head(this.#queue, program, this.weights);
        score(this.#queue, program);
        yield { done: this.#queue.read(program.activations.scores, scores[s]!.subarray(first, first + piece.length)) };
      }
      row += rowsOf(sequence);
    }
  }

  /** Writes `forceNext` and `mask` where they are given, and takes them back where they were before: two commands for all slots, if any. */
  #setChoices(sequences: readonly StepSequence[]): void {
    const rows = this.#masks.take(sequences);
    if (rows) this.#queue.write(this.#state.mask, rows.words, rows.first * Math.ceil(this.config.vocabSize / 32) * 4);
    let changed = false;
    for (const { slot, forceNext = -1, mask } of sequences) {
      const row = this.#paramsOf(slot);
      const useMask = mask ? 1 : 0;
      changed ||= row[SampleField.forced] !== forceNext || row[SampleField.useMask] !== useMask;
      row[SampleField.forced] = forceNext;
      row[SampleField.useMask] = useMask;
    }
    if (changed) this.#queue.write(this.#state.sampleParams, this.#sampleParams);
  }

  /** Bytes of a block in one of the caches, which are all alike. */
  #blockBytes(): number {
    return this.#state.caches[0]!.bytes / cacheBlocks(this.#sizes);
  }

  #writeBlocks(slot: number, first: number, blocks: readonly number[]): void {
    const offset = slot * blocksPerSequence(this.#sizes) + first;
    this.#queue.write(this.#state.blockTables, Int32Array.from(blocks), offset * 4);
  }

  #paramsOf(slot: number): Float64Array {
    return this.#sampleParams.subarray(slot * NUM_SAMPLE_FIELDS, (slot + 1) * NUM_SAMPLE_FIELDS);
  }

  #writeParams(slot: number): void {
    this.#queue.write(this.#state.sampleParams, this.#paramsOf(slot), slot * NUM_SAMPLE_FIELDS * 8);
  }

  #decodeCapacity(batch: number, drafts: number): Capacity {
    const { decode, maxBatchTokens } = this.#sizes;
    return withDrafts(decode.find((capacity) => capacity.sequences >= batch) ?? decode[decode.length - 1]!, drafts, maxBatchTokens);
  }

  #ready(name: string, capacity: Capacity, kind: ProgramKind): Ready {
    let ready = this.#programs.get(name);
    if (!ready) {
      const program = createProgram(this.device, this.#arena, this.#parts, capacity, kind);
      ready = { program, blocks: new StepBlocks(this.config, capacity, this.#limits) };
      this.#programs.set(name, ready);
    }
    return ready;
  }

  #check(sequences: readonly StepSequence[], drafts: number, capacity: Capacity): void {
    const firstDecode = sequences.findIndex(({ tokens }) => tokens === null);
    if (firstDecode >= 0 && sequences.slice(firstDecode).some(({ tokens }) => tokens !== null))
      throw new LongcatError("INTERNAL", "a prompt behind a decode in a step: prompts come first");
    const tokens = sequences.reduce((sum, sequence) => sum + rowsOf(sequence), 0);
    const splits = sequences.reduce((sum, sequence) => sum + this.#mostSplits(sequence, drafts), 0);
    const fits =
      sequences.length <= capacity.sequences &&
      tokens <= capacity.tokens &&
      splits <= capacity.splits &&
      drafts <= this.limits.maxDrafts &&
      sequences.every(({ position, tokens }) => position + (tokens?.length ?? 1) <= this.limits.contextLength);
    if (fits) return;
    const what = `${sequences.length} sequences, ${tokens} tokens and ${splits} decode splits`;
    throw new LongcatError("INTERNAL", `a step of ${what} does not fit its program`);
  }
}

/** Which kinds of row a part has: prompts come first. None has neither. */
function kindOf(sequences: readonly StepSequence[]): { isPrompt: boolean; decodes: boolean } {
  const [first, last] = [sequences[0], sequences.at(-1)];
  return { isPrompt: first !== undefined && first.tokens !== null, decodes: last?.tokens === null };
}

/** The forward pass that a part needs. */
function forwardOf(sequences: readonly StepSequence[], drafts: number): Forward {
  return { kind: kindOf(sequences).isPrompt ? "prompt" : "decode", sequences: sequences.length, drafts };
}

/** Whether steps that only decode can be recorded: an exchange of many ranks through NCCL cannot. */
function canRecord(exchange: Exchange | undefined): boolean {
  return !exchange?.nccl || exchange.ranks <= MAX_RECORDED_NCCL_RANKS;
}

/** Drafts that a step makes: as many as any of its sequences asks for. */
function draftsOf(sequences: readonly StepSequence[]): number {
  return sequences.reduce((most, { drafts = 0 }) => Math.max(most, drafts), 0);
}

/** The same promise, whose failure is somebody else's to handle as well. */
function quiet<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => undefined);
  return promise;
}

function roundUp(count: number, multiple: number): number {
  return Math.ceil(count / multiple) * multiple;
}
