/**
 * One layer with random weights, measured: each of its operations alone, then the whole, its two branches at once or one after the
 * other. What `longcat bench layer` prints; bench/README.md says how.
 *
 * On several ranks each runs this in a process of its own (bench-ranks.ts), and all do the same at the same time. The exchange is then measured by
 * itself, and the whole once more without it: the experts work on the rows that came last.
 *
 * The model has several layers of weights with one set of experts between them; an operation timed alone goes through them in turn, so
 * that its weights come from memory where all together are larger than the device's cache.
 * @module
 */

import { LongcatError } from "../errors.js";
import { KEY_TILE } from "../model/activations.js";
import type { ModelConfig } from "../model/config.js";
import { expertRange, expertsOfRank } from "../model/exchange.js";
import { layer } from "../model/layer.js";
import { EXCHANGE_OPERATIONS, LAYER_OPERATIONS, layerCommands, layerCosts } from "../model/layer-cost.js";
import { forward } from "../model/model.js";
import { checkWay } from "../model/open-exchange.js";
import type { DeviceKind } from "../model/placement.js";
import type { Program } from "../model/program.js";
import { openRandomModel, type RandomDType, type RandomModel } from "../model/random-weights.js";
import { type Shape, shapeConfig } from "../model/shapes.js";
import { loadAddon } from "../runtime/addon.js";
import { type Device, Event, type Graph, Queue } from "../runtime/device.js";
import { ops } from "../runtime/ops.js";
import { abortIfAsked, type AgreeOnReplays, CeilingMeter, floorSeconds, median, timeReplays, TokenSource } from "./bench-device.js";
import { type BenchRank, benchParallel, wayOf } from "./bench-ranks.js";
import { checkShare, leastRows, placeShare, type RankShare } from "./rank-plan.js";

/** What to measure. */
export interface LayerPlan {
  shape: Shape;
  dtype: RandomDType;
  /** Default: all. */
  expertsHeld?: number | undefined;
  /** Rows of each held expert, whatever the router chooses: a layer as one rank of many. */
  expertRows?: number | undefined;
  /** Layers of weights to go through in turn. */
  layers: number;
  /** Decode steps of so many sequences, each with `context` tokens cached and `queries` rows: its newest token and drafts. */
  batches: readonly number[];
  context: number;
  queries: number;
  /** Prompts of so many tokens. */
  prompts: readonly number[];
  /** Measurements, of which the median counts. */
  samples: number;
  device: string;
  threads: number | "auto";
  fp8Activations?: boolean | undefined;
  /** GPU: whether a row's bits may not depend on the batch. Default true. */
  batchInvariant?: boolean | undefined;
  /** What the latent caches hold. Default "auto": what activations are. */
  cacheDType?: "auto" | "fp8" | undefined;
  /**
   * Several ranks of this host, each with `expertsHeld` experts, or its share of the model's. Held ones are all that there are: the router chooses among
   * `ranks` times as many, and zero experts in the model's proportion, so that an expert has as many rows as with all ranks that it stands for.
   */
  ranks?: number | undefined;
  /** Several ranks: how rows travel, as `parallel.exchange` of an engine; whether they are dispatched as FP8. */
  exchange?: "auto" | "peer" | "nccl" | undefined;
  fp8Dispatch?: boolean | undefined;
  signal?: AbortSignal | undefined;
}

/** One operation. */
export interface OperationResult {
  op: string;
  /** Which of the layer's it is. */
  part: string;
  us: number;
  bytes: number;
  flops: number;
  gigabytesPerSecond: number;
  teraflops: number;
  /** The least time, by bytes and (CPU) flops. */
  floorUs: number;
  /** floorUs ÷ us. */
  shareOfFloor: number;
}

