/**
 * Sees from outside a device that it waits for another rank within a step, and for how long.
 * @module
 */

import { LongcatError } from "../errors.js";
import { ControlWord, type Exchange } from "../model/exchange.js";
import type { Queue } from "../runtime/device.js";

/** How often it looks. */
const LOOK_MS = 250;

/** How long a device may wait for another one if nobody says: on CPUs a rank may have minutes of other work, a long score on few cores. */
const TIMEOUT_MS = { cuda: 30_000, cpu: 300_000 };

/** The device says whom it waits for when it has waited for so long. */
const TOLD_AFTER_MS = 1000;

/** What it may see. One of them is called, once. */
export interface WatchEvents {
  /** The device has waited for that rank for `ms`; undefined: it does not say for which. */
  onStuck(waitsFor: number | undefined, ms: number): void;
  /** There is no going on, and nobody to name. */
  onFailure(error: LongcatError): void;
}

/** What "auto" means on a kind of device. */
export function timeoutOn(kind: keyof typeof TIMEOUT_MS, given: "auto" | number): number {
  return given === "auto" ? TIMEOUT_MS[kind] : given;
}

/** Watches an exchange. What it returns ends the watch. */
export function watchExchange(
  { exchange, queue }: { exchange: Pick<Exchange, "control" | "nccl">; queue: Pick<Queue, "done"> },
  timeoutMs: number,
  { onStuck, onFailure }: WatchEvents,
): () => void {
  const { control, nccl } = exchange;
  const wait = new Since();
  const work = nccl && new Pulse(queue);
  const timer = setInterval(() => {
    const waitsFor = control.get(ControlWord.waitsFor);
    // Of several ranks that a device waits for it names now this one, now that one.
    const waitedMs = wait.ms(waitsFor > 0) + TOLD_AFTER_MS;
    const failure = nccl?.communicator.failure() ?? null;
    if (waitsFor > 0 && waitedMs >= timeoutMs) onStuck(waitsFor - 1, timeoutMs);
    else if (failure !== null) onFailure(new LongcatError("COMM_ERROR", failure));
    else if (work && work.ms() >= timeoutMs) onStuck(undefined, timeoutMs);
    else return;
    clearInterval(timer);
  }, LOOK_MS);
  return () => clearInterval(timer);
}

/** How long something has been the same. */
class Since {
  #value: unknown;
  #sinceMs = 0;

  ms(value: unknown): number {
    const now = performance.now();
    if (value !== this.#value) [this.#value, this.#sinceMs] = [value, now];
    return now - this.#sinceMs;
  }
}

/** How long a device has not come to the end of what was enqueued. NCCL's kernels say nothing while they wait. */
class Pulse {
  readonly #queue: Pick<Queue, "done">;
  #sinceMs: number | undefined;

  constructor(queue: Pick<Queue, "done">) {
    this.#queue = queue;
  }

  ms(): number {
    const now = performance.now();
    if (this.#sinceMs === undefined) {
      this.#sinceMs = now;
      const over = (): void => {
        this.#sinceMs = undefined;
      };
      this.#queue.done().then(over, over); // a fault is told with the step
    }
    return now - this.#sinceMs;
  }
}
