/**
 * The exchange of a layer by itself: rows to the ranks of their experts and sums back, beside NCCL's all-to-all of as many bytes and what the links
 * allow. What `longcat bench all-to-all` prints; this is a rank's part of it, in a process of its own (bench-ranks.ts).
 *
 * Both operations are recorded in turn again and again, as steps have them, with timestamps between; once more without, for what both take together.
 * @module
 */

import { seededRandom } from "../bench/random.js";
import type { ActivationDType } from "../model/activations.js";
import type { ModelConfig } from "../model/config.js";
import { type Exchange, expertRange, expertsOfRank, slotsOfRank } from "../model/exchange.js";
import { NVLINK_FLOOR, onCurve } from "../model/measured-parts.js";
import { checkWay, openExchange, settleSharding } from "../model/open-exchange.js";
import { exchangeCost } from "../model/parallel-cost.js";
import type { DeviceKind } from "../model/placement.js";
import { type Shape, shapeConfig } from "../model/shapes.js";
import { LongcatError } from "../errors.js";
import type { Communicator } from "../runtime/communicator.js";
import { Device, type Graph, type Queue, type Tensor } from "../runtime/device.js";
import { bytesOf, type DType } from "../runtime/dtype.js";
import { ops } from "../runtime/ops.js";
import { WINDOW_HEADER_BYTES } from "../runtime/window.js";
import { type AgreeOnReplays, median, timeReplays } from "./bench-device.js";
import { type BenchRank, benchParallel, wayOf } from "./bench-ranks.js";

/** Sizes that an exchange depends on. */
export type ExchangeSizes = Pick<ModelConfig, "hiddenSize" | "numExperts" | "numZeroExperts" | "topK">;

/**
 * Those of a built-in shape.
 *
 * @throws LongcatError OPTION_INVALID for ranks that its experts cannot be shared out among
 */
export function exchangeSizes(shape: Shape, ranks: number): ExchangeSizes {
  const config = shapeConfig(shape);
  expertRange(config, { rank: 0, ranks });
  const { hiddenSize, numExperts, numZeroExperts, topK } = config;
  return { hiddenSize, numExperts, numZeroExperts, topK };
}

/** What to measure. */
export interface AllToAllPlan {
  sizes: ExchangeSizes;
  /** What activations are; the CPU has float32 alone. */
  dtype: ActivationDType;
  /** Rows are dispatched as FP8. */
  fp8: boolean;
  /** How rows travel, as `parallel.exchange` of an engine. */
  exchange: "auto" | "peer" | "nccl";
  /** Tokens of each rank. */
  tokens: readonly number[];
  /** Measurements, of which the median counts. */
  samples: number;
  device: string;
  threads: number | "auto";
}

/**
 * Refuses, before ranks are started, what none of them can measure on such devices.
 *
 * @throws LongcatError OPTION_INVALID
 */
export function checkAllToAll({ dtype, exchange }: AllToAllPlan, ranks: number, kind: DeviceKind): void {
  checkWay(kind, { exchange, ranks });
  if (kind === "cpu" && dtype !== "float32")
    throw new LongcatError("OPTION_INVALID", `dtype: ${dtype} is not accepted: on the CPU activations are float32`);
}

/** What was measured on. */
export interface AllToAllFacts extends ExchangeSizes {
  ranks: number;
  /** How rows travelled. */
  exchange: "peer" | "nccl" | null;
  dtype: ActivationDType;
  fp8: boolean;
  device: string;
  gpu: string | null;
  threads: number;
  isa: string;
  /** µs between two timestamps that follow each other, taken off the times below. */
  timestampUs: number;
  /** Why there is nothing of NCCL; null: there is. */
  withoutNccl: string | null;
}

/** One direction. */
export interface DirectionResult {
  /** Bytes of a row, and bytes that a rank sends to the others, on average over ranks. */
  rowBytes: number;
  bytes: number;
  /** From the operation's begin to its end on the rank where that takes longest: sending, waiting for the others, and what is done with what came. */
  us: number;
  /** bytes ÷ us. */
  gigabytesPerSecond: number;
  /** NCCL's all-to-all of as many bytes to each other rank, recorded; null where there is none. */
  ncclUs: number | null;
  /** What NVLink itself takes; null on the CPU. */
  floorUs: number | null;
}

