/**
 * Model growth (Fig. 5b): a model of half the layers is trained first, then its layers are stacked twice; at equal tokens the loss first
 * rises and ends below that of a model that had all its layers from the start.
 * @module
 */

import { compared, type Experiment, LAB_MODEL, labRun, mean, smoothed, type TrainedRun } from "./experiment.js";

const COPIES = 2;

export const growth: Experiment = {
  name: "growth",
  claim: "stacked twice, the loss first rises and then ends below that of random initialisation at equal tokens",
  run: async (lab) => {
    const [steps, at] = lab.brief ? [60, 20] : [800, 200];
    const seeds = lab.brief ? [1, 2] : [1, 2, 3, 4, 5, 6];
    const pairs: { grown: TrainedRun; random: TrainedRun }[] = [];
    for (const seed of seeds) {
      pairs.push({
        grown: await lab.trainGrown(labRun(steps, { seed }), at, COPIES),
        random: await lab.train(labRun(steps, { seed, model: { ...LAB_MODEL, num_layers: COPIES * LAB_MODEL.num_layers } })),
      });
    }
    const { average, told, words } = compared(pairs.map(({ grown, random }) => grown.heldOutLoss - random.heldOutLoss));
    const rise = mean(pairs.map(({ grown: { steps } }) => steps[at]!.loss - mean(steps.slice(at - 10, at).map(({ loss }) => loss))));
    const learnt = mean(pairs.map(({ grown: { steps } }) => steps[0]!.loss - mean(steps.slice(at - 10, at).map(({ loss }) => loss))));
    return {
      table: [
        ["seed", "grown", "random"],
        ...pairs.map(({ grown, random }, i) => [String(seeds[i]), grown.heldOutLoss.toFixed(3), random.heldOutLoss.toFixed(3)]),
      ],
      verdict:
        `stacking after ${at} of ${steps} steps raises the loss by ${rise.toFixed(2)}, where it had fallen by ${learnt.toFixed(2)}; ` +
        `at the end the held-out loss beside that of random initialisation is ${words}`,
      agrees: rise > 0 && told && average < 0,
      plot: {
        ...{ title: "Loss of the batches, mean of 20 steps, first seed", x: "step", y: "cross-entropy" },
        series: [
          {
            name: `${LAB_MODEL.num_layers} layers, stacked after ${at} steps`,
            points: smoothed(pairs[0]!.grown.steps, ({ loss }) => loss),
          },
          { name: `${COPIES * LAB_MODEL.num_layers} layers from the start`, points: smoothed(pairs[0]!.random.steps, ({ loss }) => loss) },
        ],
      },
    };
  },
};
