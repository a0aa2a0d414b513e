/**
 * The GPUs that there are, and which device a name means.
 * @module
 */

import { LongcatError } from "../errors.js";
import { loadAddon } from "./addon.js";
import type { NativeGpu } from "./binding.js";
import { translateErrors } from "./native-error.js";

/** The GPUs that this build can use, and a sentence about what keeps it from using others, or any. */
export interface FoundGpus {
  devices: NativeGpu[];
  reason: string | null;
}

/**
 * Looks for GPUs.
 *
 * @throws LongcatError NATIVE_MISSING
 */
export function findGpus(): FoundGpus {
  return translateErrors(() => loadAddon().gpus());
}

/** What a device's name stands for on this machine. */
export type DeviceChoice = { kind: "cpu" } | { kind: "cuda"; gpu: NativeGpu };

/**
 * "auto": the first GPU that can be used, or the CPU where there is none; "cuda": the first GPU that can be used.
 *
 * @throws LongcatError DEVICE_UNAVAILABLE naming what was missing; NATIVE_MISSING
 */
export function chooseDevice(device: string, find: () => FoundGpus = findGpus): DeviceChoice {
  if (device === "cpu") return { kind: "cpu" };
  const found = find();
  if (device === "auto") return found.devices[0] ? { kind: "cuda", gpu: found.devices[0] } : { kind: "cpu" };
  const gpu = gpuNamed(device, found.devices);
  if (gpu) return { kind: "cuda", gpu };
  throw new LongcatError("DEVICE_UNAVAILABLE", `device "${device}": ${whyNot(found)}`);
}

/** The GPU that "cuda" or "cuda:N" means; undefined where it is not among `devices`. */
export function gpuNamed(device: string, devices: readonly NativeGpu[]): NativeGpu | undefined {
  const number = /^cuda(?::(\d+))?$/.exec(device);
  if (!number) throw new LongcatError("DEVICE_UNAVAILABLE", `device "${device}" is none of auto, cpu, cuda, cuda:N`);
  return number[1] === undefined ? devices[0] : devices.find(({ ordinal }) => ordinal === Number(number[1]));
}

function whyNot({ devices, reason }: FoundGpus): string {
  const why = reason?.replace(/\.$/, "");
  if (devices.length === 0) return `${why ?? "no GPU was found"}; give "cpu" or "auto"`;
  const there = devices.length === 1 ? "there is only one GPU" : `there are only ${devices.length} GPUs`;
  const names = devices.map(({ ordinal }) => `"cuda:${ordinal}"`).join(", ");
  return `${there}${why === undefined ? "" : ` that can be used (${why})`}; give ${names} or "auto"`;
}

/** What of the options of a device changes nothing there, one sentence each: nothing is ignored silently. */
export function withoutEffect(choice: DeviceChoice, options: { threads?: number | "auto"; batchInvariant?: boolean }): string[] {
  const { threads = "auto", batchInvariant = true } = options;
  if (choice.kind === "cpu")
    return batchInvariant ? [] : ["batchInvariant: false has no effect on the CPU: its bits are the same in any batch"];
  return threads === "auto"
    ? []
    : [`threads: ${threads} has no effect on cuda:${choice.gpu.ordinal}: only the CPU's operations use threads`];
}
