/**
 * The times of a layer's operations as bars in an SVG, each beside its floor.
 * @module
 */

import type { LayerResult } from "../engine/bench-layer.js";

const [NAMES, BARS, VALUES, LINE] = [300, 480, 120, 20];

/** One block of bars a step. */
export function layerChart(title: string, results: readonly LayerResult[]): string {
  const parts: string[] = [];
  let y = 24;
  const text = (x: number, content: string, extra = "") => parts.push(`<text x="${x}" y="${y}"${extra}>${escaped(content)}</text>`);
  text(8, title, ' font-weight="bold"');
  for (const r of results) {
    y += 2 * LINE;
    text(8, r.kind === "decode" ? `decode, batch ${r.batch}, context ${r.context}` : `prompt of ${r.rows} tokens`, ' font-weight="bold"');
    const bars = [
      ...r.operations.map(({ op, part, us, floorUs }) => ({ name: `${op}, ${part}`, us, floorUs })),
      { name: "whole, one branch after the other", us: r.serialUs, floorUs: r.floorUs },
      { name: "whole, both branches at once", us: r.overlapUs, floorUs: r.floorUs },
    ];
    const longest = Math.max(...bars.flatMap(({ us, floorUs }) => [us, floorUs]));
    for (const { name, us, floorUs } of bars) {
      y += LINE;
      text(8, name);
      const width = (value: number) => ((BARS * value) / longest).toFixed(1);
      parts.push(`<rect x="${NAMES}" y="${y - 12}" width="${width(us)}" height="14" fill="#7aa6da"/>`);
      parts.push(`<rect x="${NAMES}" y="${y - 12}" width="${width(floorUs)}" height="14" fill="#1f4e86"/>`);
      text(NAMES + BARS + 8, `${us.toFixed(1)} µs`);
    }
  }
  y += LINE;
  text(NAMES, "dark: the floor");
  const [width, height] = [NAMES + BARS + VALUES, y + LINE];
  const style = 'font-family="sans-serif" font-size="13"';
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" ${style}>\n<rect width="${width}" height="${height}" fill="white"/>\n${parts.join("\n")}\n</svg>\n`;
}

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}
