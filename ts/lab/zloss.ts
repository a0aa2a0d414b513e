/**
 * The hidden z-loss (Eq. 10; Fig. 6): with hyper-parameters that are wrong, the last hidden state grows without it and stays small with
 * it, and the loss is no worse.
 * @module
 */

import { type Experiment, labRun, mean, type TrainedRun } from "./experiment.js";

/** Ten times the rate that suits the model, and nothing clipped. */
const WRONG = { rate: 0.1, adam: { clip: 0 } };

/** Held-out losses this close count as equal. */
const TOLERANCE = 0.1;

export const zloss: Experiment = {
  name: "zloss",
  claim: "at a rate that is too high the last hidden state's length blows up without the z-loss and stays with it, the loss unchanged",
  run: async (lab) => {
    const steps = lab.brief ? 100 : 600;
    const lambdas = [0, 1e-6, 1e-5, 1e-4];
    const runs: TrainedRun[] = [];
    for (const zLoss of lambdas) runs.push(await lab.train(labRun(steps, { ...WRONG, zLoss })));
    const lengths = runs.map((run) => mean(run.steps.slice(-20).map(({ hiddenNorm }) => hiddenNorm)));
    const losses = runs.map(({ heldOutLoss }) => heldOutLoss);
    const [free, freeLoss] = [lengths[0]!, losses[0]!];
    // The largest λ that costs nothing: "a very small one suffices".
    const best = losses.findLastIndex((loss, i) => i > 0 && loss < freeLoss + TOLERANCE);
    const [held, heldLoss, lambda] = best > 0 ? [lengths[best]!, losses[best]!, lambdas[best]!] : [lengths[1]!, losses[1]!, lambdas[1]!];
    return {
      table: [
        ["λ", "length at the end", "held-out loss"],
        ...lambdas.map((l, i) => [String(l), lengths[i]!.toFixed(1), losses[i]!.toFixed(3)]),
      ],
      verdict:
        `after ${steps} steps at ten times the right rate the hidden state's length is ${free.toFixed(0)} without the z-loss and ${held.toFixed(0)} with λ = ${lambda}; ` +
        `held-out loss ${freeLoss.toFixed(3)} without, ${heldLoss.toFixed(3)} with`,
      agrees: best > 0 && held < free / 5,
      plot: {
        ...{ title: "Length of the last hidden state at ten times the right rate", x: "step", y: "length (logarithmic)", logY: true },
        series: runs.map((run, i) => ({
          name: `λ = ${lambdas[i]}`,
          points: run.steps.map(({ step, hiddenNorm }) => [step, hiddenNorm] as const),
        })),
      },
    };
  },
};
