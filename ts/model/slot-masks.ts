/**
 * Which ids each slot may draw, as the device has them: what has to be written before a step.
 * @module
 */
import type { StepSequence } from "./runner-types.js";

/** Rows of masks to write: all slots from the first one that changed to the last. */
export interface MaskRows {
  first: number;
  words: Int32Array;
}

export class SlotMasks {
  readonly #wordsPerSlot: number;
  /** [S, ceil(V/32)], as on the device. */
  readonly #host: Int32Array;
  /** By slot: the mask that was written last. Masks are not changed once they are given, so the same array is the same mask. */
  readonly #written: (Int32Array | undefined)[] = [];

  constructor(numSlots: number, vocabulary: number) {
    this.#wordsPerSlot = Math.ceil(vocabulary / 32);
    this.#host = new Int32Array(numSlots * this.#wordsPerSlot);
  }

  /** Takes the masks of a step's sequences; what of them the device does not have yet. */
  take(sequences: readonly Pick<StepSequence, "slot" | "mask">[]): MaskRows | undefined {
    const words = this.#wordsPerSlot;
    let first = Number.POSITIVE_INFINITY;
    let last = -1;
    for (const { slot, mask } of sequences) {
      if (mask === undefined || this.#written[slot] === mask) continue;
      this.#host.set(mask, slot * words);
      this.#written[slot] = mask;
      first = Math.min(first, slot);
      last = Math.max(last, slot);
    }
    return last < 0 ? undefined : { first, words: this.#host.subarray(first * words, (last + 1) * words) };
  }
}
