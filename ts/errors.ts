/**
 * The one error class of the public API.
 * @module
 */

/** What went wrong, for programs. The message says it for people. */
export type LongcatErrorCode =
  | "CONFIG_INVALID"
  | "CHECKPOINT_INVALID"
  | "CHECKPOINT_UNSUPPORTED"
  | "TOKENIZER_INVALID"
  | "OPTION_INVALID"
  | "PROMPT_INVALID"
  | "CONTEXT_OVERFLOW"
  | "OUT_OF_MEMORY"
  | "DEVICE_UNAVAILABLE"
  | "NATIVE_MISSING"
  | "CUDA_ERROR"
  | "COMM_ERROR"
  | "ABORTED"
  | "DISPOSED"
  | "OVERLOADED"
  | "INTERNAL";

/**
 * Every failure that this package reports is one of these.
 *
 * @example
 * try { await Engine.load("nowhere"); }
 * catch (error) { if (error instanceof LongcatError && error.code === "CHECKPOINT_INVALID") … }
 */
export class LongcatError extends Error {
  override readonly name = "LongcatError";
  readonly code: LongcatErrorCode;
  /** `ABORTED` of `generate`: what had been generated until then. */
  readonly partial?: unknown;

  constructor(code: LongcatErrorCode, message: string, options: { cause?: unknown; partial?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    if (options.partial !== undefined) this.partial = options.partial;
  }
}
