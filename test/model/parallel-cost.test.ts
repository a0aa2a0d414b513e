/** Expert parallelism on paper: expected rows, bytes, stages; and that the measured parts are those of docs/performance.md. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import {
  ATTENTION,
  type Curve,
  HEAD,
  INFINIBAND_ASSUMED,
  isMeasured,
  NORM,
  NVLINK_FLOOR,
  NVLINK_NCCL,
  onCurve,
  onSurface,
  ROUTER,
  ROW_PARTS,
  SAMPLE,
  WINDOW_EXCHANGE,
} from "../../ts/model/measured-parts.js";
import { chanceOfRank, type DecodeLoad, exchangeCost, exchangeUs, layerStages, stepTime } from "../../ts/model/parallel-cost.js";
import { shapeConfig } from "../../ts/model/shapes.js";

const flash = shapeConfig("flash");
const PAGE = readFileSync(new URL("../../docs/performance.md", import.meta.url), "utf8");

describe("routing", () => {
  /** Every choice of `topK` of N + Z, counted. */
  function counted(experts: number, zero: number, topK: number, held: number): number {
    let [hits, all] = [0, 0];
    const choices = experts + zero;
    for (let bits = 0; bits < 1 << choices; bits++) {
      const chosen = Array.from({ length: choices }, (_, i) => i).filter((i) => bits & (1 << i));
      if (chosen.length !== topK) continue;
      all++;
      if (chosen.some((e) => e < held)) hits++;
    }
    return hits / all;
  }

  it.each([
    { numExperts: 4, numZeroExperts: 2, topK: 3, ranks: 2 },
    { numExperts: 6, numZeroExperts: 4, topK: 4, ranks: 3 },
    { numExperts: 4, numZeroExperts: 0, topK: 4, ranks: 4 },
  ])("a row's chance to meet a rank is that of counting: %j", ({ ranks, ...sizes }) => {
    const held = sizes.numExperts / ranks;
    expect(chanceOfRank(sizes, ranks)).toBeCloseTo(counted(sizes.numExperts, sizes.numZeroExperts, sizes.topK, held), 12);
  });

  it("with one expert a rank, a row meets as many ranks as it has experts: 8 of 12 choices of LongCat-Flash", () => {
    expect(512 * chanceOfRank(flash, 512)).toBeCloseTo(8, 10);
  });
});

describe("an exchange", () => {
  const shape = { ranks: 8, rows: 100, activationBytes: 2, fp8: false };

  it("moves nothing with one rank, and takes no time", () => {
    const alone = exchangeCost(flash, { ...shape, ranks: 1 });
    expect(alone).toMatchObject({ hostRows: 0, networkRows: 0, dispatchBytes: 0, combineBytes: 0 });
    expect(exchangeUs(alone, alone.dispatchRowBytes, { host: NVLINK_FLOOR, network: NVLINK_FLOOR })).toBe(0);
  });

  it("sends each row once to each rank that holds one of its experts, with its experts' places and weights", () => {
    const cost = exchangeCost(flash, shape);
    expect(cost.hostRows).toBeCloseTo(7 * 100 * chanceOfRank(flash, 8), 9);
    expect(cost.networkRows).toBe(0);
    expect([cost.dispatchRowBytes, cost.combineRowBytes]).toEqual([2 * 6144 + 12 * 8, 2 * 6144]);
    expect(cost.dispatchBytes).toBeCloseTo(cost.hostRows * cost.dispatchRowBytes, 6);
  });

  it("as FP8: codes and a scale for each 128 of them", () => {
    expect(exchangeCost(flash, { ...shape, fp8: true }).dispatchRowBytes).toBe(6144 + 4 * 48 + 12 * 8);
    expect(exchangeCost(flash, { ...shape, ranks: 128, fp8: true }).dispatchRowBytes).toBe(6144 + 4 * 48 + 4 * 8);
  });

  it("beyond a host goes over the network, at the same time as within", () => {
    const cost = exchangeCost(flash, { ...shape, ranks: 32 });
    expect(cost.networkRows / cost.hostRows).toBeCloseTo(24 / 7, 9);
    const links = { host: NVLINK_FLOOR, network: INFINIBAND_ASSUMED };
    expect(exchangeUs(cost, 1000, links)).toBeCloseTo(20 + (cost.networkRows * 1000) / 40e3, 6);
  });
});

