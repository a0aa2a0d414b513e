/**
 * A run's numbers, a line a step: the CSV, and the picture of its losses. No time is in them, so that a resumed run's are those of one
 * that was not interrupted.
 * @module
 */

import { appendFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { plotSvg } from "./plot.js";
import type { StepReport } from "./trainer.js";

/** A step, and the loss of held-out sequences behind it where that was looked at. */
export interface LoggedStep extends StepReport {
  heldOutLoss: number | null;
}

/** Columns that each layer has; what was not measured is left empty. */
const OF_LAYERS = {
  ffn_experts: "ffnExperts",
  ffn_spread: "ffnSpread",
  router_similarity: "routerSimilarity",
  gradient_ratio: "gradientRatio",
  fullest_group: "fullestGroup",
} as const satisfies Record<string, keyof StepReport>;

/** One CSV file under writing. */
export class StepLog {
  readonly #file: string;
  readonly #numLayers: number;
  /** [step, loss, held-out loss or NaN] */
  readonly #losses: [number, number, number][] = [];

  /** Begins the file, or goes on with the one that is there, behind `done` steps. */
  constructor(file: string, numLayers: number, done: number) {
    this.#file = file;
    this.#numLayers = numLayers;
    const kept = existsSync(file)
      ? readFileSync(file, "utf8")
          .trimEnd()
          .split("\n")
          .slice(1, 1 + done)
      : [];
    for (const line of kept) this.#note(line);
    writeFileSync(file, `${[header(numLayers), ...kept].join("\n")}\n`);
  }

  add(step: LoggedStep): void {
    const { loss, heldOutLoss, zLoss, balanceLoss, hiddenNorm, gradientNorm, rateShare } = step;
    const whole = [step.step, loss, heldOutLoss ?? "", zLoss, balanceLoss, hiddenNorm, gradientNorm, rateShare];
    const ofLayers = Object.values(OF_LAYERS).flatMap((field) => Array.from({ length: this.#numLayers }, (_, l) => step[field][l] ?? ""));
    const line = [...whole, ...ofLayers].join(",");
    this.#note(line);
    appendFileSync(this.#file, `${line}\n`);
  }

  #note(line: string): void {
    const [step, loss, heldOut] = line.split(",");
    this.#losses.push([Number(step), Number(loss), heldOut ? Number(heldOut) : Number.NaN]);
  }

  /** Both losses over the steps, as an SVG. */
  picture(title: string): string {
    const of = (which: 1 | 2) => this.#losses.map((losses) => [losses[0], losses[which]] as const);
    return plotSvg({
      ...{ title, x: "step", y: "cross-entropy" },
      series: [
        { name: "the step's batch", points: of(1) },
        { name: "held-out sequences", points: of(2), dots: true },
      ],
    });
  }
}

function header(numLayers: number): string {
  const byLayer = (name: string) => Array.from({ length: numLayers }, (_, l) => `${name}_${l}`);
  const whole = ["step", "loss", "held_out_loss", "z_loss", "balance_loss", "hidden_norm", "gradient_norm", "rate_share"];
  return [...whole, ...Object.keys(OF_LAYERS).flatMap(byLayer)].join(",");
}
