/**
 * Server-sent events: one frame a call, in step with a client that reads slowly, cut if it does not read at all.
 * @module
 */

import type { ServerResponse } from "node:http";
import type { ErrorBody } from "./errors.js";

const HEADERS = {
  "Content-Type": "text/event-stream; charset=utf-8",
  "Cache-Control": "no-cache, no-transform",
  "X-Accel-Buffering": "no",
};

export class EventStream {
  readonly #response: ServerResponse;
  readonly #writeTimeoutMs: number;
  readonly #onStall: () => void;
  readonly #keepAlive: NodeJS.Timeout;
  #ended = false;

  constructor(response: ServerResponse, options: { writeTimeoutMs: number; keepAliveMs: number }, onStall: () => void) {
    this.#response = response;
    this.#writeTimeoutMs = options.writeTimeoutMs;
    this.#onStall = onStall;
    // A comment, which clients skip: proxies see that the connection lives while a long prompt or the queue is waited for.
    this.#keepAlive = setInterval(() => {
      if (response.writableNeedDrain) return;
      this.#start();
      response.write(": waiting\n\n");
    }, options.keepAliveMs);
    response.once("close", () => this.stop());
  }

  /** Sends one frame; resolves when there is room for more. */
  async send(json: string): Promise<void> {
    if (this.#ended || this.#response.destroyed) return;
    this.#start();
    this.#keepAlive.refresh();
    if (!this.#response.write(`data: ${json}\n\n`)) await this.#drained();
  }

  /** The end of a good answer. */
  async done(): Promise<void> {
    await this.send("[DONE]");
    this.#end();
  }

  /** The end of an answer that failed after its head was sent: its last frame says so. */
  fail(body: ErrorBody): void {
    if (this.#ended || this.#response.destroyed) return;
    this.#response.write(`data: ${JSON.stringify(body)}\n\n`);
    this.#end();
  }

  stop(): void {
    clearInterval(this.#keepAlive);
  }

  #start(): void {
    if (!this.#response.headersSent) this.#response.writeHead(200, HEADERS);
  }

  #end(): void {
    this.#ended = true;
    this.stop();
    this.#response.end();
  }

  /** Waits until the client has read. One that does not within the time-out has its connection cut. */
  #drained(): Promise<void> {
    const response = this.#response;
    return new Promise((resolve) => {
      const end = (): void => {
        clearTimeout(timer);
        response.off("drain", end).off("close", end);
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