describe("a layer", () => {
  const load: DecodeLoad = { ranks: 32, rows: 64, context: 5000, dtype: "bfloat16", fp8: false };

  it("hides an exchange under the dense branch, and exposes what lasts longer", () => {
    const still = layerStages(flash, load, 0, 0);
    const { firstUs, secondUs, expertsUs, fourthUs } = still;
    expect(still.layerUs).toBeCloseTo(firstUs + secondUs + expertsUs + fourthUs, 9);
    expect(layerStages(flash, load, secondUs, fourthUs)).toMatchObject({ exposedUs: 0, layerUs: still.layerUs });
    const slow = layerStages(flash, load, secondUs + 5, fourthUs + 7);
    expect(slow.exposedUs).toBeCloseTo(12, 9);
    expect(slow.layerUs).toBeCloseTo(still.layerUs + 12, 9);
  });

  it("as one rank of 128 is what was measured, within 3 %: 711 µs, both branches at once", () => {
    const measured = Number(/\*\*whole, both branches at once\*\* \| (711\.\d+)/.exec(PAGE)![1]);
    // Eight sequences of 5001 tokens; 6 rows for each of 4 experts are 48 tokens of all ranks.
    const rank = { ranks: 128, rows: 8, context: 5001, dtype: "bfloat16" as const, fp8: false };
    const stages = layerStages(flash, rank, 0, 0);
    const others = stages.layerUs - stages.expertsUs;
    expect(Math.abs(others + onSurface(ROW_PARTS.bfloat16.experts, 4, 6) - measured) / measured).toBeLessThan(0.03);
  });

  it("reads fewer experts where there are fewer rows than experts", () => {
    // 32 tokens' picks are half a row an expert: so many of 16 experts have one, against those that do with a row each.
    const touched = (1 - Math.exp(-1 / 2)) / (1 - Math.exp(-1));
    const few = layerStages(flash, { ...load, rows: 1 }, 0, 0).expertsUs;
    expect(few).toBeCloseTo(touched * onSurface(ROW_PARTS.bfloat16.experts, 16, 1), 9);
  });
});

it("a step's exchange takes what ours was measured at within a host, and what NCCL takes beyond it or where it is asked for", () => {
  const load = { ranks: 8, rows: 96, context: 5000, dtype: "fp8", fp8: false } as const;
  const { layer, exchange } = stepTime(flash, load);
  expect(layer.dispatchUs).toBe(onCurve(WINDOW_EXCHANGE.dispatch, exchange.hostRows));
  expect(layer.combineUs).toBe(onCurve(WINDOW_EXCHANGE.combine, exchange.hostRows));
  expect(stepTime(flash, { ...load, fp8: true }).layer.dispatchUs).toBe(onCurve(WINDOW_EXCHANGE.dispatchFp8, exchange.hostRows));
  const links = { host: NVLINK_NCCL, network: INFINIBAND_ASSUMED };
  for (const other of [{ ranks: 8, throughNccl: true }, { ranks: 32 }]) {
    const step = stepTime(flash, { ...load, ...other });
    expect(step.layer.combineUs).toBe(exchangeUs(step.exchange, step.exchange.combineRowBytes, links));
  }
  expect(stepTime(flash, { ...load, ranks: 1 }).layer).toMatchObject({ dispatchUs: 0, combineUs: 0 });
});

it("a step is its layers and the head; tokens a second follow", () => {
  const step = stepTime(flash, { ranks: 8, rows: 16, context: 5000, dtype: "fp8", fp8: true });
  expect(1e3 * step.stepMs).toBeCloseTo(28 * step.layer.layerUs + step.headUs, 6);
  expect(step.tokensPerSecond).toBeCloseTo(1e3 / step.stepMs, 9);
  expect([step.rankTokensPerSecond / step.tokensPerSecond, step.allTokensPerSecond / step.rankTokensPerSecond]).toEqual([
    expect.closeTo(16),
    expect.closeTo(8),
  ]);
});

