/**
 * Listening to a caller's signal.
 * @module
 */

import { setMaxListeners } from "node:events";

/** Calls `listener` when the signal fires; gives the function that stops listening. A signal that has fired already is the caller's to look at. */
export function onAbort(signal: AbortSignal | undefined, listener: () => void): () => void {
  // Many calls, and all prompts of an array, may share one signal: that is no leak, so Node need not warn of one.
  if (signal instanceof AbortSignal) setMaxListeners(0, signal);
  signal?.addEventListener("abort", listener, { once: true });
  return () => signal?.removeEventListener("abort", listener);
}
