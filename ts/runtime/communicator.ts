/**
 * Ranks' GPUs joined by NCCL, for exchanges that cannot go through windows which the ranks write themselves.
 * @module
 */

import type { NativeCommunicator } from "./binding.js";
import { translateErrors, translateRejections } from "./native-error.js";

/** Most ranks whose exchanges through NCCL can be recorded: more of them send what there is, which the host has to see first. */
export const MAX_RECORDED_NCCL_RANKS = 8;

/** This rank's part of it; see Device.joinNccl. */
export class Communicator {
  readonly #native: NativeCommunicator;
  #closed: Promise<void> | undefined;

  /** Use Device.joinNccl. */
  constructor(native: NativeCommunicator) {
    this.#native = native;
  }

  /** What NCCL noticed of its own accord, such as a connection that broke; null: nothing. Asked for, never told. */
  failure(): string | null {
    return translateErrors(() => this.#native.failure());
  }

  /**
   * Microseconds of an exchange of `bytes` to and from each other rank, one of many in a graph: what NCCL takes for no more than carrying. For
   * benchmarks: all ranks call it at the same time, and it waits for them.
   */
  measure(bytes: number): Promise<number> {
    return translateRejections(async () => this.#native.measure(bytes));
  }

  /**
   * Gives it up, at once and for good: exchanges that wait for another rank end, with whatever bytes, and later ones fail with COMM_ERROR. Set
   * `control[0]` of the exchange first, so that what waits for those bytes ends as well.
   */
  abort(): void {
    this.close().catch(() => {}); // nobody waits for the memory
  }

  /** As abort(); resolves when its memory is given back, for which it waits until all graphs with its exchanges are gone: close the device first. */
  close(): Promise<void> {
    this.#closed ??= translateRejections(() => this.#native.abort());
    return this.#closed;
  }
}