it("only models of LongCat-Flash's sizes have measured parts, whatever their layers and experts", () => {
  expect(isMeasured({ ...flash, numLayers: 4, numExperts: 64 })).toBe(true);
  expect(isMeasured(shapeConfig("lite"))).toBe(false);
  expect(isMeasured(shapeConfig("mini"))).toBe(false);
});

describe("a curve", () => {
  const curve: Curve = [
    [1, 10],
    [3, 14],
    [5, 30],
  ];
  it("is straight between its points and beyond them, but never falls below half of its beginning", () => {
    expect([1, 2, 3, 4, 5, 6].map((at) => onCurve(curve, at))).toEqual([10, 12, 14, 22, 30, 38]);
    expect([0, -10].map((at) => onCurve(curve, at))).toEqual([8, 5]);
  });
});

describe("the measured parts are docs/performance.md's", () => {
  /** The cells of a table's row, by the beginning of its line; µs without the share behind them. `page`: or a part of it. */
  function cells(beginning: string, page = PAGE): (number | undefined)[] {
    const line = page.split("\n").find((candidate) => candidate.startsWith(beginning));
    expect(line, beginning).toBeDefined();
    return line!
      .slice(beginning.length)
      .split("|")
      .map((cell) => /^\s*([\d.,]+)/.exec(cell)?.[1]?.replaceAll(",", ""))
      .map((text) => (text === undefined ? undefined : Number(text)));
  }
  const exchangeCells = (rows: number) => cells(`| ${rows} |`, PAGE.slice(PAGE.indexOf("| rows | dispatch |")));
  const ROWS = [1, 16, 64, 256, 1024, 4096];
  const byRows = (beginning: string): Curve =>
    cells(beginning)
      .map((us, i) => [ROWS[i]!, us] as const)
      .filter((point): point is readonly [number, number] => point[1] !== undefined);

  it.each([
    ["bfloat16", "bf16"],
    ["fp8", "fp8"],
  ] as const)("%s operations by rows", (dtype, name) => {
    const { project, output, dense } = ROW_PARTS[dtype];
    expect(project).toEqual(byRows(`| mla_project, 64 heads | ${name} |`));
    expect(output).toEqual(byRows(`| linear, o [6144, 8192] | ${name} |`));
    expect(dense).toEqual(byRows(`| swiglu_mlp, 6144 to 12288 | ${name} |`));
  });

  it("norm, router, head, sampling", () => {
    expect(NORM).toEqual(byRows("| rms_norm, 6144 |  |"));
    expect(ROUTER).toEqual(byRows("| moe_route, 6144 to 768, top 12 | f32 |"));
    expect(HEAD).toEqual(byRows("| linear, head [131072, 6144] | bf16 |"));
    expect(SAMPLE).toEqual(byRows("| sample, 131072 temperature |  |"));
  });

  it("experts by how many are held and rows of each", () => {
    for (const [column, dtype] of (["bfloat16", "fp8"] as const).entries())
      for (const [held, curve] of ROW_PARTS[dtype].experts)
        expect(curve).toEqual([1, 4, 16, 64, 128, 512].map((each) => [each, cells(`| ${held} | ${each} an expert |`)[1 + column]]));
  });

  it("the exchange by rows", () => {
    expect(PAGE).toContain("| rows | dispatch | dispatch, FP8 | combine | NCCL |");
    for (const [column, name] of (["dispatch", "dispatchFp8", "combine"] as const).entries())
      expect(WINDOW_EXCHANGE[name]).toEqual([1, 8, 64, 128, 512, 1024, 4096].map((rows) => [rows, exchangeCells(rows)[column]]));
  });

  it("attention by context and sequences", () => {
    const [begin] = [PAGE.indexOf("### Decode attention")];
    for (const [context, curve] of ATTENTION) {
      const name = `| ${context.toLocaleString("en-US")} |`;
      const line = PAGE.slice(begin)
        .split("\n")
        .find((candidate) => candidate.startsWith(name))!;
      const us = line
        .slice(name.length)
        .split("|")
        .slice(0, 4)
        .map((cell) => Number.parseFloat(cell));
      expect(curve).toEqual([1, 8, 32, 128].map((batch, i) => [batch, us[i]]));
    }
  });
});
