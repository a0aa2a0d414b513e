/**
 * A process whose ranks belong to a group that another process leads.
 * @module
 */

import { onAbort } from "../engine/abort.js";
import type { EngineInfo } from "../engine/types.js";
import { LongcatError } from "../errors.js";
import type { GroupMember, GroupOptions } from "./group.js";
import { rankName } from "./names.js";
import { rankPlaces } from "./rank-places.js";
import { RankProcess } from "./rank-process.js";
import { fromWire } from "./wire-error.js";

/**
 * Starts this process's ranks and waits until the group serves. All else, options included, is the leader's to say.
 *
 * @throws LongcatError COMM_ERROR: there is no leader, or a rank was lost; what the ranks' loads throw; ABORTED if `options.signal` fired
 */
export async function joinGroup(options: GroupOptions): Promise<GroupMember> {
  const { place } = options;
  if (place === undefined) throw new LongcatError("INTERNAL", "a process that was started alone leads its group");
  const { signal } = options.options;
  signal?.throwIfAborted();
  const { address, port, token } = place;
  const places = rankPlaces(options, { address, port });
  const first = places[0]!;
  const ready: Promise<EngineInfo>[] = [];
  const ended: Promise<LongcatError | undefined>[] = [];
  const processes = places.map((own) => {
    let told: LongcatError | undefined;
    let process!: RankProcess;
    ready.push(
      new Promise((resolve) => {
        process = new RankProcess(own, token, (message) => {
          if (message.type === "ready") resolve(message.info);
          else told = fromWire(message.error);
        });
      }),
    );
    const lost = (how: string): LongcatError => told ?? new LongcatError("COMM_ERROR", `${rankName(own.rank, own.ranks)} is lost: ${how}`);
    ended.push(process.ended.then(({ how, orderly }) => (orderly ? undefined : lost(how))));
    return process;
  });
  const close = async (): Promise<void> => {
    await Promise.all(processes.map((process) => process.end()));
  };
  /** One that fails takes the others with it; those that end in good order do so together. */
  const end = Promise.race(ended).then(async (error) => {
    if (error !== undefined) await close();
    return error;
  });
  let stopListening = (): void => undefined;
  const aborted = new Promise<never>((_, reject) => {
    stopListening = onAbort(signal, () => reject(new LongcatError("ABORTED", "the load was aborted", { cause: signal?.reason })));
  });
  try {
    const early = end.then((error) => Promise.reject(error ?? new LongcatError("COMM_ERROR", "the leader closed the group")));
    const [info] = await Promise.race([Promise.all(ready), early, aborted]);
    return { rank: first.rank, ranks: first.ranks, info: info!, ended: end, close };
  } catch (error) {
    await close();
    throw error;
  } finally {
    stopListening();
  }
}
