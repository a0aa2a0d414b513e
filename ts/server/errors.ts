/**
 * Failures as HTTP says them: a status and OpenAI's error body. What the engine refuses is told in the words of the request's fields.
 * @module
 */

import { LongcatError } from "../index.js";

/** The `type` of an error body. */
type ErrorType =
  | "invalid_request_error"
  | "authentication_error"
  | "permission_error"
  | "not_found_error"
  | "rate_limit_error"
  | "overloaded_error"
  | "server_error";

/** The body of every failure, and the frame of a failure in mid-stream. */
export interface ErrorBody {
  error: { message: string; type: ErrorType; param: string | null; code: string };
}

/** A failure with its status. `close`: the connection ends with the answer. */
export class HttpError extends Error {
  override readonly name = "HttpError";
  readonly status: number;
  readonly code: string;
  readonly param: string | null;
  readonly headers: Readonly<Record<string, string>>;
  readonly close: boolean;
  readonly #type: ErrorType;

  constructor(
    status: number,
    code: string,
    message: string,
    options: { param?: string | null; headers?: Record<string, string>; close?: boolean; type?: ErrorType } = {},
  ) {
    super(message);
    this.status = status;
    this.code = code;
    this.param = options.param ?? null;
    this.headers = options.headers ?? {};
    this.close = options.close ?? false;
    this.#type = options.type ?? typeOf(status);
  }

  get body(): ErrorBody {
    return { error: { message: this.message, type: this.#type, param: this.param, code: this.code } };
  }
}

function typeOf(status: number): ErrorType {
  if (status === 401) return "authentication_error";
  if (status === 403) return "permission_error";
  if (status === 404) return "not_found_error";
  if (status === 429) return "rate_limit_error";
  if (status === 503) return "overloaded_error";
  return status < 500 ? "invalid_request_error" : "server_error";
}

/** A field of the request that is not accepted. */
export function badField(param: string, what: string, code = "option_invalid"): HttpError {
  return new HttpError(400, code, `${param}: ${what}`, { param });
}

/** Too much is under way; come back after some seconds. */
export function overloaded(message: string, retryAfterSeconds: number): HttpError {
  return new HttpError(429, "overloaded", message, { headers: { "Retry-After": String(retryAfterSeconds) } });
}

/** Not now: loading or draining. */
export function unavailable(code: string, message: string): HttpError {
  return new HttpError(503, code, message, { headers: { "Retry-After": "5" } });
}

/** Not by this engine any more: it has failed or was closed. OpenAI's clients would ask a 503 again, unless told otherwise. */
export function broken(code: string, message: string): HttpError {
  return new HttpError(503, code, message, { headers: { "X-Should-Retry": "false" }, type: "server_error" });
}

/** Statuses of the engine's errors; all others are 500. */
const STATUS: Partial<Record<LongcatError["code"], number>> = {
  OPTION_INVALID: 400,
  PROMPT_INVALID: 400,
  CONTEXT_OVERFLOW: 400,
  // Of a request: a prompt or its answer can never fit in the cache that there is.
  OUT_OF_MEMORY: 400,
  OVERLOADED: 429,
  DISPOSED: 503,
};

/** Errors after which an engine answers no more: its device does no more work in this process, or a rank is lost. */
export function isFault(error: unknown): error is LongcatError {
  return error instanceof LongcatError && (error.code === "CUDA_ERROR" || error.code === "COMM_ERROR");
}

/**
 * An error as HTTP says it.
 *
 * @param fields The request's field for each name that the engine uses: its messages begin with the name.
 */
export function asHttpError(error: unknown, fields: Readonly<Record<string, string>>): HttpError {
  if (error instanceof HttpError) return error;
  if (!(error instanceof LongcatError) || error.code === "INTERNAL")
    return new HttpError(500, "internal", "the server failed; its log says more");
  const status = STATUS[error.code] ?? 500;
  if (status === 429) return overloaded(error.message, 1);
  if (status === 503) return broken(error.code.toLowerCase(), error.message);
  const [message, { param }] = inFields(error.message, fields);
  if (error.code !== "CONTEXT_OVERFLOW") return new HttpError(status, error.code.toLowerCase(), message, { param });
  return new HttpError(status, "context_length_exceeded", message, { param: param ?? fields["prompt"] ?? null });
}

/** `topP: 7 is not accepted` → `top_p: 7 is not accepted`; `prompts[1]: …` → `prompt[1]: …`. Names within the message are the fields' too. */
function inFields(words: string, fields: Readonly<Record<string, string>>): [string, { param: string | null }] {
  const message = words.replace(
    /(?<!^|["\w])[a-z]+[A-Z]\w*(?!["\w])/g,
    (name) => (Object.hasOwn(fields, name) ? fields[name] : name) as string,
  );
  const position = /^prompts(\[\d+\]): /.exec(message);
  if (position !== null) {
    const param = `prompt${position[1]}`;
    return [`${param}: ${message.slice(position[0].length)}`, { param }];
  }
  const [start = "", name = ""] = /^([A-Za-z_]+)[^:\s]*(?=: )/.exec(message) ?? [];
  const field = Object.hasOwn(fields, name) ? fields[name] : undefined;
  if (field === undefined) return [message, { param: null }];
  const param = field + start.slice(name.length);
  return [param + message.slice(start.length), { param }];
}
