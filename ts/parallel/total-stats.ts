/**
 * What all ranks do, from what each does.
 * @module
 */

import type { EngineStats, SpeculationStats } from "../engine/types.js";

/** The sums of the ranks' numbers, and each rank's own. */
export function totalStats(ranks: readonly EngineStats[]): EngineStats {
  const sum = (of: (stats: EngineStats) => number): number => total(ranks.map(of));
  return {
    runningSequences: sum(({ runningSequences }) => runningSequences),
    waitingSequences: sum(({ waitingSequences }) => waitingSequences),
    blocksInUse: sum(({ blocksInUse }) => blocksInUse),
    cachedBlocks: sum(({ cachedBlocks }) => cachedBlocks),
    numBlocks: sum(({ numBlocks }) => numBlocks),
    steps: sum(({ steps }) => steps),
    promptTokens: sum(({ promptTokens }) => promptTokens),
    generatedTokens: sum(({ generatedTokens }) => generatedTokens),
    prefixQueryTokens: sum(({ prefixQueryTokens }) => prefixQueryTokens),
    prefixHitTokens: sum(({ prefixHitTokens }) => prefixHitTokens),
    preemptions: sum(({ preemptions }) => preemptions),
    stepSeconds: sum(({ stepSeconds }) => stepSeconds),
    idleSeconds: sum(({ idleSeconds }) => idleSeconds),
    speculation: totalSpeculation(ranks.map(({ speculation }) => speculation)),
    ranks: [...ranks],
  };
}

/** What a rank did that does nothing any more. */
export function atRest(stats: EngineStats): EngineStats {
  return { ...stats, runningSequences: 0, waitingSequences: 0, blocksInUse: 0, cachedBlocks: 0 };
}

/** Counts are sums; what is done now is that of the rank which drafts most. */
function totalSpeculation(ranks: readonly SpeculationStats[]): SpeculationStats {
  const most = ranks.reduce((a, b) => (b.drafts > a.drafts ? b : a));
  const places = Math.max(...ranks.map(({ acceptedByPlace }) => acceptedByPlace.length));
  return {
    ...most,
    draftedSteps: total(ranks.map(({ draftedSteps }) => draftedSteps)),
    draftTokens: total(ranks.map(({ draftTokens }) => draftTokens)),
    acceptedTokens: total(ranks.map(({ acceptedTokens }) => acceptedTokens)),
    acceptedByPlace: Array.from({ length: places }, (_, i) => total(ranks.map(({ acceptedByPlace }) => acceptedByPlace[i] ?? 0))),
  };
}

function total(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}
