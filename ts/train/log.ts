/**
 * A run's numbers, a line a step: the CSV, and the picture of its losses. No time is in them, so that a resumed run's are those of one
 * that was not interrupted.
 * @module
 */

import { appendFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import type { StepReport } from "./trainer.js";

/** A step, and the loss of held-out sequences behind it where that was looked at. */
export interface LoggedStep extends StepReport {
  heldOutLoss: number | null;
}

/** One CSV file under writing. */
export class StepLog {
  readonly #file: string;
  /** [step, loss, held-out loss or NaN] */
  readonly #losses: [number, number, number][] = [];

  /** Begins the file, or goes on with the one that is there, behind `done` steps. */
  constructor(file: string, numLayers: number, done: number) {
    this.#file = file;
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
    const { loss, heldOutLoss, zLoss, balanceLoss, hiddenNorm, gradientNorm, rateShare, ffnExperts, ffnSpread } = step;
    const whole = [step.step, loss, heldOutLoss ?? "", zLoss, balanceLoss, hiddenNorm, gradientNorm, rateShare];
    const line = [...whole, ...ffnExperts, ...ffnSpread].join(",");
    this.#note(line);
    appendFileSync(this.#file, `${line}\n`);
  }

  #note(line: string): void {
    const [step, loss, heldOut] = line.split(",");
    this.#losses.push([Number(step), Number(loss), heldOut ? Number(heldOut) : Number.NaN]);
  }

  /** Both losses over the steps, as an SVG. */
  picture(title: string): string {
    return lossPicture(title, this.#losses);
  }
}

function header(numLayers: number): string {
  const byLayer = (name: string) => Array.from({ length: numLayers }, (_, l) => `${name}_${l}`);
  const whole = ["step", "loss", "held_out_loss", "z_loss", "balance_loss", "hidden_norm", "gradient_norm", "rate_share"];
  return [...whole, ...byLayer("ffn_experts"), ...byLayer("ffn_spread")].join(",");
}

const [WIDTH, HEIGHT, LEFT, TOP] = [640, 320, 60, 48];
const MAX_POINTS = 640;

function lossPicture(title: string, losses: readonly (readonly [number, number, number])[]): string {
  const last = losses.at(-1)?.[0] ?? 1;
  const most = Math.max(1e-9, ...losses.map(([, loss]) => loss));
  const x = (step: number) => (LEFT + (WIDTH * step) / last).toFixed(1);
  const y = (loss: number) => (TOP + HEIGHT * (1 - Math.min(1, loss / most))).toFixed(1);
  const every = Math.ceil(losses.length / MAX_POINTS);
  const trained = losses.filter((_, i) => i % every === 0).map(([step, loss]) => `${x(step)} ${y(loss)}`);
  const heldOut = losses.filter(([, , loss]) => !Number.isNaN(loss));
  const text = (at: number, down: number, content: string, anchor = "start") =>
    `<text x="${at}" y="${down}" text-anchor="${anchor}">${content.replaceAll("&", "&amp;").replaceAll("<", "&lt;")}</text>`;
  const parts = [
    text(LEFT, 20, title),
    text(LEFT, 38, "cross-entropy; line: of the step's batch, dots: of held-out sequences"),
    `<path d="M${LEFT} ${TOP}V${TOP + HEIGHT}H${LEFT + WIDTH}" fill="none" stroke="#444"/>`,
    ...[0, 0.5, 1].map((share) => text(LEFT - 8, TOP + HEIGHT * (1 - share) + 4, (share * most).toPrecision(3), "end")),
    ...[0, 0.5, 1].map((share) => text(LEFT + WIDTH * share, TOP + HEIGHT + 20, String(Math.round(share * last)), "middle")),
    trained.length > 0 ? `<path d="M${trained.join("L")}" fill="none" stroke="#1f4e86"/>` : "",
    ...heldOut.map(([step, , loss]) => `<circle cx="${x(step)}" cy="${y(loss)}" r="3" fill="#b3261e"/>`),
  ];
  const [width, height] = [LEFT + WIDTH + 40, TOP + HEIGHT + 40];
  const style = 'font-family="sans-serif" font-size="13"';
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" ${style}>\n<rect width="${width}" height="${height}" fill="white"/>\n${parts.join("\n")}\n</svg>\n`;
}
