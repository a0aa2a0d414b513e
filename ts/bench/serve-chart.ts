/**
 * A load's latencies as an SVG: what share of requests, or of gaps between tokens, were at most so long.
 * @module
 */

import { gapsOf, type LoadReport, ttftOf } from "./serve-report.js";
import type { Measured } from "./serve-load.js";

const [WIDTH, HEIGHT, LEFT, TOP, GAP] = [420, 240, 60, 64, 70];
const MAX_POINTS = 400;

/** Two plots side by side: time to the first token, time between tokens. */
export function loadChart(title: string, requests: readonly Measured[], report: LoadReport): string {
  const ok = requests.filter(({ outcome }) => outcome === "ok");
  const parts = [
    text(LEFT, 24, title, 'font-weight="bold"'),
    ...plot(
      LEFT,
      "time to first token",
      ok.map(ttftOf).filter((ms) => ms !== undefined),
      report.limits.ttftMs,
    ),
    ...plot(LEFT + WIDTH + GAP, "time between tokens", ok.flatMap(gapsOf), report.limits.tpotMs),
  ];
  const [width, height] = [LEFT + 2 * WIDTH + GAP + 40, TOP + HEIGHT + 60];
  const style = 'font-family="sans-serif" font-size="13"';
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" ${style}>\n<rect width="${width}" height="${height}" fill="white"/>\n${parts.join("\n")}\n</svg>\n`;
}

/** One distribution with its limit and percentiles. */
function plot(left: number, name: string, values: readonly number[], limitMs: number): string[] {
  const sorted = [...values].sort((a, b) => a - b);
  const bottom = TOP + HEIGHT;
  const parts = [
    text(left, TOP - 12, `${name}, ms (${sorted.length})`),
    `<path d="M${left} ${TOP}V${bottom}H${left + WIDTH}" fill="none" stroke="#444"/>`,
    ...[0, 0.5, 0.95, 1].map((share) => text(left - 8, bottom - share * HEIGHT + 4, `${100 * share} %`, 'text-anchor="end"')),
  ];
  const most = sorted.at(-1);
  if (most === undefined || most <= 0) return [...parts, text(left + 12, TOP + 24, "nothing was measured")];
  const x = (ms: number) => (left + (WIDTH * ms) / most).toFixed(1);
  const points = Array.from(
    { length: Math.min(MAX_POINTS, sorted.length) },
    (_, i, { length } = { length: Math.min(MAX_POINTS, sorted.length) }) => {
      const rank = Math.ceil(((i + 1) / length) * sorted.length);
      return `${x(sorted[rank - 1] as number)} ${(bottom - (rank / sorted.length) * HEIGHT).toFixed(1)}`;
    },
  );
  parts.push(`<path d="M${left} ${bottom}L${points.join("L")}" fill="none" stroke="#1f4e86" stroke-width="2"/>`);
  parts.push(`<path d="M${left} ${bottom - 0.95 * HEIGHT}H${left + WIDTH}" stroke="#bbb" stroke-dasharray="4 4"/>`);
  for (const share of [0, 0.25, 0.5, 0.75, 1])
    parts.push(text(Number(x(share * most)), bottom + 18, digits(share * most), 'text-anchor="middle"'));
  if (limitMs < most) {
    parts.push(`<path d="M${x(limitMs)} ${TOP}V${bottom}" stroke="#b3261e" stroke-dasharray="4 4"/>`);
    parts.push(text(Number(x(limitMs)) + 4, bottom - 8, `limit ${digits(limitMs)}`, 'fill="#b3261e"'));
  }
  return parts;
}

const digits = (ms: number): string => ms.toFixed(ms < 10 ? 1 : 0);

function text(x: number, y: number, content: string, extra = ""): string {
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${extra}>${content.replaceAll("&", "&amp;").replaceAll("<", "&lt;")}</text>`;
}
