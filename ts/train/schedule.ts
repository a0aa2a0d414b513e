/**
 * How the rate changes over a run: a share of its peak, from 0 to 1.
 * @module
 */

/** Warm-up is linear. "cosine" falls to `final` at the run's end; "wsd" stays at the peak and falls linearly over its last steps. */
export type Schedule = { kind: "cosine"; warmup: number; final: number } | { kind: "wsd"; warmup: number; decay: number; final: number };

/** The share of the peak in step `step` of `steps`, counted from 0. */
export function rateShare(schedule: Schedule, step: number, steps: number): number {
  const { warmup, final } = schedule;
  if (step < warmup) return (step + 1) / warmup;
  if (schedule.kind === "cosine") {
    const done = (step - warmup) / Math.max(1, steps - 1 - warmup);
    return final + ((1 - final) * (1 + Math.cos(Math.PI * Math.min(1, done)))) / 2;
  }
  const left = Math.max(0, steps - 1 - step);
  return left >= schedule.decay ? 1 : final + ((1 - final) * left) / schedule.decay;
}
