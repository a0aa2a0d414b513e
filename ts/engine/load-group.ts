/**
 * From a checkpoint folder to an engine over several ranks. This process reads the checkpoint's config and tokenizer and no weight; it opens no device.
 * @module
 */

import { LongcatError } from "../errors.js";
import { readModelConfig } from "../model/checkpoint.js";
import { expertRange } from "../model/exchange.js";
import { FollowerCore } from "../parallel/follower-core.js";
import { GroupCore } from "../parallel/group-core.js";
import { type GroupOptions, joinGroup, launcherPlace, type RankFacts, startGroup } from "../parallel/group.js";
import type { EngineOverCore } from "./engine.js";
import type { ResolvedOptions } from "./options.js";
import { loadTextTools } from "./text-tools.js";
import type { EngineInfo } from "./types.js";

/** Whether a launcher started this process beside that of rank 0, which answers all calls. */
export function follows({ parallel }: ResolvedOptions): boolean {
  return parallel.expert > 1 && (launcherPlace()?.index ?? 0) > 0;
}

/** Starts the ranks of this process, and leads the group or follows whoever does. */
export async function loadGroup(directory: string, options: ResolvedOptions): Promise<EngineOverCore> {
  expertRange(readModelConfig(directory), { rank: 0, ranks: options.parallel.expert });
  const group: GroupOptions = { directory, options, place: launcherPlace() };
  try {
    options.signal?.throwIfAborted();
    return await (follows(options) ? follow(group) : lead(group));
  } catch (error) {
    if (options.signal?.aborted) throw new LongcatError("ABORTED", "the load was aborted", { cause: options.signal.reason });
    throw error;
  }
}

async function lead(options: GroupOptions): Promise<EngineOverCore> {
  const group = await startGroup(options);
  try {
    const { info, modelContext, defaults } = group.ranks[0] as RankFacts;
    const text = await loadTextTools(options.directory, info.vocabularySize);
    return {
      core: new GroupCore(group),
      ...(text && { text }),
      info: infoOf(options.directory, group.ranks),
      modelContext,
      defaults,
      close: async () => {
        text?.close();
        await group.close();
      },
    };
  } catch (error) {
    await group.close();
    throw error;
  }
}

async function follow(options: GroupOptions): Promise<EngineOverCore> {
  const member = await joinGroup(options);
  const { info } = member;
  return { core: new FollowerCore(member), info, modelContext: info.contextLength, defaults: {}, close: () => member.close() };
}

/** What the ranks are together. They are alike but for their memory. */
function infoOf(directory: string, ranks: readonly RankFacts[]): EngineInfo {
  const { info } = ranks[0] as RankFacts;
  const all = ranks.map(({ limits }) => limits);
  const sum = (of: (limits: RankFacts["limits"]) => number): number => all.reduce((total, limits) => total + of(limits), 0);
  return {
    ...info,
    directory,
    contextLength: Math.min(...all.map(({ contextLength }) => contextLength)),
    maxSequences: sum(({ maxSequences }) => maxSequences),
    cache: { ...info.cache, numBlocks: sum(({ numBlocks }) => numBlocks) },
  };
}
