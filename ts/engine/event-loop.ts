/**
 * Long work in pieces, so that calls, aborts and streams are served in between.
 * @module
 */

/** Resolves when the event loop has turned. */
export function eventLoopTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
