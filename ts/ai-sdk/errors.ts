/**
 * The engine's errors as the AI SDK's, so that its retries, abort handling and checks by class work. The engine's own is the cause.
 * @module
 */

import { APICallError, InvalidArgumentError, InvalidPromptError } from "@ai-sdk/provider";
import { LongcatError } from "../index.js";

/** Names by which the SDK knows that a call was ended by its caller. */
const ABORT_NAMES = ["AbortError", "TimeoutError"];

/** What a caller of the SDK gets for `error`, thrown by a call with this prompt and signal. */
export function sdkError(error: unknown, prompt: unknown, signal: AbortSignal | undefined): unknown {
  if (!(error instanceof LongcatError)) return error;
  const { code, message } = error;
  switch (code) {
    case "ABORTED":
      return signal?.aborted ? abortError(error, signal.reason) : error;
    case "OPTION_INVALID":
      return new InvalidArgumentError({ argument: /^[\w.[\]]+(?=:)/.exec(message)?.[0] ?? "options", message, cause: error });
    case "PROMPT_INVALID":
    case "CONTEXT_OVERFLOW":
      return new InvalidPromptError({ prompt, message, cause: error });
    case "OVERLOADED":
      return new APICallError({
        ...{ message, url: "longcat:engine", requestBodyValues: {}, statusCode: 429, isRetryable: true, cause: error },
      });
    default:
      return error;
  }
}

/** The caller's own reason where the SDK knows it for an abort. */
function abortError(error: LongcatError, reason: unknown): Error {
  if (reason instanceof Error && ABORT_NAMES.includes(reason.name)) return reason;
  return Object.assign(new DOMException(error.message, "AbortError"), { cause: error });
}
