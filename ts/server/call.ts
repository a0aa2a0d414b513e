/**
 * One request and its answer: what a handler needs, and the one way in which an answer or a failure is sent.
 * @module
 */

import type { IncomingMessage, ServerResponse } from "node:http";
import type { Engine, EngineInfo } from "../index.js";
import type { Admission } from "./admission.js";
import { type BodyLimits, checkHead, type JsonObject, readJson, turn } from "./body.js";
import { asHttpError, type HttpError, isFault, unavailable } from "./errors.js";
import { EventStream } from "./event-stream.js";
import { FIELD_NAMES } from "./fields.js";
import type { Metrics } from "./metrics.js";
import type { ResolvedServerOptions } from "./options.js";

/** What of an engine is used. */
export type ServableEngine = Pick<Engine, "info" | "generate" | "score" | "tokenize" | "detokenize" | "stats" | "closed"> &
  Partial<Pick<Engine, "failure" | "ended">>;

/** A loaded engine as the server uses it. */
export interface ServedEngine {
  engine: ServableEngine;
  info: EngineInfo;
  /** The model's id. */
  model: string;
  admission: Admission;
}

/** Why a call's signal fired. */
export const CLIENT_GONE = "the client has gone";
export const DRAINED = "the server is shutting down";

/** How long an answer to a request that is not read to its end waits for the client to notice. */
const LINGER_MS = 2000;
/** Longest that an answer may be put together without letting the event loop turn. */
const LONGEST_TURN_MS = 5;

export class Call {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly route: string;
  readonly startedMs = performance.now();
  /** The request's field for each name of the engine's messages; a route may have its own. */
  fieldNames: Readonly<Record<string, string>> = FIELD_NAMES;
  readonly #options: ResolvedServerOptions;
  readonly #limits: BodyLimits;
  readonly #metrics: Metrics;
  readonly #controller = new AbortController();
  #events: EventStream | undefined;

  constructor(
    route: string,
    request: IncomingMessage,
    response: ServerResponse,
    parts: { options: ResolvedServerOptions; limits: BodyLimits; metrics: Metrics },
  ) {
    this.route = route;
    this.request = request;
    this.response = response;
    this.#options = parts.options;
    this.#limits = parts.limits;
    this.#metrics = parts.metrics;
    response.on("close", () => {
      if (!response.writableFinished) this.abort(CLIENT_GONE);
    });
    response.on("error", () => this.abort(CLIENT_GONE));
  }

  /** Fires when the client has gone or the server cannot wait any longer. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  get metrics(): Metrics {
    return this.#metrics;
  }

  abort(reason: string): void {
    if (!this.signal.aborted) this.#controller.abort(reason);
  }

  /** The body as a JSON object. */
  async body(): Promise<JsonObject> {
    checkHead(this.request, this.#limits.maxBodyBytes);
    if (/^100-continue$/i.test(this.request.headers.expect ?? "")) this.response.writeContinue();
    return readJson(this.request, this.#limits);
  }

  /** The answer as a stream of events; its head is sent with the first of them. */
  events(): EventStream {
    this.#events = new EventStream(this.response, this.#options, () => this.abort(CLIENT_GONE));
    return this.#events;
  }

  /** Sends JSON. */
  sendJson(value: unknown, status = 200): void {
    this.send(status, "application/json", JSON.stringify(value));
  }

  /** Sends JSON that is made piece by piece. */
  async sendPieces(pieces: Iterable<string>): Promise<void> {
    const made: string[] = [];
    let turnedMs = performance.now();
    for (const piece of pieces) {
      made.push(piece);
      if (performance.now() - turnedMs < LONGEST_TURN_MS) continue;
      await turn();
      turnedMs = performance.now();
    }
    this.send(200, "application/json", made.join(""));
  }

  send(status: number, type: string, body: string | Uint8Array, headers: Readonly<Record<string, string>> = {}): void {
    const { response } = this;
    if (response.destroyed || response.headersSent) return;
    this.#head(status, type, body, headers);
    response.end(body);
    this.cutIfUnread();
  }

  /** Sends a failure: as an answer, or as the last frame of a stream that has begun. */
  fail(error: unknown): void {
    if (this.signal.reason === CLIENT_GONE) {
      this.#gone();
      return;
    }
    const failure = this.signal.reason === DRAINED ? unavailable("server_draining", DRAINED) : asHttpError(error, this.fieldNames);
    if (failure.status >= 500 && failure.status !== 503 && !isFault(error)) this.#log(error); // the server tells of a fault, once
    if (this.response.headersSent) {
      this.#events?.fail(failure.body);
      this.cutIfUnread();
      return;
    }
    this.#events?.stop();
    this.#sendFailure(failure);
  }

  #sendFailure(failure: HttpError): void {
    const { request, response } = this;
    if (response.destroyed) return;
    const body = JSON.stringify(failure.body);
    if (failure.close) response.shouldKeepAlive = false;
    this.#head(failure.status, "application/json", body, failure.headers);
    if (!failure.close || request.complete || failure.status === 408) {
      request.resume();
      response.end(body);
      this.cutIfUnread();
      return;
    }
    // The client is sending. An end now would reset the connection before it reads this; so it gets the whole answer first.
    response.write(body);
    const end = (): void => {
      clearTimeout(timer);
      response.end();
      this.cutIfUnread();
    };
    const timer = setTimeout(end, LINGER_MS);
    request.resume().once("end", end).once("close", end);
  }

  #head(status: number, type: string, body: string | Uint8Array, headers: Readonly<Record<string, string>>): void {
    this.response.writeHead(status, { ...headers, "Content-Type": type, "Content-Length": Buffer.byteLength(body) });
  }

  /** An answer that nobody reads does not stay for ever. */
  cutIfUnread(): void {
    const { response } = this;
    if (response.writableFinished || response.destroyed) return;
    const timer = setTimeout(() => response.destroy(), this.#options.writeTimeoutMs);
    response.once("close", () => clearTimeout(timer)).once("finish", () => clearTimeout(timer));
  }

  #gone(): void {
    this.#events?.stop();
    this.response.destroy();
  }

  #log(error: unknown): void {
    const what = error instanceof Error ? (error.stack ?? error.message) : String(error);
    this.#options.onLog(`error: ${this.route}: ${what}`);
  }
}
