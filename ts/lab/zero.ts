/**
 * Zero experts (Fig. 3a): at equal mean compute a model that may choose them reaches a lower loss than one that has none.
 * @module
 */

import { compared, type Experiment, LAB_MODEL, labRun, mean, smoothed, type TrainedRun } from "./experiment.js";

export const zero: Experiment = {
  name: "zero",
  claim: "at the same mean of FFN experts, choosing 3 of 8 and 4 zero experts gives a lower loss than choosing 2 of 8",
  run: async (lab) => {
    const steps = lab.brief ? 60 : 800;
    const seeds = lab.brief ? [1, 2, 3] : [1, 2, 3, 4, 5, 6];
    const budget = { mu: 0.1, meanExperts: 2 };
    const without = { ...LAB_MODEL, zero_expert_num: 0, moe_topk: 2 };
    const pairs: { zero: TrainedRun; none: TrainedRun }[] = [];
    for (const seed of seeds) {
      pairs.push({
        zero: await lab.train(labRun(steps, { seed, budget })),
        none: await lab.train(labRun(steps, { seed, budget, model: without })),
      });
    }
    const { average, told, words } = compared(pairs.map(({ zero, none }) => zero.heldOutLoss - none.heldOutLoss));
    const used = mean(pairs.flatMap(({ zero }) => zero.steps.slice(-50).flatMap(({ ffnExperts }) => ffnExperts)));
    return {
      table: [
        ["seed", "with zero experts", "without"],
        ...pairs.map(({ zero, none }, i) => [String(seeds[i]), zero.heldOutLoss.toFixed(3), none.heldOutLoss.toFixed(3)]),
      ],
      verdict: `after ${steps} steps the held-out loss with zero experts (${used.toFixed(2)} FFN experts a token) beside that without is ${words}`,
      agrees: told && average < 0,
      plot: {
        ...{ title: "Loss of the batches, mean of 20 steps, first seed", x: "step", y: "cross-entropy" },
        series: (["zero", "none"] as const).map((which) => ({
          name: which === "zero" ? "with zero experts" : "without",
          points: smoothed(pairs[0]![which].steps, ({ loss }) => loss),
        })),
      },
    };
  },
};
