/**
 * The HTTP server over one engine: connections and their limits, routes, health, and a drain that lets answers end.
 * @module
 */

import { randomUUID } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { basename } from "node:path";
import { LongcatError } from "../index.js";
import { Access } from "./access.js";
import { Admission } from "./admission.js";
import { BodyBudget, type BodyLimits } from "./body.js";
import { Call, DRAINED, type ServableEngine, type ServedEngine } from "./call.js";
import { chatCompletions } from "./chat.js";
import { completions } from "./completions.js";
import { asHttpError, broken, HttpError, isFault, unavailable } from "./errors.js";
import { Metrics } from "./metrics.js";
import { type ResolvedServerOptions, resolveServerOptions, type ServerOptions } from "./options.js";
import { detokenize, models, oneModel, score, tokenize } from "./texts.js";

/** Bodies that may arrive at once, in times of the largest. */
const BODIES_AT_ONCE = 16;
/** Most bytes of a request's head. */
const MAX_HEADER_BYTES = 16 * 1024;
/** How often Node looks for connections that are past their time. */
const TIMEOUT_CHECK_MS = 500;
/** Answers of a drain's end get so long to leave. */
const LAST_WORDS_MS = 1000;

type Handler = (call: Call, served: ServedEngine) => void | Promise<void>;

const ROUTES: Readonly<Record<string, { method: "GET" | "POST"; handler: Handler }>> = {
  "/v1/chat/completions": { method: "POST", handler: chatCompletions },
  "/v1/completions": { method: "POST", handler: completions },
  "/v1/models": { method: "GET", handler: models },
  "/v1/models/{model}": { method: "GET", handler: oneModel },
  "/v1/score": { method: "POST", handler: score },
  "/tokenize": { method: "POST", handler: tokenize },
  "/detokenize": { method: "POST", handler: detokenize },
};

/** A file as it is served. */
export interface PageFile {
  /** The value of Content-Type. */
  type: string;
  body: string | Uint8Array;
}

type State =
  | { is: "loading" }
  | { is: "ready"; served: ServedEngine }
  | { is: "closed"; reason: string }
  | { is: "draining" }
  | { is: "failed"; reason: string };

/**
 * An OpenAI-compatible server. Its routes, fields, errors and limits: docs/serving.md.
 *
 * @example
 * const engine = await Engine.load();
 * const server = await ApiServer.listen({ port: 8000 });
 * server.serve(engine);
 * console.log(server.url);
 * // … and at the end
 * await server.drain();
 * await engine.close();
 */
export class ApiServer implements AsyncDisposable {
  readonly #options: ResolvedServerOptions;
  readonly #access: Access;
  readonly #limits: BodyLimits;
  readonly #metrics = new Metrics();
  readonly #server: Server;
  readonly #pages: ReadonlyMap<string, PageFile>;
  readonly #calls = new Set<Call>();
  /** Answers under way on each connection. */
  readonly #answering = new WeakMap<Socket, number>();
  #state: State = { is: "loading" };
  #served: ServedEngine | undefined;
  #draining: Promise<void> | undefined;
  #onIdle: (() => void) | undefined;