/** One step. */
export interface LayerResult {
  kind: "decode" | "prompt";
  /** Decode: sequences; prompt: 1. */
  batch: number;
  /** Decode: rows of each; prompt: 0. */
  queries: number;
  /** Rows that go through the layer. */
  rows: number;
  context: number;
  operations: OperationResult[];
  /** All operations' times together. */
  sumUs: number;
  /** The whole layer: both branches on one queue, and on two. The same on the CPU, whose queues are one. */
  serialUs: number;
  overlapUs: number;
  /** All operations' bytes and flops. */
  bytes: number;
  flops: number;
  floorUs: number;
  /** Of the faster of the two. */
  shareOfFloor: number;
  ffnExpertsPerToken: number;
  distinctExperts: number;
  bytesPerSecondCeiling: number;
  /** Several ranks; else null. */
  exchange: ExchangeShare | null;
}

/** What the exchange adds to a layer. */
export interface ExchangeShare {
  /** ep_dispatch and ep_combine in turn, nothing beside them. */
  us: number;
  /** The whole layer without both, on one queue and on two: the experts on the rows that came last, their sums left out. */
  serialWithoutUs: number;
  overlapWithoutUs: number;
  /** What the layer, both branches at once, takes longer with the exchange than without: the median of samples taken one behind the other. */
  exposedUs: number;
  /** exposedUs ÷ us, and ÷ the layer's overlapUs. */
  shareOfExchange: number;
  shareOfLayer: number;
}

/** What was measured on. */
export interface LayerFacts {
  shape: Shape;
  dtype: RandomDType;
  expertsHeld: number;
  experts: number;
  /** Null: the router's. */
  expertRows: number | null;
  layers: number;
  ranks: number;
  /** How rows travelled between ranks; null: there is one. */
  exchange: "peer" | "nccl" | null;
  device: string;
  /** The GPU's name; null on the CPU. */
  gpu: string | null;
  threads: number;
  isa: string;
  activations: string;
  cacheDType: string;
  weightBytes: number;
  memoryBytes: number;
  notes: string[];
}

export interface LayerReport {
  loaded(facts: LayerFacts): void;
  measured(result: LayerResult): Promise<void>;
}

/** The same as it travels from a rank. */
export type LayerReported = { loaded: LayerFacts } | { measured: LayerResult };

/**
 * Measures.
 *
 * @param rank this rank of `plan.ranks`, if there are several
 * @throws LongcatError as `openRandomModel` does; OPTION_INVALID for more rows of experts than a step has; ABORTED; COMM_ERROR
 */
export async function benchLayer(plan: LayerPlan, report: LayerReport, rank?: BenchRank): Promise<void> {
  const { dtype, device, threads, cacheDType, fp8Activations, batchInvariant, signal, queries } = plan;
  const config = configOf(plan);
  const share = shareOf(plan, config.numExperts);
  if (share) for (const rows of [...plan.batches.map((batch) => batch * queries), ...plan.prompts]) checkShare(share, rows, config.topK);
  const meter = await CeilingMeter.of(device);
  const longest = Math.max(plan.batches.length > 0 ? plan.context + queries : 0, ...plan.prompts, 1);
  const largest = Math.max(1, ...plan.batches);
  const expertsHeld = rank ? undefined : plan.expertsHeld;
  const model = await openRandomModel(
    { config, dtype, expertsHeld, expertLayers: 1, oneRank: share !== undefined, draftHead: queries > 1 },
    {
      ...{ device, threads, cacheDType, fp8Activations, batchInvariant, signal, contextLength: longest, maxDrafts: queries - 1 },
      ...{
        maxSequences: largest,
        maxBatchTokens: Math.max(largest * queries, ...plan.prompts),
        parallel: rank && benchParallel(rank, plan),
      },
    },
  );
  try {
    report.loaded(factsOf(plan, model));
    const steps = [
      ...plan.batches.map((batch) => ({ kind: "decode" as const, batch, queries, rows: batch * queries })),
      ...plan.prompts.map((rows) => ({ kind: "prompt" as const, batch: 1, queries: 0, rows })),
    ];
    for (const step of steps) {
      abortIfAsked(signal);
      await report.measured(await new LayerBench(model, plan, step, meter, rank).measure());
    }
  } finally {
    await model.close();
  }
}

/**
 * Refuses, before ranks are started, what none of them can measure on such devices.
 *
 * @throws LongcatError OPTION_INVALID
 */
