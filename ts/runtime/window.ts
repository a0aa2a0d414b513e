/**
 * How large a window is: the formula of native/comm/window.h, whose regions these are, for estimates that need no addon.
 * @module
 */

import { bytesOf, type DType } from "./dtype.js";

/** What all ranks of an exchange agree on. */
export interface WindowShape {
  ranks: number;
  /** Most rows that one rank sends to another in an exchange: the largest program's. */
  tokens: number;
  /** Numbers of a row. */
  width: number;
  /** Most experts of one rank that a row may use: min(topK, experts / ranks). */
  slots: number;
  /** What activations are: "float32" or "bfloat16". */
  activation: DType;
  /** Rows travel as FP8. */
  fp8: boolean;
}

/** Bytes from a window's start to the rows that it receives. */
export const WINDOW_HEADER_BYTES = 64 * 1024;
/** Words of an exchange's `control`. [0]: not 0, give up. [1]: the exchange waits for rank [1] − 1, for over a second. */
export const CONTROL_WORDS = 16;
const ALIGNMENT = 256;
/** Numbers that share a scale with FP8. */
const SCALE_CHANNELS = 128;

/** Bytes of a window. */
export function exchangeWindowBytes({ ranks, tokens, width, slots, activation, fp8 }: WindowShape): number {
  const row = width * bytesOf(activation);
  const regions = [fp8 ? width : row, fp8 ? Math.ceil(width / SCALE_CHANNELS) * 4 : 0, slots * 4, slots * 4, row];
  const padded = regions.map((rowBytes) => Math.ceil((ranks * tokens * rowBytes) / ALIGNMENT) * ALIGNMENT);
  return padded.reduce((total, bytes) => total + bytes, WINDOW_HEADER_BYTES);
}
