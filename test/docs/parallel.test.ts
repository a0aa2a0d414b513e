/** The tables of docs/parallel.md are what `longcat inspect estimate --shape flash --ranks` works out. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { inspect } from "../../ts/index.js";

const PAGE = readFileSync(new URL("../../docs/parallel.md", import.meta.url), "utf8");

/** Ranks, matrices, sequences of a rank. */
const LINES = [8, 32, 128].flatMap((ranks) =>
  (ranks === 8 ? (["fp8"] as const) : (["fp8", "bfloat16"] as const)).flatMap((dtype) =>
    [8, 32, 96].map((batch) => ({ ranks, dtype, batch })),
  ),
);

const ESTIMATES = await Promise.all(
  LINES.map(async ({ ranks, dtype, batch }) => {
    const sizes = { shape: "flash", device: "cuda", speculative: "off", maxBatchTokens: 512, context: 5000 } as const;
    const { parallel, ...memory } = await inspect.estimate(null, { ...sizes, dtype, batch, parallel: { expert: ranks } });
    return { memory, ...parallel!, step: parallel!.step!, head: [`${ranks}`, dtype, `${batch}`] };
  }),
);

/** A table as Markdown; all columns but the first two are numbers. */
function table(head: string[], rows: string[][]): string {
  const rule = head.map((_, i) => (i === 1 ? "---" : "---:"));
  return [head, rule, ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}

/** What stands between a table's marks. */
function between(name: string): string {
  const [, text] = new RegExp(`<!-- ${name}: [^\\n]*-->\\n([\\s\\S]*?)\\n?<!-- end -->`).exec(PAGE) ?? [];
  return text ?? "";
}

const count = (value: number) => Math.round(value).toLocaleString("en-US");

describe("docs/parallel.md", () => {
  it("memory", () => {
    const gib = (bytes: number) => (bytes / 1024 ** 3).toFixed(1);
    const rows = ESTIMATES.map(({ head, memory, expertsHeld }) => {
      const { totalBytes, cacheBytes, scratchBytes, windowBytes, stateBytes } = memory;
      const rest = stateBytes + scratchBytes + windowBytes;
      return [...head, `${expertsHeld}`, ...[totalBytes - cacheBytes - rest, cacheBytes, rest, totalBytes].map(gib)];
    });
    const head = ["ranks", "matrices", "sequences", "experts held", "weights", "cache", "scratch, window", "in all"];
    expect(between("memory")).toBe(table(head, rows));
  });

  it("time", () => {
    const rows = ESTIMATES.map(({ head, exchange, step }) => {
      const { layer } = step;
      const us = (time: number) => time.toFixed(0);
      return [
        ...[...head, (exchange.hostRows + exchange.networkRows).toFixed(0)],
        ...[us(layer.firstUs), `${us(layer.secondUs)} (${us(layer.dispatchUs)})`, us(layer.expertsUs)],
        ...[`${us(layer.fourthUs)} (${us(layer.combineUs)})`, us(layer.exposedUs), us(layer.layerUs)],
        ...[step.stepMs.toFixed(1), step.tokensPerSecond.toFixed(1), count(step.rankTokensPerSecond), count(step.allTokensPerSecond)],
      ];
    });
    const head = ["ranks", "matrices", "sequences", "rows sent", "stage 1", "2 (dispatch)", "3", "4 (combine)", "exposed", "layer"];
    expect(between("time")).toBe(table([...head, "step, ms", "tokens/s, sequence", "rank", "all"], rows));
  });
});
