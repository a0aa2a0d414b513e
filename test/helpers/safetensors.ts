/**
 * Safetensors files read and written in plain TypeScript, independent of the native reader, which is itself under test.
 */
import { readFileSync, writeFileSync } from "node:fs";

/** A tensor of a safetensors file; `dtype` as the file writes it: "F32", "BF16", "F8_E4M3", "I32", … */
export interface FileTensor {
  dtype: string;
  shape: number[];
  data: Uint8Array;
}

/** All tensors of a file, in the header's order; bytes are copies. */
export function readSafetensors(path: string): Map<string, FileTensor> {
  const file = readFileSync(path);
  const length = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, 8 + length)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  const tensors = new Map<string, FileTensor>();
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const [begin, end] = entry.data_offsets;
    tensors.set(name, {
      dtype: entry.dtype,
      shape: entry.shape,
      data: Uint8Array.from(file.subarray(8 + length + begin, 8 + length + end)),
    });
  }
  return tensors;
}

/** Writes tensors one after another, in the map's order. */
export function writeSafetensors(path: string, tensors: ReadonlyMap<string, FileTensor>): void {
  const header: Record<string, unknown> = {};
  let offset = 0;
  for (const [name, { dtype, shape, data }] of tensors) {
    header[name] = { dtype, shape, data_offsets: [offset, offset + data.byteLength] };
    offset += data.byteLength;
  }
  writeFileSync(path, safetensorsBytes(JSON.stringify(header), ...[...tensors.values()].map((t) => t.data)));
}

/** A file with this header text (or bytes), right or wrong, and the length prefix that fits it. */
export function safetensorsBytes(header: string | Uint8Array, ...data: Uint8Array[]): Buffer {
  const bytes = typeof header === "string" ? Buffer.from(header) : header;
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(bytes.byteLength));
  return Buffer.concat([prefix, bytes, ...data]);
}

/** Values of an F32, BF16, I32 or F8_E4M3 tensor as numbers (FP8 codes without their scales). */
export function valuesOf(tensor: FileTensor): Float32Array | Int32Array {
  const bytes = tensor.data.slice();
  switch (tensor.dtype) {
    case "F32":
      return new Float32Array(bytes.buffer);
    case "I32":
      return new Int32Array(bytes.buffer);
    case "BF16": {
      const bits = new Uint32Array(new Uint16Array(bytes.buffer)).map((b) => b << 16);
      return new Float32Array(bits.buffer);
    }
    case "F8_E4M3":
      return Float32Array.from(bytes, valueOfE4m3);
    default:
      throw new Error(`valuesOf: ${tensor.dtype}`);
  }
}

/** An F32 tensor. */
export function float32Tensor(shape: number[], values: ArrayLike<number>): FileTensor {
  return { dtype: "F32", shape, data: new Uint8Array(Float32Array.from(values).buffer) };
}

function valueOfE4m3(code: number): number {
  const sign = code & 0x80 ? -1 : 1;
  const exponent = (code >> 3) & 15;
  const mantissa = code & 7;
  if (exponent === 15 && mantissa === 7) return NaN;
  return sign * (exponent === 0 ? mantissa * 2 ** -9 : (1 + mantissa / 8) * 2 ** (exponent - 7));
}