export function checkLayerRanks(plan: LayerPlan, ranks: number, kind: DeviceKind): void {
  expertRange(configOf(plan), { rank: 0, ranks });
  checkWay(kind, { exchange: plan.exchange, ranks });
}

/** The layer's sizes; on several ranks with as many experts as they hold together. */
function configOf({ shape, layers, ranks = 1, expertsHeld }: LayerPlan): ModelConfig {
  const config = shapeConfig(shape, layers);
  if (ranks === 1 || expertsHeld === undefined) return config;
  const numExperts = ranks * expertsHeld;
  const numZeroExperts = Math.round((config.numZeroExperts * numExperts) / config.numExperts);
  const choices = numExperts + numZeroExperts;
  if (choices < config.topK)
    throw new LongcatError(
      "OPTION_INVALID",
      `expertsHeld: ${expertsHeld} on each of ${ranks} ranks make ${choices} choices, zero experts included, of which a token takes ${config.topK}`,
    );
  return { ...config, numExperts, numZeroExperts };
}

/** Of some batches those whose steps have rows enough for `expertRows`; where none has, the least that would do. */
export function batchesFor(
  plan: Pick<LayerPlan, "shape" | "expertsHeld" | "expertRows" | "queries">,
  batches: readonly number[],
): number[] {
  const { numExperts, topK } = shapeConfig(plan.shape, 1);
  const share = shareOf(plan, numExperts);
  const least = share ? Math.ceil(leastRows(share, topK) / plan.queries) : 1;
  const enough = batches.filter((batch) => batch >= least);
  return enough.length > 0 ? enough : [least];
}

/** What of the experts' work is this rank's, where it is one of many. */
function shareOf({ expertRows, expertsHeld }: Pick<LayerPlan, "expertRows" | "expertsHeld">, numExperts: number): RankShare | undefined {
  return expertRows === undefined ? undefined : { experts: expertsHeld ?? numExperts, rowsEach: expertRows };
}

/** Less than a GPU's cache, or than a server processor's. */
const CACHE_BYTES = 32 * 1024 * 1024;

function factsOf(plan: LayerPlan, { runner, config, weightBytes, notes }: RandomModel): LayerFacts {
  const { device } = runner;
  const cached = `all weights together take ${(weightBytes / 1024 ** 2).toFixed(1)} MiB: operations may find them in the device's cache`;
  return {
    ...{ shape: plan.shape, dtype: plan.dtype, layers: plan.layers, ranks: plan.ranks ?? 1, exchange: wayOf(runner.exchange) },
    ...{
      expertsHeld: plan.expertsHeld ?? expertsOfRank(config, plan.ranks ?? 1),
      experts: config.numExperts,
      expertRows: plan.expertRows ?? null,
    },
    ...{
      device: device.kind,
      gpu: device.gpu?.name ?? null,
      threads: device.threads,
      isa: device.isa,
      activations: runner.activationDType,
      cacheDType: runner.cacheDType,
    },
    ...{ weightBytes, memoryBytes: device.allocatedBytes },
    notes: weightBytes < CACHE_BYTES ? [...notes, cached] : notes,
  };
}

/** An operation with its arguments, as it would be enqueued. */
interface Captured {
  op: number;
  tensors: Int32Array;
  scalars: Float64Array;
}

/** Keeps what is enqueued instead of running it. */
class CapturingQueue extends Queue {
  readonly commands: Captured[] = [];

  constructor(device: Device) {
    super(device, 0);
  }

  override enqueue(op: number, tensors: Int32Array, scalars: Float64Array): void {
    this.commands.push({ op, tensors: tensors.slice(), scalars: scalars.slice() });
  }

  override signal(): Event {
    return new Event(this, 0);
  }

  override wait(): void {}
}

/** Leaves out the exchange between ranks. */
class QueueWithoutExchange extends Queue {
  readonly #left = new Set(
    EXCHANGE_OPERATIONS.map((name) =>
      loadAddon()
        .ops()
        .findIndex((op) => op.name === name),
    ),
  );

  override enqueue(op: number, tensors: Int32Array, scalars: Float64Array): void {
    if (!this.#left.has(op)) super.enqueue(op, tensors, scalars);
  }
}

