/**
 * Writes a safetensors file whose tensors' sizes are known before their bytes: the header first, then each tensor at its place.
 * @module
 */

import { closeSync, openSync, writeSync } from "node:fs";

/** A tensor to be written. `dtype` as the format names it: "F32". */
export interface PlannedTensor {
  name: string;
  dtype: string;
  shape: readonly number[];
  bytes: number;
}

const ELEMENT_BYTES: Record<string, number> = { F64: 8, I64: 8, U64: 8, C64: 8, F32: 4, I32: 4, U32: 4, F16: 2, BF16: 2, I16: 2, U16: 2 };

/** The order that the format's own library writes, which keeps every tensor aligned: wide elements first, then by name. */
export function byAlignment(a: PlannedTensor, b: PlannedTensor): number {
  const wide = (t: PlannedTensor) => ELEMENT_BYTES[t.dtype] ?? 1;
  return wide(b) - wide(a) || (a.name < b.name ? -1 : 1);
}

/** One file under writing. */
export class SafetensorsWriter {
  readonly #fd: number;
  readonly #begins = new Map<string, number>();
  readonly #sizes = new Map<string, number>();

  /** Creates the file (which must not be there) and writes its header. */
  constructor(path: string, tensors: readonly PlannedTensor[]) {
    const header: Record<string, unknown> = { __metadata__: { format: "pt" } };
    let offset = 0;
    const ordered = [...tensors].sort(byAlignment);
    for (const { name, dtype, shape, bytes } of ordered) {
      header[name] = { dtype, shape, data_offsets: [offset, offset + bytes] };
      this.#begins.set(name, offset);
      this.#sizes.set(name, bytes);
      offset += bytes;
    }
    const text = Buffer.from(JSON.stringify(header));
    const padded = Buffer.alloc(8 + Math.ceil(text.byteLength / 8) * 8, 0x20);
    padded.writeBigUInt64LE(BigInt(padded.byteLength - 8));
    text.copy(padded, 8);
    for (const [name, begin] of this.#begins) this.#begins.set(name, begin + padded.byteLength);
    this.#fd = openSync(path, "wx");
    writeAll(this.#fd, padded, 0);
  }

  /** Writes a part of a tensor, `at` bytes behind its begin. */
  write(name: string, data: ArrayBufferView, at = 0): void {
    const begin = this.#begins.get(name);
    const size = this.#sizes.get(name);
    if (begin === undefined || size === undefined || at + data.byteLength > size)
      throw new RangeError(`write: ${name} [${at}, ${at + data.byteLength})`);
    writeAll(this.#fd, data, begin + at);
  }

  close(): void {
    closeSync(this.#fd);
  }
}

function writeAll(fd: number, data: ArrayBufferView, position: number): void {
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  for (let done = 0; done < bytes.byteLength; ) done += writeSync(fd, bytes, done, bytes.byteLength - done, position + done);
}
