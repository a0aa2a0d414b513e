/**
 * What the runtime's tests share: devices that close themselves, a small program of operations, the addon's path.
 * @module
 */

import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { onTestFinished } from "vitest";
import type { LongcatError } from "../../ts/errors.js";
import { Device, type DeviceOptions, type Queue, type Tensor } from "../../ts/runtime/device.js";
import { ops } from "../../ts/runtime/ops.js";

/** The package's folder. */
export const ROOT = fileURLToPath(new URL("../../", import.meta.url));

/** The addon that the tests run. */
export function addonPath(): string {
  const explicit = process.env["LONGCAT_NATIVE"];
  if (explicit) return explicit;
  const folder = join(ROOT, "build", "Release");
  const name = existsSync(folder) ? readdirSync(folder).find((file) => file.endsWith(".node")) : undefined;
  if (!name) throw new Error(`no addon in ${folder}: node scripts/build-native.mjs`);
  return join(folder, name);
}

/** A device that is closed when the test ends. */
export function openDevice(options: DeviceOptions = {}): Device {
  const device = Device.open({ threads: 2, ...options });
  onTestFinished(() => device.close());
  return device;
}

/** The instruction sets that the processor's bodies are compiled for. */
export const ISAS = ["plain", "avx2", "avx512"] as const;

/** Whether this processor has it; a processor that lacks it is refused by name. */
export function hasIsa(isa: (typeof ISAS)[number]): boolean {
  try {
    void Device.open({ threads: 1, isa }).close();
    return true;
  } catch (error) {
    const { code, message } = error as LongcatError;
    if (code === "DEVICE_UNAVAILABLE" && message.includes(isa)) return false;
    throw error;
  }
}

/** Numbers between −1 and 1, the same in every run. */
export function numbers(count: number, seed = 1): Float32Array {
  let state = seed;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
}

/** A tensor holding `data`. */
export function filled(device: Device, queue: Queue, shape: number[], data: Float32Array | Int32Array): Tensor {
  const tensor = device.tensor(data instanceof Int32Array ? "int32" : "float32", shape);
  queue.write(tensor, data);
  return tensor;
}

/** All numbers of a float32 tensor, as bits. */
export async function bits(queue: Queue, tensor: Tensor): Promise<Uint32Array> {
  const into = new Uint32Array(tensor.bytes / 4);
  await queue.read(tensor, into);
  return into;
}

/** A norm and a SwiGLU over `rows` rows, as a model has them: inputs, scratch and result at fixed addresses. */
export class SmallProgram {
  static readonly rows = 5;
  static readonly width = 96;
  static readonly ffn = 160;
  readonly x: Tensor;
  readonly rows: Tensor;
  readonly normed: Tensor;
  readonly hidden: Tensor;
  readonly out: Tensor;
  readonly #weights: { norm: Tensor; gate: Tensor; up: Tensor; down: Tensor };

  constructor(device: Device, queue: Queue) {
    const { rows, width, ffn } = SmallProgram;
    this.x = filled(device, queue, [rows, width], numbers(rows * width));
    this.rows = filled(device, queue, [1], Int32Array.of(rows));
    this.normed = device.tensor("float32", [rows, width]);
    this.hidden = device.tensor("float32", [rows, ffn]);
    this.out = device.tensor("float32", [rows, width]);
    this.#weights = {
      norm: filled(device, queue, [width], numbers(width, 2)),
      gate: filled(device, queue, [ffn, width], numbers(ffn * width, 3)),
      up: filled(device, queue, [ffn, width], numbers(ffn * width, 4)),
      down: filled(device, queue, [width, ffn], numbers(width * ffn, 5)),
    };
  }

  enqueue(queue: Queue): void {
    const { x, rows, normed, hidden, out } = this;
    const { norm, gate, up, down } = this.#weights;
    ops.rmsNorm(queue, { x, weight: norm, out: normed, rows, eps: 1e-5 });
    ops.swigluMlp(queue, { x: normed, gate, up, down, hidden, out, rows });
  }
}
