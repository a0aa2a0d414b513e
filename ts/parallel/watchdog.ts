/**
 * Sees from outside a device that it waits for another rank within a step, and for how long.
 * @module
 */

import type { Exchange } from "../model/exchange.js";
import { ControlWord } from "../model/exchange.js";

/** How often it looks. */
const LOOK_MS = 250;

/** The device says whom it waits for when it has waited for so long. */
const TOLD_AFTER_MS = 1000;

/** Calls `onStuck` once a wait has lasted `timeoutMs`; what it returns ends the watch. */
export function watchExchange(
  { control }: Pick<Exchange, "control">,
  timeoutMs: number,
  onStuck: (waitsFor: number, ms: number) => void,
): () => void {
  let waitsFor = 0;
  let sinceMs = 0;
  const timer = setInterval(() => {
    const now = performance.now();
    const word = control.get(ControlWord.waitsFor);
    if (word !== waitsFor) [waitsFor, sinceMs] = [word, now - TOLD_AFTER_MS];
    if (waitsFor === 0 || now - sinceMs < timeoutMs) return;
    clearInterval(timer);
    onStuck(waitsFor - 1, timeoutMs);
  }, LOOK_MS);
  return () => clearInterval(timer);
}
