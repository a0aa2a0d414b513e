/**
 * Element types; the numbers are shared with native/runtime/dtype.h.
 * @module
 */

/** Names of element types as checkpoints' readers print them. */
export type DType = "float32" | "bfloat16" | "float8_e4m3" | "int32" | "int64" | "float64" | "uint8";

/** In the order of the native enumeration. */
export const DTYPES: readonly DType[] = ["float32", "bfloat16", "float8_e4m3", "int32", "int64", "float64", "uint8"];

const BYTES: Record<DType, number> = { float32: 4, bfloat16: 2, float8_e4m3: 1, int32: 4, int64: 8, float64: 8, uint8: 1 };

/** Bytes of one element. */
export function bytesOf(dtype: DType): number {
  return BYTES[dtype];
}
