/** `longcat bench all-to-all`, and `bench layer` on several ranks: what they print, what they refuse, and that a lost rank ends them. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { randomChoices, rowsToOthers } from "../../ts/engine/bench-all-to-all.js";
import { LAYER_OPERATIONS, layerCommands } from "../../ts/model/layer-cost.js";
import { temporaryFolder } from "../helpers/fixtures.js";
import { longcat } from "./longcat.js";

async function document(...words: string[]) {
  const { code, stdout, stderr } = await longcat(["bench", ...words, "--device", "cpu", "--threads", "1", "--json"]);
  expect([code, stderr]).toEqual([0, ""]);
  return JSON.parse(stdout);
}

/** Refused at once, in the words of this process: those of a rank would begin with its name. */
async function refuses(words: readonly string[], message: string): Promise<void> {
  const { code, stdout, stderr } = await longcat(["bench", ...words, "--device", "cpu"]);
  expect([code, stdout]).toEqual([1, ""]);
  expect(stderr).toMatch(new RegExp(`^error: OPTION_INVALID: ${message}`));
}

const mini = { hiddenSize: 64, numExperts: 24, numZeroExperts: 12, topK: 6 };

describe("the rows of bench all-to-all", () => {
  it("choose different experts each, ascending, all of them alike", () => {
    const tokens = 3000;
    const ids = randomChoices(mini, tokens, 1);
    const counts = new Array<number>(36).fill(0);
    for (let t = 0; t < tokens; t++) {
      const row = [...ids.subarray(6 * t, 6 * t + 6)];
      expect(row).toEqual([...new Set(row)].sort((a, b) => a - b));
      for (const id of row) counts[id]! += 1;
    }
    // 500 each, within five standard deviations.
    for (const count of counts) expect(Math.abs(count - tokens / 6)).toBeLessThan(5 * Math.sqrt((tokens / 6) * (5 / 6)));
    expect(randomChoices(mini, 4, 1)).toEqual(ids.subarray(0, 24));
    expect(randomChoices(mini, 4, 2)).not.toEqual(ids.subarray(0, 24));
  });

  it("go once to each other rank that holds one of their experts", () => {
    // Four ranks of six experts; 24 and beyond are zero experts.
    const ids = Int32Array.of(0, 1, 5, 6, 7, 18, /**/ 6, 7, 8, 24, 30, 35, /**/ 24, 25, 26, 27, 28, 29);
    expect([0, 1, 2, 3].map((rank) => rowsToOthers(mini, ids, 3, { rank, ranks: 4 }))).toEqual([3, 2, 4, 3]);
  });
});

describe("bench all-to-all", () => {
  it("measures both directions at each number of tokens, on processes that share memory", async () => {
    const svg = join(temporaryFolder(), "exchange.svg");
    const words = ["--ranks", "3", "--tokens", "1,5", "--hidden", "64", "--samples", "2", "--svg", svg];
    const report = await document("all-to-all", ...words);
    expect(report).toMatchObject({
      ranks: 3,
      ...mini,
      dtype: "float32",
      fp8: false,
      exchange: "peer",
      device: "cpu",
      gpu: null,
      samples: 2,
    });
    expect(report.withoutNccl).toBe("NCCL is for GPUs");
    expect(report.results.map(({ tokens }: { tokens: number }) => tokens)).toEqual([1, 5]);
    for (const { tokens, rows, dispatch, combine, us } of report.results) {
      expect(rows).toBeLessThanOrEqual(2 * tokens);
      // A rank holds 8 experts, of which a row may use 6: their places and weights travel along.
      expect([dispatch.rowBytes, combine.rowBytes]).toEqual([4 * 64 + 8 * 6, 4 * 64]);
      for (const { bytes, us: time, gigabytesPerSecond, ncclUs, floorUs, rowBytes } of [dispatch, combine]) {
        expect(bytes).toBe(Math.round(rows * rowBytes));
        expect(gigabytesPerSecond).toBeCloseTo(bytes / time / 1e3, 9);
        expect([ncclUs, floorUs]).toEqual([null, null]);
      }
      expect(us).toBeGreaterThan(0);
    }
    expect(readFileSync(svg, "utf8").match(/<rect [^>]*fill="#7aa6da"/g)).toHaveLength(4);
  });

  it("dispatches rows as FP8", async () => {
    const { fp8, results } = await document("all-to-all", "--tokens", "4", "--fp8", "--samples", "1");
    expect([fp8, results[0].dispatch.rowBytes, results[0].combine.rowBytes]).toEqual([true, 256 + 2 * 4 + 8 * 6, 4 * 256]);
  });

  it("prints three aligned lines for each number of tokens", async () => {
    const { code, stdout, stderr } = await longcat(["bench", "all-to-all", "--device", "cpu", "--tokens", "1,2", "--samples", "1"]);
    expect(code).toBe(0);
    expect(stderr).toMatch(
      /^2 ranks on cpu \(\d+ threads, \w+\), exchange peer: rows of 256 float32, 6 choices of 24 experts and 12 zero experts\n/,
    );
    const [title, dispatch, combine, both, next] = stdout.split("\n");
    expect(title).toMatch(/^1 token a rank, [\d.]+ rows to others$/);
    for (const [name, line] of [
      ["dispatch", dispatch],
      ["combine", combine],
    ])
      expect(line).toMatch(new RegExp(`^ {2}${name} +[\\d.]+ kB +-?[\\d.]+ µs +-?[\\d.]+ GB/s +NCCL +- µs +floor +- µs$`));
    expect(both).toMatch(/^ {2}both +[\d.]+ kB +[\d.]+ µs$/);
    expect(next).toMatch(/^2 tokens a rank/);
  });

  it.each([
    [["--ranks", "5"], "parallel.expert: 5 is not accepted: 24 experts cannot be shared out evenly .* \\(--ranks\\)"],
    [["--ranks", "0"], "parallel.expert: 0 is not accepted; give a whole number from 2 to 256 \\(--ranks\\)"],
    [["--ranks", "1"], "parallel.expert: 1 is not accepted; give a whole number from 2 to 256 \\(--ranks\\)"],
    [["--dtype", "bfloat16"], "dtype: bfloat16 is not accepted: on the CPU activations are float32"],
    [["--exchange", "nccl"], 'parallel.exchange: "nccl" needs GPUs, .* \\(--exchange\\)'],
  ])("refuses %j before ranks are started", (words, message) => refuses(["all-to-all", ...words], message));

  it("says that it is no group's where a launcher has started several processes", async () => {
    const words = ["bench", "all-to-all", "--device", "cpu", "--tokens", "1", "--samples", "1"];
    const { code, stderr } = await longcat(words, { env: { RANK: "1", WORLD_SIZE: "3", TORCHELASTIC_RUN_ID: "run" } });
    expect([code, stderr]).toEqual([
      0,
      expect.stringMatching(
        /^torchrun started 3 processes, and a bench starts its ranks itself, on its host: start it once\n2 ranks on cpu/,
      ),
    ]);
  });

  it("has no word of node's for many ranks", async () => {
    const { samples } = await document("all-to-all", "--ranks", "12", "--tokens", "1", "--samples", "1");
    expect(samples).toBe(1);
  });
});

