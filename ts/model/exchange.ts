/**
 * Expert parallelism: the FFN experts of every layer are shared out among R ranks, each of which holds E / R of them, one behind the other, and all
 * else. A rank sends each row to those that hold its experts, and gets back what these make of it (native/ops/ep_dispatch, ep_combine).
 * @module
 */

import { LongcatError } from "../errors.js";
import { availableMemoryBytes } from "../runtime/addon.js";
import type { Communicator } from "../runtime/communicator.js";
import type { HostWords, Tensor } from "../runtime/device.js";
import { exchangeWindowBytes } from "../runtime/window.js";
import type { ActivationDType } from "./activations.js";
import type { ExpertRange } from "./checkpoint.js";
import type { ModelConfig } from "./config.js";
import type { Lockstep } from "./lockstep.js";

/** How a model is opened as one rank of several. */
export interface ModelParallel {
  /** 0 … ranks − 1. */
  rank: number;
  /** How many there are, two or more: a divisor of the model's FFN experts. */
  ranks: number;
  /** How many of them share this host's memory. Default: all. */
  ranksOnHost?: number;
  /** All ranks' bytes under this name, in the order of their ranks; each calls it once a name, with its own. */
  gather(name: string, bytes: Uint8Array): Promise<Uint8Array[]>;
  lockstep: Lockstep;
  /**
   * How rows travel: ranks write them into one another's windows ("peer"), which takes one host; or through NCCL, which takes GPUs. "auto" (the default):
   * the first where it can be done (`settleSharding`).
   */
  exchange?: "auto" | "peer" | "nccl";
  /** What rows are sent as: what activations are ("auto", the default), or e4m3 with a scale for each 128 numbers. */
  dispatchDType?: "auto" | "fp8";
}

/** What sizes depend on of it. */
export interface Sharding {
  /** R; 1: all experts are here, and nothing is exchanged. */
  ranks: number;
  /** Whether rows are sent as FP8. */
  fp8Dispatch: boolean;
  /** Whether they go through NCCL, which takes them from a second window. Default false. */
  throughNccl?: boolean;
}

/** A model on one rank. */
export const ONE_RANK: Sharding = { ranks: 1, fp8Dispatch: false };

/** Whether all ranks share a host. */
export function isOneHost({ ranks, ranksOnHost = ranks }: Pick<ModelParallel, "ranks" | "ranksOnHost">): boolean {
  return ranksOnHost === ranks;
}

/** Host memory that is there for one of the ranks that share it; undefined for a process that shares it with none. */
export function shareOfMemory(parallel: ModelParallel | undefined): number | undefined {
  return parallel && Math.floor(availableMemoryBytes() / (parallel.ranksOnHost ?? parallel.ranks));
}

/** What a rank has in common with the others. */
export interface Exchange {
  readonly rank: number;
  readonly ranks: number;
  /** Most rows that a rank may send to another: those of its largest program. */
  readonly tokens: number;
  readonly fp8Dispatch: boolean;
  /** i64 [ranks]: where each rank's window lies, as this device sees it. Through NCCL it is not looked at. */
  readonly windows: Tensor;
  /** The own one, which the others write into. */
  readonly window: Tensor;
  /** Through NCCL alone. */
  readonly nccl?: NcclExchange;
  /** i64 [1]: exchanges that are over. */
  readonly epoch: Tensor;
  /** Gives up what is waited for, and says who is (ControlWord). */
  readonly control: HostWords;
}

/** What goes through NCCL beside it. */
export interface NcclExchange {
  readonly communicator: Communicator;
  /** A second window, from which it takes what the others are to get. */
  readonly outbox: Tensor;
  /** i32 [2 · ranks]: numbers of rows, for exchanges that are not recorded. */
  readonly counts: HostWords;
}

/** Ends all waiting for other ranks, for good: what is under way or comes later fails with COMM_ERROR. */
export function giveUp({ control, nccl }: Exchange): void {
  control.set(ControlWord.giveUp, 1);
  nccl?.communicator.abort();
}

/**
 * Why nothing that comes out of an exchange can be believed any more; undefined: it can. A GPU that is told to give up just ends its kernels, with whatever
 * bytes, so this is looked at whenever results are there.
 */
export function failureOf({ control, nccl }: Pick<Exchange, "control" | "nccl">): LongcatError | undefined {
  if (control.get(ControlWord.giveUp) !== 0)
    return new LongcatError("COMM_ERROR", "the exchange was given up while waiting for another rank");
  const noticed = nccl?.communicator.failure() ?? null;
  return noticed === null ? undefined : new LongcatError("COMM_ERROR", noticed);
}

/** Most ranks of an exchange (native/comm/window.h: kMaxRanks). */
export const MAX_RANKS = 256;

/** Places in an exchange's `control` (native/ops/ep_dispatch/params.h). */
export const ControlWord = { giveUp: 0, waitsFor: 1 } as const;

/** Experts that each of so many ranks holds. */
export function expertsOfRank({ numExperts }: Pick<ModelConfig, "numExperts">, ranks: number): number {
  return numExperts / ranks;
}

/** Most experts of one rank that a row may use. */
export function slotsOfRank(config: Pick<ModelConfig, "numExperts" | "topK">, ranks: number): number {
  return Math.min(config.topK, expertsOfRank(config, ranks));
}

/**
 * Which experts a rank holds.
 *
 * @throws LongcatError OPTION_INVALID for a number of ranks among which the experts cannot be shared out evenly
 */
export function expertRange(
  { numExperts }: Pick<ModelConfig, "numExperts">,
  { rank, ranks }: { rank: number; ranks: number },
): ExpertRange {
  if (numExperts % ranks !== 0 || ranks > MAX_RANKS) {
    const divisors = Array.from({ length: Math.min(numExperts, MAX_RANKS) }, (_, i) => i + 1).filter((count) => numExperts % count === 0);
    throw new LongcatError(
      "OPTION_INVALID",
      `parallel.expert: ${ranks} is not accepted: ${numExperts} experts cannot be shared out evenly among as many ranks; give one of ${divisors.join(", ")}`,
    );
  }
  const count = numExperts / ranks;
  return { first: rank * count, count };
}

/** Bytes of a rank's window, or of both of its windows; 0 where nothing is exchanged. */
export function windowBytes(
  config: Pick<ModelConfig, "hiddenSize" | "numExperts" | "topK">,
  { ranks, fp8Dispatch, throughNccl, tokens, activationDType }: Sharding & { tokens: number; activationDType: ActivationDType },
): number {
  if (ranks === 1) return 0;
  const slots = slotsOfRank(config, ranks);
  const one = exchangeWindowBytes({ ranks, tokens, width: config.hiddenSize, slots, activation: activationDType, fp8: fp8Dispatch });
  return throughNccl ? 2 * one : one;
}
