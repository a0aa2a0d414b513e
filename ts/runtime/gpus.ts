/**
 * The GPUs that there are, and which device a name means.
 * @module
 */

import { LongcatError } from "../errors.js";
import { loadAddon } from "./addon.js";
import type { NativeGpu } from "./binding.js";
import { translateErrors } from "./native-error.js";

/**
 * The GPUs that this build can use; none: why not, as a sentence.
 *
 * @throws LongcatError NATIVE_MISSING
 */
export function findGpus(): { devices: NativeGpu[]; reason: string | null } {
  return translateErrors(() => loadAddon().gpus());
}

/** What a device's name stands for on this machine. */
export type DeviceChoice = { kind: "cpu" } | { kind: "cuda"; gpu: NativeGpu };

/**
 * "auto": the first GPU, or the CPU where there is none; "cuda": the first GPU.
 *
 * @throws LongcatError DEVICE_UNAVAILABLE naming what was missing; NATIVE_MISSING
 */
export function chooseDevice(device: string): DeviceChoice {
  if (device === "cpu") return { kind: "cpu" };
  const { devices, reason } = findGpus();
  if (device === "auto") return devices[0] ? { kind: "cuda", gpu: devices[0] } : { kind: "cpu" };
  const ordinal = ordinalOf(device);
  const gpu = devices.find((candidate) => candidate.ordinal === ordinal);
  if (gpu) return { kind: "cuda", gpu };
  const why =
    devices.length === 0
      ? `${(reason ?? "no GPU was found").replace(/\.$/, "")}; give "cpu" or "auto"`
      : `there ${devices.length === 1 ? "is only one GPU" : `are only ${devices.length} GPUs`}; give ${devices.map((one) => `"cuda:${one.ordinal}"`).join(", ")} or "auto"`;
  throw new LongcatError("DEVICE_UNAVAILABLE", `device "${device}": ${why}`);
}

/** N of "cuda:N"; "cuda" is the first. */
export function ordinalOf(device: string): number {
  const number = /^cuda(?::(\d+))?$/.exec(device);
  if (!number) throw new LongcatError("DEVICE_UNAVAILABLE", `device "${device}" is none of auto, cpu, cuda, cuda:N`);
  return Number(number[1] ?? 0);
}
