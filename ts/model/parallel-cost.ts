/**
 * Expert parallelism on paper: how many rows and bytes an exchange moves, and how long a layer and a decode step of many ranks take, from what
 * one GPU's parts were measured at. Pure arithmetic; docs/parallel.md shows its results, `longcat inspect estimate --ranks` prints them.
 *
 * *Routing* is taken as uniform over all choices, experts and zero experts alike, as balanced training aims at. A row travels once to each rank that
 * holds one of its experts, and its ranks' sums come back; zero experts send nothing.
 *
 * *Time.* Parts that read weights or caches add up, on one branch or on two, since they share one memory (measured: a layer's two branches at once
 * take what its operations take one by one, within 1 %). The exchange uses the links, so it runs beside them: dispatch while the dense branch does FFN 0
 * and the second attention's projections, combine while it does that attention, its output and FFN 1. What lasts longer than those is exposed.
 * @module
 */

import type { ModelConfig } from "./config.js";
import { expertsOfRank, slotsOfRank } from "./exchange.js";
import {
  ATTENTION,
  type Curve,
  HEAD,
  INFINIBAND_ASSUMED,
  type Link,
  type MeasuredDType,
  NORM,
  NVLINK_NCCL,
  onCurve,
  onSurface,
  ROUTER,
  ROW_PARTS,
  SAMPLE,
  WINDOW_EXCHANGE,
} from "./measured-parts.js";
import { FP8_BLOCK } from "./tensor-names.js";

/** Ranks that share one host's fast links. */
export const RANKS_PER_HOST = 8;

/** The links of a rank: to those of its host, and to all others. */
export interface Links {
  host: Link;
  network: Link;
}

/** Of an exchange through NCCL. */
const NCCL_LINKS: Links = { host: NVLINK_NCCL, network: INFINIBAND_ASSUMED };

/** Sizes that routing depends on. */
type RoutingSizes = Pick<ModelConfig, "numExperts" | "numZeroExperts" | "topK">;

/**
 * The chance that a row has business with one given rank: that not all of its `topK` different choices among N + Z fall outside that rank's experts.
 */
export function chanceOfRank({ numExperts, numZeroExperts, topK }: RoutingSizes, ranks: number): number {
  const choices = numExperts + numZeroExperts;
  const others = choices - expertsOfRank({ numExperts }, ranks);
  let none = 1;
  for (let i = 0; i < topK; i++) none *= (others - i) / (choices - i);
  return 1 - none;
}

/** An exchange of one layer. */
export interface ExchangeShape {
  ranks: number;
  /** Tokens of each rank. */
  rows: number;
  /** Bytes of a number of an activation. */
  activationBytes: number;
  /** Whether rows are dispatched as FP8 codes with scales. Sums come back as activations. */
  fp8: boolean;
  ranksPerHost?: number;
}

/** Expected rows and bytes that a rank sends to others in one direction; as many arrive. */
export interface ExchangeCost {
  /** Rows to ranks of its own host, and to others; the rank's own rows for itself are in neither. */
  hostRows: number;
  networkRows: number;
  /** Bytes of a row with its experts' places and weights; of a sum. */
  dispatchRowBytes: number;
  combineRowBytes: number;
  /** Bytes of all those rows. */
  dispatchBytes: number;
  combineBytes: number;
}

/** What an exchange moves, on average. */
export function exchangeCost(config: RoutingSizes & Pick<ModelConfig, "hiddenSize">, shape: ExchangeShape): ExchangeCost {
  const { ranks, rows, activationBytes, fp8, ranksPerHost = RANKS_PER_HOST } = shape;
  const D = config.hiddenSize;
  const toOne = rows * chanceOfRank(config, ranks);
  const near = Math.min(ranks, ranksPerHost);
  const [hostRows, networkRows] = [(near - 1) * toOne, (ranks - near) * toOne];
  const dispatchRowBytes = (fp8 ? D + 4 * Math.ceil(D / FP8_BLOCK) : activationBytes * D) + 8 * slotsOfRank(config, ranks);
  const combineRowBytes = activationBytes * D;
  const sent = hostRows + networkRows;
  return {
    ...{ hostRows, networkRows, dispatchRowBytes, combineRowBytes },
    ...{ dispatchBytes: sent * dispatchRowBytes, combineBytes: sent * combineRowBytes },
  };
}

/** µs of one direction: both links carry their part at once; none where there is nobody else. */
export function exchangeUs({ hostRows, networkRows }: ExchangeCost, rowBytes: number, { host, network }: Links): number {
  const over = (link: Link, rows: number) => (rows > 0 ? onCurve(link, rows * rowBytes) : 0);
  return Math.max(over(host, hostRows), over(network, networkRows));
}

