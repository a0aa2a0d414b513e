/**
 * The times of a layer's operations as bars, each beside its floor.
 * @module
 */

import type { LayerResult } from "../engine/bench-layer.js";
import { barChart } from "./bar-chart.js";

/** One block of bars a step. */
export function layerChart(title: string, results: readonly LayerResult[]): string {
  const blocks = results.map((r) => ({
    title: r.kind === "decode" ? `decode, batch ${r.batch}, context ${r.context}` : `prompt of ${r.rows} tokens`,
    bars: [
      ...r.operations.map(({ op, part, us, floorUs }) => ({ name: `${op}, ${part}`, us, floorUs })),
      ...(r.exchange ? [{ name: "exchange alone", us: r.exchange.us, floorUs: null }] : []),
      { name: "whole, one branch after the other", us: r.serialUs, floorUs: r.floorUs },
      { name: "whole, both branches at once", us: r.overlapUs, floorUs: r.floorUs },
    ],
  }));
  return barChart(title, blocks);
}
