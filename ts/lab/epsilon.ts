/**
 * Adam's ε (Fig. 7): the loss gets worse once ε comes near the gradients' sizes, and far below them nothing depends on it.
 * @module
 */

import { type Experiment, labRun, mean, type TrainedRun } from "./experiment.js";

export const epsilon: Experiment = {
  name: "epsilon",
  claim: "the loss degrades once ε nears the range of the gradients' root mean squares (of all tensors), and far below it ε has no effect",
  run: async (lab) => {
    const steps = lab.brief ? 80 : 400;
    const seeds = lab.brief ? [1, 2] : [1, 2, 3, 4];
    const epsilons = lab.brief ? [1e-16, 1e-8, 10] : [1e-16, 1e-12, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 10];
    const rows: { value: number; loss: number; variance: number; runs: TrainedRun[] }[] = [];
    for (const value of epsilons) {
      const runs: TrainedRun[] = [];
      for (const seed of seeds) runs.push(await lab.train(labRun(steps, { seed, adam: { epsilon: value } })));
      const losses = runs.map(({ heldOutLoss }) => heldOutLoss);
      const loss = mean(losses);
      rows.push({ value, loss, runs, variance: losses.reduce((sum, l) => sum + (l - loss) ** 2, 0) / (seeds.length - 1) });
    }
    const sizes = rows[0]!.runs.flatMap(({ gradientSizes }) => gradientSizes);
    const [least, most] = [sizes.reduce((a, b) => Math.min(a, b)), sizes.reduce((a, b) => Math.max(a, b))];
    const small = rows.filter(({ value }) => value < least / 100);
    const usual = mean(small.map(({ loss }) => loss));
    // Two means of this many seeds differ by chance: twice the standard error of their difference.
    const chance = 2 * Math.sqrt((2 * mean(rows.map(({ variance }) => variance))) / seeds.length);
    const apart = Math.max(...small.map(({ loss }) => Math.abs(loss - usual)));
    // Where the loss begins to suffer lies between two ε of the list.
    const firstWorse = rows.findIndex(({ loss }) => loss > usual + chance);
    const [fine, worse] = [rows[firstWorse - 1]?.value, rows[firstWorse]?.value];
    const shown = (n: number) => n.toExponential(0);
    return {
      table: [
        ["ε", "held-out loss", "standard deviation of seeds"],
        ...rows.map(({ value, loss, variance }) => [shown(value), loss.toFixed(3), Math.sqrt(variance).toFixed(3)]),
      ],
      verdict:
        `the gradients' root mean squares lie between ${least.toExponential(1)} and ${most.toExponential(1)}; ε below a hundredth of the least make at most ${apart.toFixed(3)} of difference, ` +
        `where ${chance.toFixed(3)} is chance; ` +
        (fine === undefined || worse === undefined
          ? "none is worse by more"
          : `ε = ${shown(fine)} is no worse than that, ${shown(worse)} is`),
      agrees: apart <= chance && fine !== undefined && worse !== undefined && worse >= least / 10 && fine <= 10 * most,
      plot: {
        ...{
          title: `Held-out loss against ε, after ${steps} steps, mean of ${seeds.length} seeds`,
          x: "ε (logarithmic)",
          y: "held-out loss",
          logX: true,
        },
        series: [
          { name: "loss", points: rows.map(({ value, loss }) => [value, loss] as const) },
          { name: "gradients, from … to", points: [least, most].map((size) => [size, 0] as const) },
        ],
      },
    };
  },
};
