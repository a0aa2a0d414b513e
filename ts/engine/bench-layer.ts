/**
 * One layer with random weights, measured: each of its operations alone, then the whole, its two branches at once or one after the
 * other. What `longcat bench layer` prints; bench/README.md says how.
 *
 * The model has several layers of weights with one set of experts between them; an operation timed alone goes through them in turn, so
 * that its weights come from memory where all together are larger than the device's cache.
 * @module
 */

import { LongcatError } from "../errors.js";
import { KEY_TILE } from "../model/activations.js";
import { layer } from "../model/layer.js";
import { LAYER_OPERATIONS, layerCosts } from "../model/layer-cost.js";
import { forward } from "../model/model.js";
import type { Program } from "../model/program.js";
import { openRandomModel, type RandomDType, type RandomModel } from "../model/random-weights.js";
import { type Shape, shapeConfig } from "../model/shapes.js";
import { loadAddon } from "../runtime/addon.js";
import { type Device, Event, type Graph, Queue } from "../runtime/device.js";
import { ops } from "../runtime/ops.js";
import { abortIfAsked, CeilingMeter, floorSeconds, median, timeReplays, TokenSource } from "./bench-device.js";
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
  signal?: AbortSignal;
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

/**
 * Measures.
 *
 * @throws LongcatError as `openRandomModel` does; OPTION_INVALID for more rows of experts than a step has; ABORTED
 */
export async function benchLayer(plan: LayerPlan, report: LayerReport): Promise<void> {
  const { shape, dtype, expertsHeld, layers, device, threads, cacheDType, fp8Activations, batchInvariant, signal } = plan;
  const config = shapeConfig(shape, layers);
  const share = shareOf(plan, config.numExperts);
  const { queries } = plan;
  if (share) for (const rows of [...plan.batches.map((batch) => batch * queries), ...plan.prompts]) checkShare(share, rows, config.topK);
  const meter = await CeilingMeter.of(device);
  const longest = Math.max(plan.batches.length > 0 ? plan.context + queries : 0, ...plan.prompts, 1);
  const largest = Math.max(1, ...plan.batches);
  const model = await openRandomModel(
    { config, dtype, expertsHeld, expertLayers: 1, oneRank: share !== undefined, draftHead: queries > 1 },
    {
      ...{ device, threads, cacheDType, fp8Activations, batchInvariant, signal, contextLength: longest, maxDrafts: queries - 1 },
      ...{ maxSequences: largest, maxBatchTokens: Math.max(largest * queries, ...plan.prompts) },
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
      await report.measured(await new LayerBench(model, plan, step, meter).measure());
    }
  } finally {
    await model.close();
  }
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
    ...{ shape: plan.shape, dtype: plan.dtype, layers: plan.layers },
    ...{ expertsHeld: plan.expertsHeld ?? config.numExperts, experts: config.numExperts, expertRows: plan.expertRows ?? null },
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
  readonly #ready: ReturnType<RandomModel["runner"]["promptProgram"]>;
  readonly #program: Program;
  readonly #queue: Queue;

  constructor(model: RandomModel, plan: LayerPlan, step: LayerStep, meter: CeilingMeter) {
    this.#model = model;
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
    const serialUs = 1e6 * (await this.#whole({ ...this.#program, branch: this.#queue }));
    const overlapUs = 1e6 * (await this.#whole(this.#program));
    const floorUs = 1e6 * floorSeconds({ bytes, flops }, ceilings);
    return {
      ...{ kind, batch, queries, rows, context, operations, sumUs: operations.reduce((sum, { us }) => sum + us, 0), serialUs, overlapUs },
      ...{ bytes: Math.round(bytes), flops: Math.round(flops), floorUs, shareOfFloor: floorUs / Math.min(serialUs, overlapUs), ...use },
      bytesPerSecondCeiling: ceilings.bytesPerSecond,
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
    checkOrder(queue.commands);
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
    await this.#runUpTo(LAYER_OPERATIONS.findIndex(([op]) => op === "moe_experts"));
    return routingOf(this.#queue, this.#program, this.#step.rows);
  }

  /** Seconds of each operation. */
  async #operations(): Promise<number[]> {
    const { layers, samples, signal } = this.#plan;
    const commands = Array.from({ length: layers }, (_, l) => this.#commands(l, true));
    const { device } = this.#model.runner;
    const rounds = device.kind === "cuda" ? Math.ceil(GPU_REPEATS / layers) : 1;
    const seconds: number[] = [];
    for (const i of LAYER_OPERATIONS.keys()) {
      await this.#runUpTo(i);
      const graph = await this.#record(() => {
        for (let round = 0; round < rounds; round++)
          for (const { op, tensors, scalars } of commands.map((list) => list[i]!)) this.#queue.enqueue(op, tensors, scalars);
      });
      seconds.push((await this.#time(graph, samples, signal)) / (rounds * layers));
    }
    return seconds;
  }

  /** Seconds of a whole layer: a step of all layers, less one of none. */
  async #whole(program: Program): Promise<number> {
    const { runner } = this.#model;
    const { layers, samples, signal } = this.#plan;
    const all = await this.#record(() => forward(this.#queue, program, runner.weights));
    const none = await this.#record(() => this.#embedding());
    const differences: number[] = [];
    for (let i = 0; i < samples; i++) {
      const rest = await timeReplays(this.#queue, none, 1, signal);
      differences.push(((await timeReplays(this.#queue, all, 1, signal)) - rest) / layers);
    }
    all.release();
    none.release();
    return median(differences);
  }

  async #record(enqueue: () => void): Promise<Graph> {
    await this.#queue.room();
    return this.#model.runner.device.record(enqueue);
  }

  async #time(graph: Graph, samples: number, signal: AbortSignal | undefined): Promise<number> {
    const seconds = await timeReplays(this.#queue, graph, samples, signal);
    graph.release();
    return seconds;
  }
}

/** What the experts of a step's last layer had, read from their plan. */
export async function routingOf(
  queue: Queue,
  { activations, expertPlan }: Program,
  rows: number,
): Promise<{ ffnExpertsPerToken: number; distinctExperts: number }> {
  const { expertStart } = expertPlan ?? activations.moe;
  const starts = new Int32Array(expertStart.bytes / Int32Array.BYTES_PER_ELEMENT);
  await queue.read(expertStart, starts);
  const distinctExperts = starts.subarray(1).filter((end, e) => end > starts[e]!).length;
  return { ffnExpertsPerToken: starts.at(-1)! / rows, distinctExperts };
}

/** What is printed under an operation's name must be that operation. */
function checkOrder(commands: readonly Captured[]): void {
  const names = loadAddon().ops();
  const wanted = LAYER_OPERATIONS.map(([op]) => op);
  const found = commands.map(({ op }) => names[op]?.name.replace("mla_prefill", "mla_decode"));
  if (found.join() !== wanted.join()) throw new LongcatError("INTERNAL", `a layer enqueues ${found.join(", ")}, not ${wanted.join(", ")}`);
}
