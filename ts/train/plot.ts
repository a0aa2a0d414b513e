/**
 * Lines and dots over two axes, as an SVG.
 * @module
 */

/** One series. Points whose y is not finite are left out. */
export interface Series {
  name: string;
  points: readonly (readonly [x: number, y: number])[];
  /** Dots in place of a line. */
  dots?: boolean;
}

/** A picture. */
export interface Plot {
  title: string;
  x: string;
  y: string;
  series: readonly Series[];
  /** Logarithmic axes. */
  logX?: boolean;
  logY?: boolean;
}

const [WIDTH, HEIGHT, LEFT, TOP] = [640, 320, 70, 56];
const MAX_POINTS = 640;
const COLOURS = ["#1f4e86", "#b3261e", "#3b7a3b", "#8a6d1d", "#6b3fa0", "#444"];

/** A scale from values to 0 … 1, and the values at its ends and middle. A linear one begins at 0 where nothing is below. */
function axis(values: readonly number[], logarithmic: boolean): { share: (value: number) => number; ticks: [number, number][] } {
  const to = logarithmic ? Math.log10 : (value: number) => value;
  const from = logarithmic ? (value: number) => 10 ** value : (value: number) => value;
  const places = values.filter((value) => Number.isFinite(to(value))).map(to);
  const least = places.reduce((a, b) => Math.min(a, b), logarithmic ? Number.POSITIVE_INFINITY : 0);
  const most = places.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const range = most > least ? most - least : 1;
  return { share: (value) => (to(value) - least) / range, ticks: [0, 0.5, 1].map((share) => [share, from(least + share * range)]) };
}

/** The picture as SVG text. */
export function plotSvg({ title, x, y, series, logX = false, logY = false }: Plot): string {
  const seen = series.map(({ points }) => points.filter((point) => point.every(Number.isFinite)));
  const across = axis(
    seen.flatMap((points) => points.map(([value]) => value)),
    logX,
  );
  const up = axis(
    seen.flatMap((points) => points.map(([, value]) => value)),
    logY,
  );
  const left = (value: number) => (LEFT + WIDTH * across.share(value)).toFixed(1);
  const down = (value: number) => (TOP + HEIGHT * (1 - up.share(value))).toFixed(1);
  const bottom = TOP + HEIGHT;
  const parts = [
    text(LEFT, 20, title, 'font-weight="bold"'),
    text(LEFT, 44, y),
    text(LEFT + WIDTH, bottom + 36, x, 'text-anchor="end"'),
    `<path d="M${LEFT} ${TOP}V${bottom}H${LEFT + WIDTH}" fill="none" stroke="#444"/>`,
    ...up.ticks.map(([share, value]) => text(LEFT - 8, bottom - HEIGHT * share + 4, digits(value), 'text-anchor="end"')),
    ...across.ticks.map(([share, value]) => text(LEFT + WIDTH * share, bottom + 18, digits(value), 'text-anchor="middle"')),
  ];
  series.forEach(({ name, dots = false }, i) => {
    const colour = COLOURS[i % COLOURS.length]!;
    const every = Math.ceil(seen[i]!.length / MAX_POINTS);
    const places = seen[i]!.filter((_, p) => p % every === 0).map(([a, b]) => [left(a), down(b)] as const);
    if (dots) parts.push(...places.map(([a, b]) => `<circle cx="${a}" cy="${b}" r="3" fill="${colour}"/>`));
    else if (places.length > 0)
      parts.push(`<path d="M${places.map((place) => place.join(" ")).join("L")}" fill="none" stroke="${colour}"/>`);
    parts.push(text(LEFT + WIDTH + 16, TOP + 20 * i + 12, name, `fill="${colour}"`));
  });
  const style = 'font-family="sans-serif" font-size="13"';
  const [width, height] = [LEFT + WIDTH + 220, bottom + 48];
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" ${style}>\n<rect width="${width}" height="${height}" fill="white"/>\n${parts.join("\n")}\n</svg>\n`;
}

function digits(value: number): string {
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(1) : String(Number(value.toPrecision(3)));
}

function text(x: number, y: number, content: string, extra = ""): string {
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${extra}>${content.replaceAll("&", "&amp;").replaceAll("<", "&lt;")}</text>`;
}