/** Where a layer's two branches are enqueued. */
interface Branches {
  queue: Queue;
  branch: Queue;
}

function withoutExchange({ queue, branch }: Branches): Branches {
  const of = ({ device, number }: Queue) => new QueueWithoutExchange(device, number);
  return { queue: of(queue), branch: of(branch) };
}

/** Times that an operation is repeated in a recording, at least: a replay's own cost is shared by them. */
const GPU_REPEATS = 24;

/** Seeds of the caches' numbers; weights have those from 0 on. */
const FIRST_CACHE_SEED = 2 ** 40;

/** A step to be measured. */
type LayerStep = Pick<LayerResult, "kind" | "batch" | "queries" | "rows">;

class LayerBench {
  readonly #model: RandomModel;
  readonly #plan: LayerPlan;
  readonly #step: LayerStep;
  readonly #meter: CeilingMeter;
  readonly #rank: BenchRank | undefined;
  /** The names of a layer's commands. */
  readonly #order: readonly string[];
  readonly #ready: ReturnType<RandomModel["runner"]["promptProgram"]>;
  readonly #program: Program;
  readonly #queue: Queue;

  constructor(model: RandomModel, plan: LayerPlan, step: LayerStep, meter: CeilingMeter, rank?: BenchRank) {
    this.#model = model;
    this.#rank = rank;
    this.#order = layerCommands(rank?.ranks ?? 1);
    this.#plan = plan;
    this.#step = step;
    this.#meter = meter;
    this.#ready = step.kind === "decode" ? model.runner.decodeProgram(step.batch, step.queries - 1) : model.runner.promptProgram();
    const { program } = this.#ready;
    const share = shareOf(plan, model.config.numExperts);
    this.#queue = model.runner.queue;
    this.#program = share ? { ...program, expertPlan: placeShare(this.#queue, program, share, step.rows) } : program;
  }

