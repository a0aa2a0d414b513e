/**
 * What the addon throws, as LongcatError.
 * @module
 */

import { LongcatError, type LongcatErrorCode } from "../errors.js";

/** An addon's error carries one of our codes; anything else is INTERNAL. */
export function toLongcatError(error: unknown): LongcatError {
  if (error instanceof LongcatError) return error;
  const { code, message } = error as { code?: unknown; message?: unknown };
  const known = typeof code === "string" && CODES.has(code as LongcatErrorCode);
  return new LongcatError(known ? (code as LongcatErrorCode) : "INTERNAL", typeof message === "string" ? message : String(error), {
    cause: error,
  });
}

/** Runs a call of the addon. */
export function translateErrors<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw toLongcatError(error);
  }
}

/** Awaits a call of the addon. */
export async function translateRejections<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw toLongcatError(error);
  }
}

/** The codes that native/ throws. */
const CODES: ReadonlySet<LongcatErrorCode> = new Set([
  "CHECKPOINT_INVALID",
  "CHECKPOINT_UNSUPPORTED",
  "OUT_OF_MEMORY",
  "DEVICE_UNAVAILABLE",
  "CUDA_ERROR",
  "COMM_ERROR",
  "DISPOSED",
  "INTERNAL",
] satisfies LongcatErrorCode[]);
