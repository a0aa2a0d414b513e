/**
 * The budget controller (Eq. 2; Fig. 3b and 3c): the mean of FFN experts comes to its target and stays there, while tokens go on to differ.
 * @module
 */

import type { StepReport } from "../train/trainer.js";
import { type Experiment, labRun, mean, smoothed } from "./experiment.js";

/** K_e: 1.5 of the 3 experts that a token chooses. Even use of all would make it 2, so that the target is not met by itself. */
const TARGET = 1.5;

/** FFN experts of a mean token over some steps, in each layer. */
function meansByLayer(steps: readonly StepReport[]): number[] {
  return steps[0]!.ffnExperts.map((_, l) => mean(steps.map(({ ffnExperts }) => ffnExperts[l]!)));
}

export const budget: Experiment = {
  name: "budget",
  claim:
    "with the controller the mean of FFN experts holds its target within 1 % in all layers and tokens still differ; without it, it does not",
  run: async (lab) => {
    const [steps, window] = lab.brief ? [300, 150] : [1500, 500];
    const run = (mu: number | null) =>
      lab.train(labRun(steps, { sequences: lab.brief ? 24 : 48, budget: mu && { mu, meanExperts: TARGET } }));
    const held = await run(0.1);
    const free = await run(null);
    const off = (of: { steps: StepReport[] }) => meansByLayer(of.steps.slice(-window)).map((m) => m / TARGET - 1);
    const worst = (of: { steps: StepReport[] }) => Math.max(...off(of).map(Math.abs));
    const spread = mean(held.steps.slice(-window).flatMap(({ ffnSpread }) => ffnSpread));
    const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
    const row = (name: string, of: typeof held) => [
      ...[name, ...meansByLayer(of.steps.slice(-window)).map((m) => m.toFixed(3)), percent(worst(of))],
      ...[mean(of.steps.slice(-window).flatMap(({ ffnSpread }) => ffnSpread)).toFixed(2), of.heldOutLoss.toFixed(3)],
    ];
    const limit = lab.brief ? 0.05 : 0.01;
    const agrees = worst(held) <= limit && worst(free) > 3 * worst(held) && spread > 0.1;
    return {
      table: [
        ["", "layer 0", "layer 1", "off by at most", "spread of tokens", "held-out loss"],
        row("controller", held),
        row("without", free),
      ],
      verdict:
        `over the last ${window} of ${steps} steps the mean of FFN experts is off its target of ${TARGET} by at most ${percent(worst(held))} in any layer, ` +
        `without the controller by ${percent(worst(free))}; tokens differ by ${spread.toFixed(2)} (standard deviation)`,
      agrees,
      plot: {
        ...{ title: `FFN experts of a mean token, target ${TARGET}`, x: "step", y: "FFN experts, mean of 20 steps" },
        series: [held, free].flatMap((of, i) =>
          [0, 1].map((l) => ({
            name: `${i === 0 ? "controller" : "without"}, layer ${l}`,
            points: smoothed(of.steps, ({ ffnExperts }) => ffnExperts[l]!),
          })),
        ),
      },
    };
  },
};
