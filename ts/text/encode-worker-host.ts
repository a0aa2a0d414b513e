/**
 * Runs the encoding of long texts in a worker thread. The thread starts with the first long text, keeps the process
 * alive only while it works, and ends after some idle time.
 * @module
 */
import { existsSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";

/** Plain texts and ids between them. */
export interface EncodeRequest {
  id: number;
  segments: (string | number)[];
}

/** The answer to a request. */
export type EncodeReply = { id: number; ids: Int32Array<ArrayBuffer>; error?: undefined } | { id: number; error: string };

const IDLE_MS = 30_000;

/** The thread of one tokenizer. */
export class EncodeWorker {
  readonly #dir: string;
  #worker: Worker | null = null;
  #idle: NodeJS.Timeout | null = null;
  #requests = 0;
  /** What to do with each answer; null: the thread could not do it. */
  readonly #waiting = new Map<number, (ids: number[] | null) => void>();

  constructor(dir: string) {
    this.#dir = dir;
  }

  /** The ids of some segments; null if no thread can do it here, and the caller must. */
  async encode(segments: (string | number)[]): Promise<number[] | null> {
    const worker = this.#start();
    if (worker === null) return null;
    const id = this.#requests++;
    return new Promise((resolve) => {
      this.#waiting.set(id, resolve);
      worker.ref();
      worker.postMessage({ id, segments } satisfies EncodeRequest);
    });
  }

  /** Ends the thread. Texts that it still has are left to their callers. */
  close(): void {
    if (this.#idle !== null) clearTimeout(this.#idle);
    this.#idle = null;
    const worker = this.#worker;
    if (worker === null) return;
    this.#lose(worker);
    void worker.terminate();
  }

  #start(): Worker | null {
    if (this.#idle !== null) clearTimeout(this.#idle);
    this.#idle = null;
    if (this.#worker !== null) return this.#worker;
    const file = workerFile();
    if (file === null) return null;
    const worker = new Worker(file, { workerData: { dir: this.#dir }, execArgv: [] });
    worker.on("message", (reply: EncodeReply) => this.#settle(reply));
    worker.on("error", () => this.#lose(worker));
    worker.on("exit", () => this.#lose(worker));
    this.#worker = worker;
    return worker;
  }

  #settle(reply: EncodeReply): void {
    const resolve = this.#waiting.get(reply.id);
    this.#waiting.delete(reply.id);
    if (this.#waiting.size === 0) this.#rest();
    resolve?.(reply.error === undefined ? Array.from(reply.ids) : null);
  }

  #rest(): void {
    this.#worker?.unref();
    this.#idle = setTimeout(() => this.close(), IDLE_MS);
    this.#idle.unref();
  }

  #lose(worker: Worker): void {
    if (this.#worker !== worker) return;
    this.#worker = null;
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const resolve of waiting) resolve(null);
  }
}

/** The compiled worker: beside this file, or, when this is the TypeScript source, in dist if that is up to date. */
function workerFile(): string | null {
  const here = fileURLToPath(import.meta.url);
  if (here.endsWith(".js")) return fileURLToPath(new URL("./encode-worker.js", import.meta.url));
  const compiled = fileURLToPath(new URL("../../dist/text/encode-worker.js", import.meta.url));
  return existsSync(compiled) && statSync(compiled).mtimeMs >= statSync(here).mtimeMs ? compiled : null;
}
