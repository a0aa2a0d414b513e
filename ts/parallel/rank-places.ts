/**
 * Which ranks a process starts, and where the leader is.
 * @module
 */

import { LongcatError } from "../errors.js";
import type { GroupOptions } from "./group.js";
import { isOneHost, type LauncherPlace } from "./launcher.js";
import type { RankPlace } from "./rank-process.js";

/** How long ranks may take to find each other: processes of one host; and of several, which have images to fetch and wait for places. */
const JOIN_MS = { oneHost: 60_000, hosts: 600_000 };

/** A process that was started alone has all ranks. */
const ALONE: Pick<LauncherPlace, "index" | "processes" | "localIndex" | "localProcesses"> = {
  index: 0,
  processes: 1,
  localIndex: 0,
  localProcesses: 1,
};

/**
 * The ranks of this process, whose leader listens there.
 *
 * @throws LongcatError OPTION_INVALID: the ranks cannot be shared out among the processes that a launcher started
 */
export function rankPlaces(
  { options, place }: Pick<GroupOptions, "options" | "place">,
  leader: Pick<RankPlace, "address" | "port">,
): RankPlace[] {
  const ranks = options.parallel.expert;
  const { index, processes, localIndex, localProcesses } = place ?? ALONE;
  if (ranks % processes !== 0)
    throw new LongcatError(
      "OPTION_INVALID",
      `parallel.expert: ${ranks} ranks cannot be shared out among the ${processes} processes that ${place?.launcher} started; give a multiple of ${processes}`,
    );
  const ownRanks = ranks / processes;
  return Array.from({ length: ownRanks }, (_, i) => ({
    ...{ rank: index * ownRanks + i, ranks },
    ...{ localRank: localIndex * ownRanks + i, localRanks: localProcesses * ownRanks },
    ...{ ownRank: i, ownRanks },
    ...leader,
    connectMs: joinMs({ options, place }),
  }));
}

/** How long ranks may take to connect. */
export function joinMs({ options, place }: Pick<GroupOptions, "options" | "place">): number {
  const { joinTimeoutMs } = options.parallel;
  if (joinTimeoutMs !== "auto") return joinTimeoutMs;
  return isOneHost(place) ? JOIN_MS.oneHost : JOIN_MS.hosts;
}
