/**
 * Errors between processes: their code and words travel, and what there was of an answer; a cause only in words.
 * @module
 */

import { LongcatError, type LongcatErrorCode } from "../errors.js";
import { show } from "../checks.js";

/** A LongcatError as it travels. */
export interface WireError {
  code: LongcatErrorCode;
  message: string;
  partial?: unknown;
  cause?: string;
}

export function toWire(error: unknown): WireError {
  if (!(error instanceof LongcatError)) return { code: "INTERNAL", message: words(error) };
  const { code, message, partial, cause } = error;
  return { code, message, ...(partial !== undefined && { partial }), ...(cause !== undefined && { cause: words(cause) }) };
}

/** `rank`: whose error it is, where the message is to name it. */
export function fromWire({ code, message, partial, cause }: WireError, rank?: string): LongcatError {
  return new LongcatError(code, rank === undefined ? message : `${rank}: ${message}`, { cause, partial });
}

function words(error: unknown): string {
  return error instanceof Error ? error.message : show(error);
}