  private constructor(options: ResolvedServerOptions, pages: ReadonlyMap<string, PageFile>) {
    this.#options = options;
    this.#access = new Access(options);
    this.#pages = pages;
    const { maxBodyBytes, bodyTimeoutMs, headersTimeoutMs, idleTimeoutMs, maxConnections } = options;
    this.#limits = { maxBodyBytes, bodyTimeoutMs, budget: new BodyBudget(BODIES_AT_ONCE * maxBodyBytes) };
    this.#server = createServer({
      maxHeaderSize: MAX_HEADER_BYTES,
      headersTimeout: headersTimeoutMs,
      // Beyond the body's own time-out, which answers in JSON.
      requestTimeout: headersTimeoutMs + bodyTimeoutMs + 1000,
      keepAliveTimeout: idleTimeoutMs,
      connectionsCheckingInterval: TIMEOUT_CHECK_MS,
      requireHostHeader: false, // checked with the rest, and answered in JSON
    });
    this.#server.maxConnections = maxConnections;
    const onRequest = (request: IncomingMessage, response: ServerResponse): void => void this.#answer(request, response);
    this.#server
      .on("request", onRequest)
      .on("checkContinue", onRequest)
      .on("checkExpectation", onRequest) // other expectations may be left alone
      .on("clientError", (error, socket) => this.#refuse(error, socket as Socket));
  }

  /**
   * Listens. Until {@link serve} is called, `/health` says that the model loads.
   *
   * @param options See {@link ServerOptions}.
   * @param pages Files by path, served without a key: `pageFiles()` is the chat page at `/`. Default none.
   * @throws LongcatError `OPTION_INVALID`: a wrong option, or an address that cannot be listened on.
   */
  static async listen(options?: ServerOptions | null, pages: ReadonlyMap<string, PageFile> = new Map()): Promise<ApiServer> {
    const resolved = resolveServerOptions(options ?? {});
    const server = new ApiServer(resolved, pages);
    await new Promise<void>((resolve, reject) => {
      const { host, port } = resolved;
      const onError = (error: NodeJS.ErrnoException): void => {
        server.#metrics.close();
        reject(new LongcatError("OPTION_INVALID", `host, port: cannot listen on ${host}:${port}: ${error.message}`, { cause: error }));
      };
      server.#server.once("error", onError).listen(port, host, () => {
        server.#server.off("error", onError).on("error", (error) => resolved.onLog(`error: server: ${error.message}`));
        resolve();
      });
    });
    return server;
  }

  /** Where it listens: `http://127.0.0.1:8000`. */
  get url(): string {
    const { address, port, family } = this.#server.address() as AddressInfo;
    return `http://${family === "IPv6" ? `[${address}]` : address}:${port}`;
  }

  /** Whether a drain is going on or over. */
  get draining(): boolean {
    return this.#draining !== undefined;
  }

  /** The model's id. */
  get model(): string | undefined {
    return this.#served?.model;
  }

  /**
   * Answers with this engine from now on. One that is served already is replaced, also after it has failed or was closed; answers under
   * way stay with the one they have. Engines remain the caller's: {@link drain} closes none.
   *
   * @throws LongcatError `OPTION_INVALID`: not an engine.
   */
  serve(engine: ServableEngine): void {
    const info = engineInfo(engine);
    const { modelName, maxQueue } = this.#options;
    const model = modelName ?? (basename(info.directory) || "longcat");
    this.#served = { engine, info, model, admission: new Admission(info.maxSequences, maxQueue) };
    if (!this.draining) this.#state = { is: "ready", served: this.#served };
    engine.ended?.catch((error: Error) => {
      if (this.#served?.engine === engine) this.#fail(error);
    });
  }

  /** The engine has failed, with a call or while nobody called. Told once. */
  #fail(error: Error): void {
    if (this.#state.is === "failed") return;
    this.#state = { is: "failed", reason: error.message };
    const code = error instanceof LongcatError ? `${error.code}: ` : "";
    this.#options.onLog(`error: the engine has failed and answers no more until it is loaded anew: ${code}${error.message}`);
  }

  /**
   * Takes no more requests, waits for those under way (at most `drainTimeoutMs`, then they end with an error), and closes every
   * connection. `/health` says 503 meanwhile.
   */
  drain(): Promise<void> {
    this.#draining ??= this.#drain();
    return this.#draining;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.drain();
  }

  async #drain(): Promise<void> {
    this.#state = { is: "draining" };
    if (!(await this.#idle(this.#options.drainTimeoutMs))) {
      for (const call of this.#calls) call.abort(DRAINED);
      await this.#idle(LAST_WORDS_MS);
    }
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeIdleConnections();
    const timer = setTimeout(() => this.#server.closeAllConnections(), LAST_WORDS_MS);
    await closed;
    clearTimeout(timer);
    this.#metrics.close();
  }

  /** Whether all answers have ended within the time. */
  #idle(withinMs: number): Promise<boolean> {
    if (this.#calls.size === 0) return Promise.resolve(true);
    return new Promise((resolve) => {
      const timer = setTimeout(() => resolve(false), withinMs);
      this.#onIdle = () => {
        clearTimeout(timer);
        resolve(true);
      };
    });
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const [url, query] = splitUrl(request.url ?? "");
    const path = /^\/v1\/models\/./.test(url) ? "/v1/models/{model}" : url;
    const known = Object.hasOwn(ROUTES, path) || path === "/health" || path === "/metrics" || this.#pages.has(path);
    const call = new Call(known ? path : "other", request, response, {
      options: this.#options,
      limits: this.#limits,
      metrics: this.#metrics,
    });
    this.#track(call);
    try {
      response.setHeader("X-Content-Type-Options", "nosniff");
      response.setHeader("X-Request-Id", randomUUID());
      if (this.draining) response.shouldKeepAlive = false;
      for (const [name, value] of Object.entries(this.#access.corsHeaders(request.headers))) response.setHeader(name, value);
      await this.#route(call, path, query);
    } catch (error) {
      if (isFault(error)) this.#fail(error);
      call.fail(error);
    }
  }

  /** A drain waits for calls; connections know whether an answer is under way. */
  #track(call: Call): void {
    const { socket } = call.request;
    this.#calls.add(call);
    this.#answering.set(socket, (this.#answering.get(socket) ?? 0) + 1);
    call.response.once("close", () => {
      this.#calls.delete(call);
      this.#answering.set(socket, (this.#answering.get(socket) ?? 1) - 1);
      this.#metrics.response(call.route, call.response.statusCode);
      if (this.#calls.size === 0) this.#onIdle?.();
    });
  }

  async #route(call: Call, path: string, query: string): Promise<void> {
    const { method = "", headers } = call.request;
    checkHosts(call.request);
    if (method === "OPTIONS") return this.#preflight(call);
    this.#access.checkPlace(headers);
    const isGet = method === "GET" || method === "HEAD";
    if (path === "/health") return isGet ? this.#health(call, query) : refuseMethod(method, path, "GET");
    const page = this.#pages.get(path);
    if (page !== undefined) return isGet ? sendPage(call, page) : refuseMethod(method, path, "GET");
    this.#access.checkKey(headers);
    if (path === "/metrics") return isGet ? this.#sendMetrics(call) : refuseMethod(method, path, "GET");
    const route = Object.hasOwn(ROUTES, path) ? ROUTES[path] : undefined;
    if (route === undefined) throw noRoute(path);
    if (route.method === "GET" ? !isGet : method !== "POST") refuseMethod(method, path, route.method);
    await route.handler(call, this.#ready());
  }

  #preflight(call: Call): void {
    const headers = this.#access.preflight(call.request.headers);
    if (headers === undefined) throw new HttpError(403, "foreign_origin", "this origin may not use this server; allow it with --cors");
    call.response.writeHead(204, headers).end();
  }

  #health(call: Call, query: string): void {
    const live = new URLSearchParams(query).has("live");
    if (live) {
      call.sendJson({ status: "live" });
      return;
    }
    const state = this.#current();
    const reason = "reason" in state ? { reason: state.reason } : {};
    call.sendJson({ status: state.is, ...reason }, state.is === "ready" ? 200 : 503);
  }

  #sendMetrics(call: Call): void {
    const page = this.#metrics.page(this.#served?.model ?? "", this.#served?.engine.stats);
    call.send(200, "text/plain; version=0.0.4; charset=utf-8", page);
  }

  /** The state now: an engine is its owner's, who may have closed it, and may have failed while nobody called. */
  #current(): State {
    const state = this.#state;
    if (state.is !== "ready") return state;
    const { closed, failure } = state.served.engine;
    if (closed) return { is: "closed", reason: "the engine is closed" };
    return failure === undefined ? state : { is: "failed", reason: failure.message };
  }

  #ready(): ServedEngine {
    const state = this.#current();
    if (state.is === "ready") return state.served;
    if (state.is === "loading") throw unavailable("loading", "the model is being loaded");
    if (state.is === "draining") throw unavailable("server_draining", DRAINED);
    if (state.is === "closed") throw broken("disposed", state.reason);
    throw broken("unhealthy", `the engine has failed: ${state.reason}`);
  }

  /** What is not HTTP, or came too slowly. Where an answer is under way nothing can be said in between. */
  #refuse(error: NodeJS.ErrnoException, socket: Socket): void {
    if (!socket.writable || error.code === "ECONNRESET" || (this.#answering.get(socket) ?? 0) > 0) {
      socket.destroy();
      return;
    }
    const failure = asHttpError(connectionError(error), {});
    const body = JSON.stringify(failure.body);
    const head = [
      `HTTP/1.1 ${failure.status} ${REASONS[failure.status]}`,
      "Content-Type: application/json",
      `Content-Length: ${Buffer.byteLength(body)}`,
      "Connection: close",
    ];
    this.#metrics.response("other", failure.status);
    socket.end(`${head.join("\r\n")}\r\n\r\n${body}`, () => socket.destroy());
  }
}

