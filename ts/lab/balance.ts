/**
 * The device-level balance loss (Eq. 3 to 5) and how strong it may be (Eq. 9): it evens the load of the groups of experts, and where its
 * gradient is not small beside the language model's, the experts' vectors become alike.
 * @module
 */

import { compared, type Experiment, labRun, mean, smoothed, type TrainedRun } from "./experiment.js";

/** D: four groups of two experts each. */
const GROUPS = 4;

/** Without the loss; then far below, above and far above what R_g < 0.1 allows. */
const ALPHAS = [0, 1e-4, 1e-2, 1];

/** The report's bound on R_g. */
const BOUND = 0.1;

/** The runs of one α, and what a mean layer had in their last steps: seed by seed. */
interface Tried {
  alpha: number;
  runs: TrainedRun[];
  ratio: number[];
  similarity: number[];
  fullest: number[];
}

export const balance: Experiment = {
  name: "balance",
  claim: "the balance loss evens the groups of experts; where R_g is far above 0.1 the experts' vectors are more alike than below it",
  run: async (lab) => {
    const [steps, window] = lab.brief ? [160, 60] : [800, 100];
    const seeds = lab.brief ? [1, 2] : [1, 2, 3, 4, 5, 6];
    const tried: Tried[] = [];
    for (const alpha of ALPHAS) {
      const runs: TrainedRun[] = [];
      // Without the budget controller, which evens the load by itself.
      for (const seed of seeds) runs.push(await lab.train(labRun(steps, { seed, balance: { alpha, groups: GROUPS } })));
      const atEnd = (field: "gradientRatio" | "routerSimilarity" | "fullestGroup") =>
        runs.map((run) => mean(run.steps.slice(-window).flatMap((step) => step[field])));
      tried.push({ alpha, runs, ratio: atEnd("gradientRatio"), similarity: atEnd("routerSimilarity"), fullest: atEnd("fullestGroup") });
    }
    const [off, ...on] = tried as [Tried, ...Tried[]];
    const strong = on.at(-1)!;
    const within = on.findLast(({ ratio }) => mean(ratio) < BOUND) ?? off;
    const minus = (a: readonly number[], b: readonly number[]) => compared(a.map((value, i) => value - b[i]!));
    const load = minus(strong.fullest, off.fullest);
    const likeness = minus(strong.similarity, within.similarity);
    const named = ({ alpha, ratio }: Tried) => `α = ${alpha} (R_g = ${mean(ratio).toPrecision(2)})`;
    return {
      table: [
        ["α", "R_g", "fullest group", "mean cosine", "held-out loss"],
        ...tried.map(({ alpha, runs, ratio, similarity, fullest }) => [
          ...[String(alpha), mean(ratio).toPrecision(2), mean(fullest).toFixed(3), mean(similarity).toFixed(3)],
          mean(runs.map(({ heldOutLoss }) => heldOutLoss)).toFixed(3),
        ]),
      ],
      verdict: `over the last ${window} of ${steps} steps f of the fullest group, ${mean(off.fullest).toFixed(2)} without the loss, is with ${named(strong)} ${load.words}; two experts' cosine there, beside that with ${named(within)}, is ${likeness.words}`,
      agrees: load.told && load.average < 0 && likeness.told && likeness.average > 0,
      plot: {
        ...{ title: "Mean cosine of two experts' vectors, first seed", x: "step", y: "cosine, mean of 20 steps" },
        series: tried.map(({ alpha, runs }) => ({
          name: alpha === 0 ? "without the loss" : `α = ${alpha}`,
          points: smoothed(runs[0]!.steps, ({ routerSimilarity }) => mean(routerSimilarity)),
        })),
      },
    };
  },
};
