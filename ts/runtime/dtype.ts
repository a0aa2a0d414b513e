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

/** Numbers of any type as float32; float64 and int64 are rounded. FP8 codes stand for themselves, without scales. */
export function toFloats(buffer: ArrayBuffer, dtype: DType): Float32Array {
  switch (dtype) {
    case "float32":
      return new Float32Array(buffer);
    case "bfloat16":
      return new Float32Array(Uint32Array.from(new Uint16Array(buffer), (bits) => bits << 16).buffer);
    case "float8_e4m3":
      return Float32Array.from(new Uint8Array(buffer), valueOfE4m3);
    case "int32":
      return Float32Array.from(new Int32Array(buffer));
    case "int64":
      return Float32Array.from(new BigInt64Array(buffer), Number);
    case "float64":
      return Float32Array.from(new Float64Array(buffer));
    case "uint8":
      return Float32Array.from(new Uint8Array(buffer));
  }
}

/** Sign, four bits of exponent (bias 7), three of mantissa; no infinity, all ones is NaN. */
function valueOfE4m3(code: number): number {
  const sign = code & 0x80 ? -1 : 1;
  const exponent = (code >> 3) & 15;
  const mantissa = code & 7;
  if (exponent === 15 && mantissa === 7) return Number.NaN;
  return sign * (exponent === 0 ? mantissa * 2 ** -9 : (1 + mantissa / 8) * 2 ** (exponent - 7));
}
