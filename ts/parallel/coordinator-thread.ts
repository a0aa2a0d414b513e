/**
 * The coordinator's thread, as the leader's main thread sees it.
 * @module
 */

import { Worker } from "node:worker_threads";
import type { LoadProgress } from "../engine/options.js";
import { LongcatError } from "../errors.js";
import type { CoordinatorOptions } from "./coordinator.js";
import type { RankFacts } from "./group.js";
import { programFile } from "./programs.js";
import { fromWire, type WireError } from "./wire-error.js";

/** What the thread tells. */
export type FromCoordinator =
  | { type: "listens"; port: number }
  | { type: "progress"; progress: LoadProgress }
  | { type: "warning"; message: string }
  | { type: "started"; facts: RankFacts[] }
  | { type: "lost"; error: WireError }
  | { type: "quiet" };

/** What it is told. */
export type ToCoordinatorThread =
  | { type: "ended"; rank: number; how: string }
  | { type: "disconnected"; rank: number; why: string }
  | { type: "close" };

export class CoordinatorThread {
  /** The port at which ranks find it; rejects where it cannot listen. */
  readonly listens: Promise<number>;
  /** All ranks have loaded; rejects where they have not. */
  readonly started: Promise<RankFacts[]>;
  /** Resolves when, after `close`, no rank has work any more. */
  readonly quiet: Promise<void>;
  /** Resolves once, if a rank is lost or a load failed. */
  readonly lost: Promise<LongcatError>;
  readonly #worker: Worker;
  #isOver = false;

  constructor(options: CoordinatorOptions, listener: { onProgress(progress: LoadProgress): void; onWarning(message: string): void }) {
    const worker = new Worker(programFile("coordinator-main"), { workerData: options, execArgv: [] });
    this.#worker = worker;
    let lose!: (error: LongcatError) => void;
    this.lost = new Promise((resolve) => {
      lose = resolve;
    });
    const untilLost = <T>(listen: (resolve: (value: T) => void) => void): Promise<T> => {
      const promise = new Promise<T>((resolve, reject) => {
        listen(resolve);
        void this.lost.then(reject);
      });
      promise.catch(() => undefined); // told to whoever awaits it
      return promise;
    };
    const heard = <K extends FromCoordinator["type"]>(type: K, then: (message: Extract<FromCoordinator, { type: K }>) => void): void => {
      worker.on("message", (message: FromCoordinator) => {
        if (message.type === type) then(message as Extract<FromCoordinator, { type: K }>);
      });
    };
    this.listens = untilLost((resolve) => heard("listens", ({ port }) => resolve(port)));
    this.started = untilLost((resolve) => heard("started", ({ facts }) => resolve(facts)));
    this.quiet = untilLost((resolve) => heard("quiet", () => resolve()));
    heard("progress", ({ progress }) => listener.onProgress(progress));
    heard("warning", ({ message }) => listener.onWarning(message));
    heard("lost", ({ error }) => lose(fromWire(error)));
    worker.on("error", (error) => lose(new LongcatError("COMM_ERROR", `the coordinator failed: ${error.message}`, { cause: error })));
    worker.on("exit", () => {
      if (!this.#isOver) lose(new LongcatError("COMM_ERROR", "the coordinator's thread has ended"));
    });
  }

  /** A rank's process has ended. */
  ended(rank: number, how: string): void {
    this.#tell({ type: "ended", rank, how });
  }

  /** A rank's connection to the main thread has ended. */
  disconnected(rank: number, why: string): void {
    this.#tell({ type: "disconnected", rank, why });
  }

  /** Asks the ranks to end. */
  close(): void {
    this.#tell({ type: "close" });
  }

  /** Whether the thread keeps the process alive. */
  keepAlive(does: boolean): void {
    if (does) this.#worker.ref();
    else this.#worker.unref();
  }

  /** Ends the thread, and with it its connections. */
  async end(): Promise<void> {
    this.#isOver = true;
    await this.#worker.terminate();
  }

  #tell(message: ToCoordinatorThread): void {
    this.#worker.postMessage(message);
  }
}
