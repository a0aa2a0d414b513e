/**
 * Ctrl-C. Work that can be stopped gets an AbortSignal; a second Ctrl-C, or one with nothing to stop, ends the program with code 130.
 * @module
 */

/** Exit code after Ctrl-C: 128 + SIGINT. */
export const INTERRUPTED = 130;

/** Exit code after a second SIGTERM: 128 + SIGTERM. */
export const TERMINATED = 143;

let current: AbortController | null = null;

/** Call once, first. */
export function handleInterrupts(): void {
  process.on("SIGINT", interrupt);
}

/** What Ctrl-C does; a raw-mode terminal calls it by hand. */
export function interrupt(): void {
  if (current === null || current.signal.aborted) process.exit(INTERRUPTED);
  current.abort();
}

/** Runs `work` with a signal that Ctrl-C aborts. */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  current = controller;
  try {
    return await work(controller.signal);
  } finally {
    if (current === controller) current = null;
  }
}

/** Whether there is work that Ctrl-C would stop. */
export function isInterruptible(): boolean {
  return current !== null && !current.signal.aborted;
}
