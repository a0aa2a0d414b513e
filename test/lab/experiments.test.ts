/** The experiments in their brief form: what they find at full length (docs/lab.md) shows in some seconds too, or cannot be told. */
import { describe, expect, it } from "vitest";
import { EXPERIMENTS, type Outcome, openLab, plotSvg } from "../../ts/lab/index.js";
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
});
