/**
 * Expert parallelism: which experts a rank holds, and what it has in common with the other ranks.
 * @module
 */

import type { Lockstep } from "./lockstep.js";

/** How a model is opened as one rank of several. */
export interface ModelParallel {
  /** 0 … ranks − 1. */
  rank: number;
  /** How many there are: a divisor of the model's FFN experts. */
  ranks: number;
  /** All ranks' bytes under this name, in the order of their ranks; each calls it once a name, with its own. */
  gather(name: string, bytes: Uint8Array): Promise<Uint8Array[]>;
  lockstep: Lockstep;
  /** How rows travel. Default "auto". */
  exchange?: "auto" | "peer" | "nccl";
  /** What rows are sent as: what activations are ("auto", the default), or e4m3 with a scale for each 128 numbers. */
  dispatchDType?: "auto" | "fp8";
}
