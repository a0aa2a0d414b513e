/**
 * From a request's bytes to a JSON object: type, length, time and structure are bounded before anything is parsed.
 * @module
 */

import type { IncomingMessage } from "node:http";
import { HttpError, overloaded } from "./errors.js";
import { JsonGuard } from "./json-guard.js";

/** A JSON object as it came in. */
export type JsonObject = Record<string, unknown>;

/** Bytes that the bodies of all requests may take together while they arrive. */
export class BodyBudget {
  #left: number;

  constructor(bytes: number) {
    this.#left = bytes;
  }

  take(bytes: number): void {
    if (bytes > this.#left) throw overloaded("too many large bodies are arriving; try again", 1);
    this.#left -= bytes;
  }

  giveBack(bytes: number): void {
    this.#left += bytes;
  }
}

export interface BodyLimits {
  maxBodyBytes: number;
  bodyTimeoutMs: number;
  budget: BodyBudget;
}

/** Refuses a request by its head: wrong type, or a length that is too large. */
export function checkHead(request: IncomingMessage, maxBodyBytes: number): void {
  const { "content-type": type, "content-encoding": encoding = "identity", "content-length": length } = request.headers;
  const [media = "", ...parameters] = (type ?? "").toLowerCase().split(";");
  if (media.trim() !== "application/json")
    throw new HttpError(415, "unsupported_media_type", `Content-Type: ${shown(type)} is not accepted; give application/json`);
  const charset = parameters.map((one) => /^\s*charset\s*=\s*"?([^"\s]*)"?\s*$/.exec(one)?.[1]).find((one) => one !== undefined);
  if (charset !== undefined && charset !== "utf-8" && charset !== "utf8")
    throw new HttpError(415, "unsupported_media_type", `Content-Type: charset ${shown(charset)} is not accepted; give utf-8`);
  if (encoding.toLowerCase() !== "identity")
    throw new HttpError(415, "unsupported_media_type", `Content-Encoding: ${shown(encoding)} is not accepted; send the body as it is`);
  if (length !== undefined && Number(length) > maxBodyBytes) throw tooLarge(maxBodyBytes);
}

/** Reads and parses the body. The caller has called {@link checkHead}. */
export async function readJson(request: IncomingMessage, limits: BodyLimits): Promise<JsonObject> {
  const pieces = await readAll(request, limits);
  const text = await decode(pieces);
  await turn();
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new HttpError(400, "invalid_json", `the body is not JSON: ${String((error as Error).message).slice(0, 200)}`);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new HttpError(400, "invalid_json", "the body is not a JSON object");
  return value as JsonObject;
}

function readAll(request: IncomingMessage, { maxBodyBytes, bodyTimeoutMs, budget }: BodyLimits): Promise<Buffer[]> {
  return new Promise((resolve, reject) => {
    const guard = new JsonGuard();
    const pieces: Buffer[] = [];
    let bytes = 0;
    const end = (error?: unknown): void => {
      clearTimeout(timer);
      request.off("data", onData).off("end", onEnd).off("close", onClose).off("error", onClose);
      budget.giveBack(bytes);
      if (error === undefined) resolve(pieces);
      else reject(error);
    };
    const onClose = (): void => end(new HttpError(400, "incomplete_body", "the connection ended before the body did", { close: true }));
    const onData = (piece: Buffer): void => {
      try {
        if (bytes + piece.length > maxBodyBytes) throw tooLarge(maxBodyBytes);
        budget.take(piece.length);
        bytes += piece.length;
        pieces.push(piece);
        guard.push(piece);
      } catch (error) {
        end(error);
      }
    };
    const timer = setTimeout(() => {
      end(new HttpError(408, "body_timeout", `the body did not arrive within ${bodyTimeoutMs} ms`, { close: true }));
    }, bodyTimeoutMs);
    const onEnd = (): void => end();
    request.on("data", onData).on("end", onEnd).on("close", onClose).on("error", onClose);
  });
}

/** Bytes that are decoded before the event loop turns. */
const DECODED_AT_ONCE = 256 * 1024;

async function decode(pieces: readonly Buffer[]): Promise<string> {
  if (pieces.length === 0) throw new HttpError(400, "invalid_json", "the body is empty; a JSON object is needed");
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  let text = "";
  let bytes = 0;
  try {
    for (const piece of pieces) {
      text += decoder.decode(piece, { stream: true });
      bytes += piece.length;
      if (bytes < DECODED_AT_ONCE) continue;
      await turn();
      bytes = 0;
    }
    return text + decoder.decode();
  } catch {
    throw new HttpError(400, "invalid_json", "the body is not UTF-8");
  }
}

/** Lets the event loop turn once. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

function tooLarge(maxBodyBytes: number): HttpError {
  return new HttpError(413, "body_too_large", `the body is larger than ${maxBodyBytes} bytes`, { close: true });
}

function shown(value: string | undefined): string {
  return value === undefined ? "none" : JSON.stringify(value.slice(0, 80));
}
