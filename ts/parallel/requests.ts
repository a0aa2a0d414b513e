/**
 * A rank's answers to its leader: calls come in over a connection, its engine runs them, pieces and results go back.
 * @module
 */

import type { Engine } from "../engine/engine.js";
import type { Chunk } from "../engine/types.js";
import { type Connection, readValue } from "./connection.js";
import { Frame, type ToLeader, type ToRequests } from "./messages.js";
import { toWire } from "./wire-error.js";

/** The leader is told so often what the rank does, while it does something. */
const STATS_MS = 250;

export class Requests {
  readonly #engine: Engine;
  readonly #connection: Connection;
  readonly #running = new Map<number, AbortController>();
  readonly #timer: NodeJS.Timeout;
  /** Pieces that this turn of the event loop has given. */
  #chunks: [id: number, chunk: Chunk][] = [];
  #isAtRest = false;
  #isStopped = false;

  constructor(engine: Engine, connection: Connection) {
    this.#engine = engine;
    this.#connection = connection;
    this.#timer = setInterval(() => this.#tellStats(), STATS_MS);
    this.#tellStats();
  }

  /** What came over the connection. */
  receive(body: Buffer): void {
    const message = readValue(body) as ToRequests;
    switch (message.type) {
      case "abort":
        this.#running.get(message.id)?.abort();
        break;
      case "generate":
        this.#answer(message.id, (signal) =>
          this.#engine.generateEncoded(message.prompt, { ...message.parameters, signal }, (chunk) => this.#push(message.id, chunk)),
        );
        break;
      case "score":
        this.#answer(message.id, (signal) => this.#engine.score(message.prompt, { ...message.options, signal }));
        break;
    }
  }

  /** From now on nothing is told: neither pieces that wait for the end of this turn nor what becomes of the calls. Their leader learns from the coordinator. */
  stop(): void {
    this.#isStopped = true;
    clearInterval(this.#timer);
  }

  /** Resolves when all answers have left this process. */
  close(): Promise<void> {
    clearInterval(this.#timer);
    return this.#connection.close();
  }

  #answer(id: number, call: (signal: AbortSignal) => Promise<unknown>): void {
    const controller = new AbortController();
    this.#running.set(id, controller);
    this.#isAtRest = false;
    const settled = (message: ToLeader): void => {
      this.#running.delete(id);
      this.#flush();
      this.#tellStats();
      this.#tell(message);
    };
    call(controller.signal).then(
      (result) => settled({ type: "result", id, result }),
      (error) => settled({ type: "error", id, error: toWire(error) }),
    );
  }

  /** Pieces of one step travel together. */
  #push(id: number, chunk: Chunk): void {
    if (this.#chunks.length === 0) queueMicrotask(() => this.#flush());
    this.#chunks.push([id, chunk]);
  }

  #flush(): void {
    if (this.#chunks.length > 0) this.#tell({ type: "chunks", chunks: this.#chunks });
    this.#chunks = [];
  }

  /** At rest nothing changes: that is told once. */
  #tellStats(): void {
    const wasAtRest = this.#isAtRest;
    const { stats } = this.#engine;
    this.#isAtRest = this.#running.size === 0 && stats.runningSequences + stats.waitingSequences === 0;
    if (!wasAtRest || !this.#isAtRest) this.#tell({ type: "stats", stats });
  }

  #tell(message: ToLeader): void {
    if (!this.#isStopped) this.#connection.sendValue(Frame.value, message);
  }
}
