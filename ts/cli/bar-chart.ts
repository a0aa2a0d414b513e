/**
 * Times as bars in an SVG, each beside its floor.
 * @module
 */

const [NAMES, BARS, VALUES, LINE] = [300, 480, 120, 20];

/** One bar; `floorUs` null: there is none. */
export interface Bar {
  name: string;
  us: number;
  floorUs: number | null;
}

/** Blocks of bars, those of a block to one scale. */
export function barChart(title: string, blocks: readonly { title: string; bars: readonly Bar[] }[]): string {
  const parts: string[] = [];
  let y = 24;
  const text = (x: number, content: string, extra = "") => parts.push(`<text x="${x}" y="${y}"${extra}>${escaped(content)}</text>`);
  text(8, title, ' font-weight="bold"');
  for (const block of blocks) {
    y += 2 * LINE;
    text(8, block.title, ' font-weight="bold"');
    const longest = Math.max(...block.bars.flatMap(({ us, floorUs }) => [us, floorUs ?? 0]));
    const bar = (value: number, fill: string) => {
      const width = ((BARS * value) / longest).toFixed(1);
      parts.push(`<rect x="${NAMES}" y="${y - 12}" width="${width}" height="14" fill="${fill}"/>`);
    };
    for (const { name, us, floorUs } of block.bars) {
      y += LINE;
      text(8, name);
      bar(us, "#7aa6da");
      if (floorUs !== null) bar(floorUs, "#1f4e86");
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
