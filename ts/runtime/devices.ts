/**
 * The devices of this machine, as users see them.
 * @module
 */

import { cpus, totalmem } from "node:os";
import { availableMemoryBytes, loadAddon } from "./addon.js";
import type { NativeGpu } from "./binding.js";
import { Device } from "./device.js";
import { findGpus } from "./gpus.js";

/** A device that a model can run on. */
export interface DeviceInfo {
  /** What `device` of the engine's options takes: "cpu", "cuda:0". */
  name: string;
  kind: "cpu" | "cuda";
  /** The processor's or the GPU's own name. */
  description: string;
  /** CPU: threads within affinity and container quota. */
  threads?: number;
  /** CPU: the instruction set in use, "plain", "avx2" or "avx512". */
  isa?: string;
  /** GPU: compute capability, such as "9.0". */
  capability?: string;
  /** GPU: streaming multiprocessors. */
  multiprocessors?: number;
  /** Bytes of memory of the machine, or of the GPU. */
  memoryBytes: number;
  /** Bytes of it that could be allocated now. */
  freeBytes: number;
}

/**
 * The GPUs of this machine that this build can use; empty where there is none, and {@link diagnose} says what is missing. The processor,
 * which every machine has, is `inspect.processor()`.
 *
 * @throws LongcatError NATIVE_MISSING
 * @example
 * for (const { name, description, memoryBytes } of await listDevices()) console.log(name, description, memoryBytes);
 */
export async function listDevices(): Promise<DeviceInfo[]> {
  return findGpus().devices.map(describeGpu);
}

/**
 * This machine's processor as a device: "cpu".
 *
 * @throws LongcatError NATIVE_MISSING, DEVICE_UNAVAILABLE
 */
export async function describeProcessor(): Promise<DeviceInfo> {
  // Opened rather than asked for its numbers: what is listed here works. One thread does to show that.
  const device = Device.open({ device: "cpu", threads: 1 });
  const { isa } = device;
  await device.close();
  const threads = loadAddon().availableThreads();
  const description = cpus()[0]?.model.trim() ?? process.arch;
  const memory = { memoryBytes: totalmem(), freeBytes: availableMemoryBytes() };
  return { name: "cpu", kind: "cpu", description, threads, isa, ...memory };
}

function describeGpu({ ordinal, name, capability, multiprocessors, memoryBytes, freeBytes }: NativeGpu): DeviceInfo {
  return { name: `cuda:${ordinal}`, kind: "cuda", description: name, capability, multiprocessors, memoryBytes, freeBytes };
}
