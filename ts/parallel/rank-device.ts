/**
 * A rank's part of its host: which GPU, or how many threads.
 * @module
 */

import { LongcatError } from "../errors.js";
import { loadAddon } from "../runtime/addon.js";
import { findGpus, type FoundGpus } from "../runtime/gpus.js";
import type { PlainOptions } from "./messages.js";
import type { RankPlace } from "./rank-process.js";

/** What a host has. */
export interface HostFacts {
  gpus: FoundGpus;
  threads: number;
}

export function hostFacts(): HostFacts {
  return { gpus: findGpus(), threads: loadAddon().availableThreads() };
}

/**
 * The device that a rank takes: the GPU whose number is the rank's among those of its host, or, where a launcher shows each process GPUs of its
 * own, its number among the ranks of its process. On the CPU all threads are shared out.
 *
 * @throws LongcatError DEVICE_UNAVAILABLE: there are fewer GPUs than ranks
 */
export function deviceOfRank(
  { device, threads }: Pick<PlainOptions, "device" | "threads">,
  { localRank, localRanks, ownRank, ownRanks }: Pick<RankPlace, "localRank" | "localRanks" | "ownRank" | "ownRanks">,
  host: HostFacts,
): Pick<PlainOptions, "device" | "threads"> {
  const { devices, reason } = host.gpus;
  if (device === "cpu" || (device === "auto" && devices.length === 0)) {
    const share = Math.max(1, Math.floor(host.threads / localRanks));
    return { device: "cpu", threads: threads === "auto" ? share : threads };
  }
  const number = devices.length >= localRanks ? localRank : ownRank;
  const gpu = devices.length >= localRanks || devices.length >= ownRanks ? devices[number] : undefined;
  if (gpu !== undefined) return { device: `cuda:${gpu.ordinal}`, threads };
  const there = devices.length === 1 ? "1 GPU" : `${devices.length} GPUs`;
  throw new LongcatError(
    "DEVICE_UNAVAILABLE",
    `device "${device}": ${localRanks} ranks on this host need a GPU each, and it has ${there} that can be used${reason ? ` (${reason.replace(/\.$/, "")})` : ""}`,
  );
}
