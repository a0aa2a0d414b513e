/**
 * What `longcat lab` runs: the experiments, and the made corpus as files.
 * @module
 */

import { balance } from "./balance.js";
import { budget } from "./budget.js";
import { epsilon } from "./epsilon.js";
import type { Experiment } from "./experiment.js";
import { growth } from "./growth.js";
import { transfer } from "./transfer.js";
import { variance } from "./variance.js";
import { zero } from "./zero.js";
import { zloss } from "./zloss.js";

export { plotSvg } from "../train/plot.js";
export { writeCorpus } from "./corpus.js";
export { type Experiment, type Lab, type Outcome, openLab } from "./experiment.js";

/** All of them. */
export const EXPERIMENTS: readonly Experiment[] = [balance, budget, epsilon, growth, transfer, variance, zero, zloss];