/** An exchange at one number of tokens. */
export interface AllToAllResult {
  tokens: number;
  /** Rows that a rank sends to the others, on average. */
  rows: number;
  dispatch: DirectionResult;
  combine: DirectionResult;
  /** Both together, without timestamps between. */
  us: number;
}

export type AllToAllReported = { loaded: AllToAllFacts } | { measured: AllToAllResult };

/** Exchanges in a recording. */
const REPEATS = { cuda: 24, cpu: 4 } as const;

/**
 * Measures, as one rank of several; all do the same. The plan was checked.
 *
 * @throws LongcatError OPTION_INVALID, DEVICE_UNAVAILABLE, OUT_OF_MEMORY, COMM_ERROR
 */
export async function benchAllToAll(
  plan: AllToAllPlan,
  rank: BenchRank,
  report: (value: AllToAllReported) => Promise<void>,
): Promise<void> {
  const device = Device.open(plan);
  let communicator: Communicator | undefined;
  try {
    const parallel = benchParallel(rank, { exchange: plan.exchange, fp8Dispatch: plan.fp8 });
    const sharding = await settleSharding(parallel, device);
    const sizes = { sharding, maxBatchTokens: Math.max(...plan.tokens), activationDType: plan.dtype };
    const exchange = await openExchange(device, parallel, plan.sizes, sizes);
    const nccl = exchange.nccl ? { communicator: exchange.nccl.communicator, reason: null } : await joinNccl(device, rank);
    communicator = nccl.communicator;
    const bench = new ExchangeBench(device, exchange, plan, rank, communicator);
    const timestampUs = await bench.timestampUs();
    const { dtype, fp8 } = plan;
    const where = { device: device.kind, gpu: device.gpu?.name ?? null, threads: device.threads, isa: device.isa };
    await report({
      loaded: { ...plan.sizes, ranks: rank.ranks, exchange: wayOf(exchange), dtype, fp8, ...where, timestampUs, withoutNccl: nccl.reason },
    });
    for (const count of plan.tokens) await report({ measured: await bench.measure(count, timestampUs) });
  } finally {
    await device.close();
    await communicator?.close();
  }
}

/** NCCL between the ranks' GPUs, or why there is none. */
async function joinNccl(
  device: Device,
  { rank, ranks, share }: BenchRank,
): Promise<{ communicator?: Communicator; reason: string | null }> {
  if (device.kind === "cpu") return { reason: "NCCL is for GPUs" };
  const made = await share(rank === 0 ? uniqueId(device) : null);
  const { id, reason } = made[0]!;
  return id === undefined ? { reason } : { communicator: await device.joinNccl({ rank, ranks, id }), reason: null };
}

function uniqueId(device: Device): { id?: Uint8Array; reason: string | null } {
  try {
    return { id: device.ncclUniqueId(), reason: null };
  } catch (error) {
    if (error instanceof LongcatError && error.code === "DEVICE_UNAVAILABLE") return { reason: error.message };
    throw error;
  }
}

/** The tensors of an exchange of one size. */
interface ExchangeTensors {
  dispatch: Parameters<typeof ops.epDispatch>[1];
  combine: Parameters<typeof ops.epCombine>[1];
  release(): void;
}

class ExchangeBench {
  readonly #device: Device;
  readonly #exchange: Exchange;
  readonly #plan: AllToAllPlan;
  readonly #rank: BenchRank;
  readonly #communicator: Communicator | undefined;
  readonly #queue: Queue;
  /** Times of a recording, in their order. */
  readonly #stamps: Tensor;
  readonly #repeats: number;

  constructor(device: Device, exchange: Exchange, plan: AllToAllPlan, rank: BenchRank, communicator: Communicator | undefined) {
    this.#device = device;
    this.#exchange = exchange;
    this.#plan = plan;
    this.#rank = rank;
    this.#communicator = communicator;
    this.#queue = device.queue();
    this.#repeats = REPEATS[device.kind];
    this.#stamps = device.tensor("int64", [this.#repeats * STAMPS]);
  }