/** A decode step of every rank. */
export interface DecodeLoad {
  ranks: number;
  /** Sequences of each rank, a token each. */
  rows: number;
  /** Cached tokens of each. */
  context: number;
  dtype: MeasuredDType;
  /** Whether rows are dispatched as FP8. */
  fp8: boolean;
  ranksPerHost?: number;
  /** Whether rows go through NCCL. Default: beyond one host. */
  throughNccl?: boolean | undefined;
}

/** One layer, by the stages of the model's report (docs/parallel.md). µs. */
export interface LayerStages {
  /** 1, exposed: the first attention with its norms, and the router. */
  firstUs: number;
  /** 2: dense FFN 0 and the second attention's projections; dispatch beside them. */
  secondUs: number;
  dispatchUs: number;
  /** 3: the experts, which read memory as the dense branch does. */
  expertsUs: number;
  /** 4: the second attention, its output, dense FFN 1; combine beside them. */
  fourthUs: number;
  combineUs: number;
  /** What dispatch and combine take beyond the second and the fourth stage. */
  exposedUs: number;
  layerUs: number;
}

/** A decode step of LongCat-Flash's parts. */
export interface StepTime {
  exchange: ExchangeCost;
  layer: LayerStages;
  /** Last norm, head and sampling. */
  headUs: number;
  stepMs: number;
  /** Tokens a second of one sequence, of a rank, of all ranks. */
  tokensPerSecond: number;
  rankTokensPerSecond: number;
  allTokensPerSecond: number;
}

/** Bytes of a bfloat16 activation. */
const ACTIVATION_BYTES = 2;

/** A layer of parts as measured, with an exchange of so many µs each way. */
export function layerStages(config: RoutingSizes, load: DecodeLoad, dispatchUs: number, combineUs: number): LayerStages {
  const { ranks, rows, context, dtype } = load;
  const parts = ROW_PARTS[dtype];
  const norm = onCurve(NORM, rows);
  const attention = onSurface(ATTENTION, context, rows);
  const project = onCurve(parts.project, rows);
  const output = onCurve(parts.output, rows);
  const dense = onCurve(parts.dense, rows);
  const firstUs = norm + project + attention + output + norm + onCurve(ROUTER, rows);
  const secondUs = dense + norm + project;
  const expertsUs = expertsTime(config, load, ranks * rows);
  const fourthUs = attention + output + norm + dense;
  const exposedUs = Math.max(0, dispatchUs - secondUs) + Math.max(0, combineUs - fourthUs);
  return {
    ...{ firstUs, secondUs, dispatchUs, expertsUs, fourthUs, combineUs, exposedUs },
    layerUs: firstUs + secondUs + expertsUs + fourthUs + exposedUs,
  };
}

/** The experts of a rank, which `tokens` tokens of all ranks choose among. */
function expertsTime({ numExperts, numZeroExperts, topK }: RoutingSizes, { ranks, dtype }: DecodeLoad, tokens: number): number {
  const rowsEach = (tokens * topK) / (numExperts + numZeroExperts);
  // Fewer rows than experts: what is read are the experts that have one, of rows thrown at random, as they were measured.
  const touched = rowsEach < 1 ? (1 - Math.exp(-rowsEach)) / (1 - Math.exp(-1)) : 1;
  return touched * onSurface(ROW_PARTS[dtype].experts, expertsOfRank({ numExperts }, ranks), Math.max(1, rowsEach));
}

/** A decode step of a model whose parts are measured (`isMeasured`), bfloat16 activations. */
export function stepTime(config: ModelConfig, load: DecodeLoad): StepTime {
  const { ranks, rows, fp8, ranksPerHost = RANKS_PER_HOST, throughNccl = ranks > ranksPerHost } = load;
  const exchange = exchangeCost(config, { ranks, rows, activationBytes: ACTIVATION_BYTES, fp8, ranksPerHost });
  const takes = (rowBytes: number, ours: Curve): number => {
    if (ranks === 1) return 0;
    return throughNccl ? exchangeUs(exchange, rowBytes, NCCL_LINKS) : onCurve(ours, exchange.hostRows);
  };
  const dispatchUs = takes(exchange.dispatchRowBytes, fp8 ? WINDOW_EXCHANGE.dispatchFp8 : WINDOW_EXCHANGE.dispatch);
  const combineUs = takes(exchange.combineRowBytes, WINDOW_EXCHANGE.combine);
  const layer = layerStages(config, load, dispatchUs, combineUs);
  const headUs = onCurve(NORM, rows) + onCurve(HEAD, rows) + onCurve(SAMPLE, rows);
  const stepUs = config.numLayers * layer.layerUs + headUs;
  const tokensPerSecond = 1e6 / stepUs;
  return {
    ...{ exchange, layer, headUs, stepMs: stepUs / 1e3, tokensPerSecond },
    ...{ rankTokensPerSecond: rows * tokensPerSecond, allTokensPerSecond: ranks * rows * tokensPerSecond },
  };
}