describe("bench layer --ranks", () => {
  const steps = ["--ranks", "2", "--batch", "3", "--context", "20", "--prompt", "9", "--samples", "1"];

  it("measures the exchange, and the layer with it and without", async () => {
    const report = await document("layer", ...steps);
    expect(report).toMatchObject({ shape: "mini", ranks: 2, exchange: "peer", expertsHeld: 12, experts: 24, expertRows: null });
    expect(report.results.map(({ rows }: { rows: number }) => rows)).toEqual([3, 9]);
    for (const { operations, overlapUs, serialUs, exchange } of report.results) {
      expect(operations.map(({ op }: { op: string }) => op.replace("prefill", "decode"))).toEqual(LAYER_OPERATIONS.map(([op]) => op));
      for (const time of [overlapUs, serialUs, exchange.us, exchange.serialWithoutUs, exchange.overlapWithoutUs])
        expect(time).toBeGreaterThan(0);
      // One sample: the medians are its own.
      expect(exchange.exposedUs).toBeCloseTo(overlapUs - exchange.overlapWithoutUs, 6);
      expect(exchange.shareOfExchange).toBeCloseTo(exchange.exposedUs / exchange.us, 9);
      expect(exchange.shareOfLayer).toBeCloseTo(exchange.exposedUs / overlapUs, 9);
    }
  });

  it("--experts-held is of each rank: the router chooses among them all, and zero experts in proportion", async () => {
    const held = ["--experts-held", "4", "--dtype", "fp8", "--dispatch-dtype", "fp8"];
    const report = await document("layer", ...steps, ...held);
    expect(report).toMatchObject({ expertsHeld: 4, experts: 8 });
    for (const { distinctExperts } of report.results) expect(distinctExperts).toBeLessThanOrEqual(4);
  });

  it.each([
    [["--ranks", "5"], "parallel.expert: 5 is not accepted: 24 experts cannot be shared out evenly .* \\(--ranks\\)"],
    [["--ranks", "0"], "parallel.expert: 0 is not accepted; give a whole number from 1 to 256 \\(--ranks\\)"],
    [["--ranks", "2", "--exchange", "nccl"], 'parallel.exchange: "nccl" needs GPUs, .* \\(--exchange\\)'],
    [
      ["--ranks", "2", "--experts-held", "1"],
      "expertsHeld: 1 on each of 2 ranks make 3 choices, zero experts included, .* \\(--experts-held\\)",
    ],
  ])("refuses %j before ranks are started", (words, message) => refuses(["layer", ...words], message));

  it("prints what the exchange adds", async () => {
    const { stdout } = await longcat(["bench", "layer", "--device", "cpu", "--threads", "1", ...steps]);
    expect(stdout).toMatch(/^exchange alone, dispatch and combine +[\d.]+ µs$/m);
    expect(stdout).toMatch(/^exposed, both branches at once +-?[\d.]+ µs: -?[\d.]+ % of the exchange, -?[\d.]+ % of the layer$/m);
  });

  it("puts dispatch before the experts, and combine last", () => {
    expect(layerCommands(1)).not.toContain("ep_dispatch");
    const names = layerCommands(2);
    expect(names.slice(names.indexOf("ep_dispatch")).slice(0, 2)).toEqual(["ep_dispatch", "moe_experts"]);
    expect([names.length, names.at(-1)]).toEqual([LAYER_OPERATIONS.length + 2, "ep_combine"]);
  });
});

it.skipIf(!existsSync("/proc/self/task"))("a rank that is lost ends the others and is named", async () => {
  const ranksOf = (pid: number) => readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").map(Number);
  let ranks: number[] = [];
  const words = ["bench", "all-to-all", "--device", "cpu", "--tokens", `1${",1".repeat(5000)}`, "--samples", "100"];
  const { code, stderr } = await longcat(words, {
    onOutput: (child) => {
      if (ranks.length > 0) return;
      ranks = ranksOf(child.pid!);
      process.kill(ranks[1]!, "SIGKILL");
    },
  });
  expect(ranks).toHaveLength(2);
  expect(code).toBe(1);
  expect(stderr).toMatch(/^error: COMM_ERROR: rank \d of 2: its process was ended by SIGKILL$/m);
  for (const pid of ranks) expect(existsSync(`/proc/${pid}`)).toBe(false);
});