  /** µs from one timestamp to the next, nothing between them. */
  async timestampUs(): Promise<number> {
    const graph = await this.#device.record(() => {
      for (let i = 0; i < STAMPS * this.#repeats; i++) this.#stamp(i);
    });
    const [first, second] = await this.#stamped(graph);
    graph.release();
    return (first! + second!) / 2;
  }

  async measure(tokens: number, timestampUs: number): Promise<AllToAllResult> {
    const { samples, sizes, dtype, fp8 } = this.#plan;
    const { ranks } = this.#rank;
    const ids = randomChoices(sizes, tokens, this.#rank.rank);
    const tensors = this.#tensors(tokens, ids);
    await this.#queue.done();
    const stamped = await this.#device.record(() => {
      for (let i = 0; i < this.#repeats; i++) {
        this.#stamp(STAMPS * i);
        ops.epDispatch(this.#queue, tensors.dispatch);
        this.#stamp(STAMPS * i + 1);
        ops.epCombine(this.#queue, tensors.combine);
        this.#stamp(STAMPS * i + 2);
      }
    });
    const plain = await this.#device.record(() => {
      for (let i = 0; i < this.#repeats; i++) {
        ops.epDispatch(this.#queue, tensors.dispatch);
        ops.epCombine(this.#queue, tensors.combine);
      }
    });
    const [dispatchUs, combineUs] = await this.#stamped(stamped);
    const seconds = await timeReplays(this.#queue, plain, samples, undefined, this.#agree);
    stamped.release();
    plain.release();
    tensors.release();
    const rows = mean(await this.#rank.share(rowsToOthers(sizes, ids, tokens, this.#rank)));
    const cost = exchangeCost(sizes, { ranks, rows: tokens, activationBytes: bytesOf(dtype), fp8 });
    return {
      ...{ tokens, rows },
      dispatch: await this.#direction(rows, cost.dispatchRowBytes, dispatchUs! - timestampUs),
      combine: await this.#direction(rows, cost.combineRowBytes, combineUs! - timestampUs),
      us: (1e6 * seconds) / this.#repeats,
    };
  }

  async #direction(rows: number, rowBytes: number, us: number): Promise<DirectionResult> {
    const bytes = Math.round(rows * rowBytes);
    const toEach = Math.ceil(bytes / (this.#rank.ranks - 1));
    const ncclUs = this.#communicator ? Math.max(...(await this.#rank.share(await this.#communicator.measure(toEach)))) : null;
    const floorUs = this.#device.kind === "cuda" ? onCurve(NVLINK_FLOOR, bytes) : null;
    return { rowBytes, bytes, us, gigabytesPerSecond: bytes / us / 1e3, ncclUs, floorUs };
  }

  #stamp(index: number): void {
    ops.timestamp(this.#queue, { out: this.#stamps.view("int64", [1], BigInt64Array.BYTES_PER_ELEMENT * index) });
  }

  /**
   * µs from each timestamp of an exchange to the next one: the mean over a replay's exchanges but the first, the median over replays, of the rank where
   * that is longest.
   */
  async #stamped(graph: Graph): Promise<number[]> {
    const { samples } = this.#plan;
    const stamps = new BigInt64Array(this.#repeats * STAMPS);
    const replays: number[][] = [];
    for (let i = 0; i <= samples; i++) {
      await this.#queue.room();
      this.#queue.replay(graph);
      await this.#queue.read(this.#stamps, stamps);
      const steps = Array.from({ length: STAMPS - 1 }, (_, step) => {
        let sum = 0;
        for (let j = 1; j < this.#repeats; j++) sum += Number(stamps[STAMPS * j + step + 1]! - stamps[STAMPS * j + step]!);
        return sum / (this.#repeats - 1) / 1e3;
      });
      if (i > 0) replays.push(steps);
    }
    const own = [0, 1].map((step) => median(replays.map((steps) => steps[step]!)));
    const all = await this.#rank.share(own);
    return own.map((_, step) => Math.max(...all.map((steps) => steps[step]!)));
  }

  readonly #agree: AgreeOnReplays = async (wanted) => Math.max(...(await this.#rank.share(wanted)));

  /** An exchange of a program of `tokens` rows, all of them live. */
  #tensors(tokens: number, ids: Int32Array): ExchangeTensors {
    const { sizes, dtype, fp8 } = this.#plan;
    const { rank, ranks, tokens: windowTokens, windows, window, nccl, epoch, control } = this.#exchange;
    const { hiddenSize: D, numExperts, topK } = sizes;
    const slots = slotsOfRank(sizes, ranks);
    const made: Tensor[] = [];
    const tensor = (of: DType, shape: number[], data?: ArrayBufferView): Tensor => {
      const one = this.#device.tensor(of, shape);
      made.push(one);
      if (data) this.#queue.write(one, data);
      return one;
    };
    const random = (of: DType, shape: number[]): Tensor => {
      const out = tensor(of, shape);
      ops.randomFill(this.#queue, { out, seed: rank, low: -1, high: 1 });
      return out;
    };
    const shared = {
      ...{ rank, windowTokens, fp8: Number(fp8), windows, window, outbox: nccl?.outbox, epoch, control: control.tensor },
      ...{ h: random(dtype, [tokens, D]), rows: tensor("int32", [1], Int32Array.of(tokens)) },
      ...{ sendSlot: tensor("int32", [tokens, ranks]), slotPlan: tensor("int32", [ranks * tokens, slots]) },
    };
    const dispatch = {
      ...shared,
      ...{ ids: tensor("int32", [tokens, topK], ids), weights: random("float32", [tokens, topK]), experts: numExperts },
      received: fp8 ? tensor(dtype, [ranks * tokens, D]) : window.view(dtype, [ranks * windowTokens, D], WINDOW_HEADER_BYTES),
      ...{ expertStart: tensor("int32", [expertsOfRank(sizes, ranks) + 1]), planRow: tensor("int32", [ranks * tokens * slots]) },
    };
    const partial = random(dtype, [ranks * tokens * slots, D]);
    const combine = { ...shared, partial, identityWeight: random("float32", [tokens]), out: tensor(dtype, [tokens, D]) };
    return {
      dispatch,
      combine,
      release: () => {
        for (const one of made) one.release();
      },
    };
  }
}

/** Timestamps of an exchange: before dispatch, between both, behind combine. */
const STAMPS = 3;

/** Different choices of each token, uniform over experts and zero experts, ascending: [tokens, topK]. */
export function randomChoices({ numExperts, numZeroExperts, topK }: ExchangeSizes, tokens: number, seed: number): Int32Array {
  const random = seededRandom(seed);
  const all = Int32Array.from({ length: numExperts + numZeroExperts }, (_, i) => i);
  const chosen = new Int32Array(tokens * topK);
  for (let t = 0; t < tokens; t++) {
    // The beginning of a shuffle; the order that is left is as good as any for the next one.
    for (let i = 0; i < topK; i++) {
      const j = i + Math.floor(random() * (all.length - i));
      [all[i], all[j]] = [all[j]!, all[i]!];
    }
    chosen.set(all.slice(0, topK).sort(), t * topK);
  }
  return chosen;
}

/** Rows that other ranks get: each once a rank that holds one of its experts. */
export function rowsToOthers(
  sizes: ExchangeSizes,
  ids: Int32Array,
  tokens: number,
  { rank, ranks }: { rank: number; ranks: number },
): number {
  const { topK, numExperts } = sizes;
  const each = expertsOfRank(sizes, ranks);
  let rows = 0;
  for (let t = 0; t < tokens; t++) {
    const chosen = [...ids.subarray(t * topK, (t + 1) * topK)].filter((id) => id < numExperts).map((id) => Math.floor(id / each));
    rows += new Set(chosen.filter((to) => to !== rank)).size;
  }
  return rows;
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
