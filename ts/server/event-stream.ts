/**
 * Server-sent events. Nobody waits for a client that reads slowly: frames are kept meanwhile. It must take each write within the time-out, or
 * is cut; so what is kept is what two time-outs bring at most.
 * @module
 */

import type { ServerResponse } from "node:http";
import type { ErrorBody } from "./errors.js";

const HEADERS = {
  "Content-Type": "text/event-stream; charset=utf-8",
  "Cache-Control": "no-cache, no-transform",
  "X-Accel-Buffering": "no",
};

/**
 * Frames that follow each other within this time travel in one write. A write costs some microseconds of system time, which counts where
 * many streams get a token a millisecond; a model whose steps take longer has each token sent at once.
 */
const JOINED_MS = 4;

export class EventStream {
  readonly #response: ServerResponse;
  readonly #writeTimeoutMs: number;
  readonly #onStall: () => void;
  readonly #keepAlive: NodeJS.Timeout;
  /** Frames that are not written yet. */
  #pending = "";
  #flushing = false;
  #flushedMs = Number.NEGATIVE_INFINITY;
  /** While the client has not read what was written. */
  #blocked: Promise<void> | undefined;
  #ended = false;

  constructor(response: ServerResponse, options: { writeTimeoutMs: number; keepAliveMs: number }, onStall: () => void) {
    this.#response = response;
    this.#writeTimeoutMs = options.writeTimeoutMs;
    this.#onStall = onStall;
    // A comment, which clients skip: proxies see that the connection lives while a long prompt or the queue is waited for.
    this.#keepAlive = setInterval(() => {
      if (performance.now() - this.#flushedMs < options.keepAliveMs || this.#blocked !== undefined) return;
      this.#write(": waiting\n\n");
    }, options.keepAliveMs);
    response.once("close", () => this.stop());
  }

  /** Sends one frame. */
  send(json: string): void {
    if (this.#ended || this.#response.destroyed) return;
    this.#pending += `data: ${json}\n\n`;
    if (this.#flushing || this.#blocked !== undefined) return;
    this.#flushing = true;
    const waitMs = this.#flushedMs + JOINED_MS - performance.now();
    if (waitMs > 1) setTimeout(this.#flush, waitMs);
    else setImmediate(this.#flush);
  }

  /** The end of a good answer, once the client has read what was sent before. */
  async done(): Promise<void> {
    while (this.#blocked !== undefined) await this.#blocked;
    this.#end("data: [DONE]\n\n");
  }

  /** The end of an answer that failed after its head was sent: its last frame says so. */
  fail(body: ErrorBody): void {
    this.#end(`data: ${JSON.stringify(body)}\n\n`);
  }

  /** Sends nothing more. */
  stop(): void {
    this.#ended = true;
    this.#pending = "";
    clearInterval(this.#keepAlive);
  }

  readonly #flush = (): void => {
    this.#flushing = false;
    if (this.#ended || this.#response.destroyed || this.#pending === "") return;
    const text = this.#pending;
    this.#pending = "";
    this.#write(text);
  };

  #write(text: string): void {
    const response = this.#response;
    if (!response.headersSent) response.writeHead(200, HEADERS);
    this.#flushedMs = performance.now();
    if (!response.write(text)) this.#blocked = this.#drained();
  }

  #end(last: string): void {
    if (this.#ended || this.#response.destroyed) return;
    if (!this.#response.headersSent) this.#response.writeHead(200, HEADERS);
    this.#response.end(this.#pending + last);
    this.stop();
  }

  /** Waits until the client has read. One that does not within the time-out has its connection cut. */
  #drained(): Promise<void> {
    const response = this.#response;
    return new Promise((resolve) => {
      const end = (): void => {
        clearTimeout(timer);
        response.off("drain", end).off("close", end);
        this.#blocked = undefined;
        this.#flush();
        resolve();
      };
      const timer = setTimeout(() => {
        this.#onStall();
        response.destroy();
        end();
      }, this.#writeTimeoutMs);
      response.on("drain", end).on("close", end);
    });
  }
}
