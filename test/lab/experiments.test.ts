/** The experiments in their brief form: what they find at full length (docs/lab.md) shows in some seconds too, or cannot be told. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { EXPERIMENTS, type Outcome, openLab, plotSvg } from "../../ts/lab/index.js";
import { CORPUS_PARTS, drawCorpus } from "../../ts/train/data/corpus/index.js";
import { readJsonl } from "../../ts/train/data/read.js";
import { longcat } from "../cli/longcat.js";

async function brief(name: string): Promise<{ outcome: Outcome; runs: number }> {
  let runs = 0;
  const lab = openLab(true, 2, (run) => {
    runs = run;
  });
  const outcome = await EXPERIMENTS.find((experiment) => experiment.name === name)!.run(lab);
  return { outcome, runs };
}

const column = ({ table }: Outcome, name: string) => table.slice(1).map((row) => Number(row[table[0]!.indexOf(name)]));

describe("the experiments", () => {
  it("budget: the controller holds the mean of FFN experts, which moves away without it", async () => {
    const { outcome, runs } = await brief("budget");
    expect([outcome.agrees, runs]).toEqual([true, 2]);
    expect(plotSvg(outcome.plot)).toMatch(/^<svg .*controller, layer 1.*without, layer 0.*<\/svg>\n$/s);
  });

  it("balance: the loss evens the groups, by gradients that pass the language model's; whether cosines grow is left to the full form", async () => {
    const { outcome } = await brief("balance");
    const [off, ...on] = column(outcome, "fullest group");
    for (const fullest of on.slice(1)) expect(fullest).toBeLessThan(off! - 0.2);
    const [none, weak, middle, strong] = column(outcome, "R_g");
    expect(none).toBe(0);
    expect(weak).toBeLessThan(0.1);
    expect(middle).toBeGreaterThan(0.1);
    expect(strong).toBeGreaterThan(10 * middle!);
  });

  it("variance: the factors make variances one, which without them go with widths", async () => {
    const { outcome, runs } = await brief("variance");
    expect([outcome.agrees, runs]).toEqual([true, 16]);
    expect(plotSvg(outcome.plot)).toMatch(/k\^C, without.*experts, with/s);
  });

  // Only what the full form finds too: there the best rate without the table is lower, but not by as much as the verdict asks for.
  it("transfer: without the table the best rate is lower than by it, and the proxy's costs more", async () => {
    const { outcome, runs } = await brief("transfer");
    expect(runs).toBe(9);
    const [, proxy, byTable, without] = outcome.table[0]!.map((name) => column(outcome, String(name)));
    const best = (losses: number[]) => losses.indexOf(Math.min(...losses));
    const cost = (losses: number[]) => losses[best(proxy!)]! - Math.min(...losses);
    expect(best(without!)).toBeLessThan(best(byTable!));
    expect(cost(without!)).toBeGreaterThan(cost(byTable!));
  });

  it("zloss: the hidden state stays small with the z-loss", async () => {
    const { outcome } = await brief("zloss");
    const [free, ...held] = column(outcome, "length at the end");
    for (const length of held) expect(length).toBeLessThan(free! / 5);
  });

  it("epsilon: far below the gradients it does not matter, far above them nothing is learnt", async () => {
    const { outcome } = await brief("epsilon");
    const [least, small, large] = column(outcome, "held-out loss");
    expect(Math.abs(least! - small!)).toBeLessThan(0.1);
    expect(large).toBeGreaterThan(least! + 0.5);
  });

  it("growth: so short a run cannot tell, and says so", async () => {
    const { outcome, runs } = await brief("growth");
    expect([outcome.agrees, runs]).toEqual([false, 4]);
    expect(outcome.verdict).toMatch(/^stacking after 20 of 60 steps raises the loss by .* nothing that could be told from noise$/);
  });

  it("zero: so short a run cannot tell, and says so", async () => {
    const { outcome } = await brief("zero");
    expect([outcome.agrees, outcome.verdict]).toEqual([false, expect.stringContaining("nothing that could be told from noise")]);
  });
});

describe("longcat lab", () => {
  it("prints claim, numbers and verdict", async () => {
    const { code, stdout } = await longcat(["lab", "zloss", "--brief", "--threads", "2", "--json"]);
    expect(code).toBe(0);
    const { name, claim, agrees, verdict, table } = JSON.parse(stdout) as Record<string, unknown>;
    expect([name, typeof claim, typeof agrees]).toEqual(["zloss", "string", "boolean"]);
    expect(verdict).toMatch(/^after 100 steps/);
    expect(table).toHaveLength(5);
  });

  it.each([
    [["lab", "zloss", "--seed", "1"], "--seed is for lab corpus"],
    [["lab", "corpus", "nowhere", "--brief"], "--brief is for experiments"],
    [["lab", "corpus"], "lab corpus needs a folder: OUT"],
    [["lab", "zloss", "more"], "lab zloss takes no further words"],
  ])("%j: what would do nothing is refused", async (words, message) => {
    const { code, stderr } = await longcat(words);
    expect([code, stderr]).toEqual([2, expect.stringContaining(message)]);
  });

  it("writes the corpus, which a run's sources read", async () => {
    const dir = mkdtempSync(join(tmpdir(), "longcat-corpus-"));
    try {
      const output = join(dir, "corpus");
      const { code, stdout } = await longcat(["lab", "corpus", output, "--documents", "20", "--seed", "4"]);
      expect([code, stdout.trimEnd().split("\n")]).toEqual([0, CORPUS_PARTS.map((part) => join(output, `${part}.jsonl`))]);
      for (const part of CORPUS_PARTS)
        expect(readJsonl(join(output, `${part}.jsonl`))).toEqual(drawCorpus(part, { documents: 20, digits: 2 }, 4));
      const again = await longcat(["lab", "corpus", output]);
      expect([again.code, again.stderr]).toEqual([1, expect.stringContaining("a folder that is not there yet")]);
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  });
});
