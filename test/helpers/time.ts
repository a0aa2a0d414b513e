/** Time limits in tests. */

/**
 * A promised time with room for a machine that does other things as well: the faults that these limits find (quadratic work, a blocked
 * event loop, a hang) take many times longer still.
 */
export function onABusyMachine(promisedMs: number): number {
  return 10 * promisedMs;
}
