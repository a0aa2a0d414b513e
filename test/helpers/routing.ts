/** What tokens of texts choose, as a trace sees it and as it is read from steps of any size. */
import { routeTexts } from "../../ts/model/routing.js";
import type { Runner } from "../../ts/model/runner.js";
import { trace } from "../../ts/model/trace.js";
import { prompt } from "./runs.js";

/** Ids that all checkpoints of the repository have. One text is longer than small steps, one as short as can be. */
export const ROUTED_TEXTS = [prompt(7, 1), prompt(20, 2), prompt(130, 3), prompt(1, 4), prompt(33, 5)].map((ids) =>
  ids.map((id) => id % 90),
);

/** [L][tokens of all texts · K], text by text. */
export async function tracedPicks(runner: Runner): Promise<number[][]> {
  const layers: number[][] = Array.from({ length: runner.limits.numLayers }, () => []);
  for (const text of ROUTED_TEXTS) for (const [l, { ids }] of (await trace(runner, text)).routing.entries()) layers[l]!.push(...ids);
  return layers;
}

/** The same from steps that hold several texts, or parts of one. */
export async function routedPicks(runner: Runner): Promise<number[][]> {
  const { numLayers, topK } = runner.limits;
  const layers: number[][] = Array.from({ length: numLayers }, () => []);
  for await (const { rows, ids } of routeTexts(runner, ROUTED_TEXTS))
    for (const [l, layer] of layers.entries()) layer.push(...ids.subarray(l * rows * topK, (l + 1) * rows * topK));
  return layers;
}