  async measure(): Promise<LayerResult> {
    await this.#prepare();
    const { config, runner } = this.#model;
    const { kind, batch, queries, rows } = this.#step;
    const use = await this.#routing();
    const context = kind === "decode" ? this.#plan.context + 1 : 0;
    const { activationDType, cacheDType } = runner;
    const costs = layerCosts(config, runner.weights.layers[0]!, { rows, queries, context, ...use, activationDType, cacheDType });
    const bytes = costs.reduce((sum, cost) => sum + cost.bytes, 0);
    const flops = costs.reduce((sum, cost) => sum + cost.flops, 0);
    const ceilings = this.#meter.ceilings(runner.device.threads, bytes);
    const seconds = await this.#operations();
    const operations = costs.map((cost, i): OperationResult => {
      const [op, part] = LAYER_OPERATIONS[i]!;
      const floor = floorSeconds(cost, ceilings);
      const time = seconds[i]!;
      return {
        ...{ op: op === "mla_decode" && kind === "prompt" ? "mla_prefill" : op, part, us: 1e6 * time },
        ...{ bytes: Math.round(cost.bytes), flops: Math.round(cost.flops) },
        ...{ gigabytesPerSecond: cost.bytes / time / 1e9, teraflops: cost.flops / time / 1e12 },
        ...{ floorUs: 1e6 * floor, shareOfFloor: floor / time },
      };
    });
    const { branch } = this.#program;
    const [serial, overlap] = [
      { queue: this.#queue, branch: this.#queue },
      { queue: this.#queue, branch },
    ];
    const times = await this.#wholes(this.#rank ? [serial, overlap, withoutExchange(serial), withoutExchange(overlap)] : [serial, overlap]);
    const [serialUs, overlapUs] = times.map((samples) => median(samples)) as [number, number];
    const exchange = this.#rank ? await this.#exchange(times) : null;
    const floorUs = 1e6 * floorSeconds({ bytes, flops }, ceilings);
    return {
      ...{ kind, batch, queries, rows, context, operations, sumUs: operations.reduce((sum, { us }) => sum + us, 0), serialUs, overlapUs },
      ...{ bytes: Math.round(bytes), flops: Math.round(flops), floorUs, shareOfFloor: floorUs / Math.min(serialUs, overlapUs), ...use },
      ...{ bytesPerSecondCeiling: ceilings.bytesPerSecond, exchange },
    };
  }

  /** The exchange alone, beside a layer's times with and without it. */
  async #exchange([, overlap, serialWithout, overlapWithout]: readonly (readonly number[])[]): Promise<ExchangeShare> {
    const [dispatch, combine] = EXCHANGE_OPERATIONS.map((op) => this.#order.indexOf(op));
    await this.#runUpTo(dispatch!);
    const commands = this.#commands(0, false);
    const repeats = this.#model.runner.device.kind === "cuda" ? GPU_REPEATS : 1;
    const both = await this.#record(() => {
      for (let i = 0; i < repeats; i++)
        for (const { op, tensors, scalars } of [commands[dispatch!]!, commands[combine!]!]) this.#queue.enqueue(op, tensors, scalars);
    });
    const us = (1e6 * (await this.#time(both))) / repeats;
    const exposedUs = median(overlap!.map((time, i) => time - overlapWithout![i]!));
    return {
      ...{ us, serialWithoutUs: median(serialWithout!), overlapWithoutUs: median(overlapWithout!), exposedUs },
      ...{ shareOfExchange: exposedUs / us, shareOfLayer: exposedUs / median(overlap!) },
    };
  }

  /** Writes the step's block, token histories and caches: random ids and numbers. */
  async #prepare(): Promise<void> {
    const { runner, sizes } = this.#model;
    const { state } = this.#program;
    const { kind, batch, queries, rows } = this.#step;
    const queue = this.#queue;
    const tokens = new TokenSource();
    const blocksEach = Math.ceil(sizes.contextLength / sizes.blockSize);
    for (let slot = 0; slot < batch; slot++) {
      await runner.room();
      runner.setBlocks(
        slot,
        0,
        Array.from({ length: blocksEach }, (_, i) => slot * blocksEach + i),
      );
      runner.setHistory(slot, tokens.take(sizes.contextLength));
      runner.rewind(slot, this.#plan.context);
    }
    for (const [i, cache] of state.caches.entries()) {
      if (!queue.hasRoom(2)) await queue.room();
      // A packed cache is filled with small numbers: whatever scales and rope keys they make, none is infinite.
      const out = cache.dtype === "uint8" ? cache.view("float8_e4m3", cache.shape) : cache;
      ops.randomFill(queue, { out, seed: FIRST_CACHE_SEED + i, low: -1, high: 1 });
    }
    const { blocks } = this.#ready;
    blocks.writeStep(
      Array.from({ length: batch }, (_, slot) =>
        kind === "decode"
          ? { slot, position: this.#plan.context, tokens: null, sample: true, drafts: queries - 1 }
          : { slot, position: 0, tokens: tokens.take(rows), sample: true },
      ),
    );
    this.#program.promptKeys = kind === "prompt" ? Math.ceil(rows / KEY_TILE) * KEY_TILE : 0;
    await queue.room();
    queue.write(this.#program.stepBlock, blocks.input);
    await queue.done();
  }

  /** The commands of layer `index`, with or without adds due before it. */
  #commands(index: number, adds: boolean): Captured[] {
    const { runner } = this.#model;
    const queue = new CapturingQueue(runner.device);
    const { dense, moe } = this.#program.activations;
    layer(queue, { ...this.#program, branch: queue }, runner.weights.layers[index]!, index, adds ? { add: dense, add2: moe.out } : {});
    checkOrder(queue.commands, this.#order);
    return queue.commands;
  }

  /** Runs a step up to the first layer's command `end`: its inputs are then what they are in a step. */
  async #runUpTo(end: number): Promise<void> {
    await this.#queue.room();
    this.#embedding();
    for (const { op, tensors, scalars } of this.#commands(0, false).slice(0, end)) this.#queue.enqueue(op, tensors, scalars);
    await this.#queue.done();
  }

  /** Plan, embedding and last norm: a step of a model without layers. */
  #embedding(): void {
    forward(this.#queue, this.#program, { ...this.#model.runner.weights, layers: [] });
  }

  /** How many picks of FFN experts the step's rows have in the first layer, and of how many experts. */
  async #routing(): Promise<{ ffnExpertsPerToken: number; distinctExperts: number }> {
    await this.#runUpTo(this.#order.indexOf("moe_experts"));
    return routingOf(this.#queue, this.#program, this.#step.rows);
  }

  /** Seconds of each operation but those of the exchange. */
  async #operations(): Promise<number[]> {
    const { layers } = this.#plan;
    const commands = Array.from({ length: layers }, (_, l) => this.#commands(l, true));
    const { device } = this.#model.runner;
    const rounds = device.kind === "cuda" ? Math.ceil(GPU_REPEATS / layers) : 1;
    const seconds: number[] = [];
    for (const [i, name] of this.#order.entries()) {
      if (EXCHANGE_OPERATIONS.some((op) => op === name)) continue;
      await this.#runUpTo(i);
      const graph = await this.#record(() => {
        for (let round = 0; round < rounds; round++)
          for (const { op, tensors, scalars } of commands.map((list) => list[i]!)) this.#queue.enqueue(op, tensors, scalars);
      });
      seconds.push((await this.#time(graph)) / (rounds * layers));
    }
    return seconds;
  }

  /** µs of a whole layer on each of some pairs of queues, as often as there are samples, in turn: steps of all layers, less one of none. */
  async #wholes(pairs: readonly Branches[]): Promise<number[][]> {
    const { runner } = this.#model;
    const { layers, samples } = this.#plan;
    const none = await this.#record(() => this.#embedding());
    const wholes: Graph[] = [];
    for (const { queue, branch } of pairs)
      wholes.push(await this.#record(() => forward(queue, { ...this.#program, branch }, runner.weights)));
    const times = pairs.map((): number[] => []);
    for (let i = 0; i < samples; i++) {
      const rest = await this.#replays(none, 1);
      for (const [j, whole] of wholes.entries()) times[j]!.push((1e6 * ((await this.#replays(whole, 1)) - rest)) / layers);
    }
    for (const graph of [none, ...wholes]) graph.release();
    return times;
  }

  async #record(enqueue: () => void): Promise<Graph> {
    await this.#queue.room();
    return this.#model.runner.device.record(enqueue);
  }

  async #time(graph: Graph): Promise<number> {
    const seconds = await this.#replays(graph, this.#plan.samples);
    graph.release();
    return seconds;
  }

  /** Seconds of a replay. All ranks replay as often, since what they replay may wait for the others. */
  #replays(graph: Graph, samples: number): Promise<number> {
    const rank = this.#rank;
    const agree: AgreeOnReplays | undefined = rank && (async (wanted) => Math.max(...(await rank.share(wanted))));
    return timeReplays(this.#queue, graph, samples, this.#plan.signal, agree);
  }
}

/** What the experts of a step's last layer had, read from their plan. */
export async function routingOf(
  queue: Queue,
  { activations, expertPlan }: Program,
  rows: number,
): Promise<{ ffnExpertsPerToken: number; distinctExperts: number }> {
  const { expertStart } = expertPlan ?? activations.moe.plan;
  const starts = new Int32Array(expertStart.bytes / Int32Array.BYTES_PER_ELEMENT);
  await queue.read(expertStart, starts);
  const distinctExperts = starts.subarray(1).filter((end, e) => end > starts[e]!).length;
  return { ffnExpertsPerToken: starts.at(-1)! / rows, distinctExperts };
}

/** What is printed under an operation's name must be that operation. */
function checkOrder(commands: readonly Captured[], wanted: readonly string[]): void {
  const names = loadAddon().ops();
  const found = commands.map(({ op }) => names[op]?.name.replace("mla_prefill", "mla_decode"));
  if (found.join() !== wanted.join()) throw new LongcatError("INTERNAL", `a layer enqueues ${found.join(", ")}, not ${wanted.join(", ")}`);
}
