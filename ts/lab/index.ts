/**
 * The experiments of `longcat lab`.
 * @module
 */

import { budget } from "./budget.js";
import { epsilon } from "./epsilon.js";
import type { Experiment } from "./experiment.js";
import { growth } from "./growth.js";
import { zero } from "./zero.js";
import { zloss } from "./zloss.js";

export { plotSvg } from "../train/plot.js";
export { type Experiment, type Lab, type Outcome, openLab } from "./experiment.js";

/** All of them. */
export const EXPERIMENTS: readonly Experiment[] = [budget, epsilon, growth, zero, zloss];