const REASONS: Readonly<Record<number, string>> = { 400: "Bad Request", 408: "Request Timeout", 431: "Request Header Fields Too Large" };

function connectionError(error: NodeJS.ErrnoException): HttpError {
  if (error.code === "ERR_HTTP_REQUEST_TIMEOUT") return new HttpError(408, "request_timeout", "the request did not arrive in time");
  if (error.code === "HPE_HEADER_OVERFLOW")
    return new HttpError(431, "header_too_large", `the head is larger than ${MAX_HEADER_BYTES} bytes`);
  return new HttpError(400, "bad_request", "this is not HTTP/1.1 as it should be");
}

/** What an engine says of itself. */
function engineInfo(engine: ServableEngine | null | undefined): ServedEngine["info"] {
  const info = engine?.info;
  if (typeof info !== "object") throw new LongcatError("OPTION_INVALID", "engine: not an engine; give one that Engine.load has made");
  return info;
}

/** The path and what is behind its question mark. */
function splitUrl(url: string): [string, string] {
  const at = url.indexOf("?");
  return at < 0 ? [url, ""] : [url.slice(0, at), url.slice(at + 1)];
}

/** Throws a 400 unless there is one Host. Of several Node gives the first, and something in between might have looked at another. */
function checkHosts({ rawHeaders, httpVersion }: IncomingMessage): void {
  const count = rawHeaders.filter((text, i) => i % 2 === 0 && text.toLowerCase() === "host").length;
  if (count > 1 || (count === 0 && httpVersion !== "1.0"))
    throw new HttpError(400, "bad_request", `Host: ${count === 0 ? "is missing" : "is there twice"}; give one`, { close: true });
}

/** The 404 of a path; a route with a slash too many at its end is named. */
function noRoute(path: string): HttpError {
  const meant = path.replace(/\/+$/, "");
  const hint = Object.hasOwn(ROUTES, meant)
    ? `the route is ${meant}, without the slash at its end`
    : `routes are ${Object.keys(ROUTES).join(", ")}`;
  return new HttpError(404, "not_found", `there is no ${path.slice(0, 200)}; ${hint}`);
}

function refuseMethod(method: string, path: string, allowed: string): never {
  throw new HttpError(405, "method_not_allowed", `${path} takes ${allowed}, not ${method}`, { headers: { Allow: allowed } });
}

function sendPage(call: Call, { type, body }: PageFile): void {
  call.send(200, type, body, { "Cache-Control": "no-cache", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY" });
}
