/**
 * Runs the encoding of long texts in a worker thread. The thread starts with the first long text, keeps the process
 * alive only while it works, and ends after some idle time.
 * @module
 */
import { statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { LongcatError } from "../errors.js";
import { compiledFile } from "../runtime/compiled.js";

/** Plain texts and ids between them. */
export interface EncodeRequest {
  id: number;
  segments: (string | number)[];
}

/** The answer to a request. */
export type EncodeReply = { id: number; ids: Int32Array<ArrayBuffer>; error?: undefined } | { id: number; error: string };

const IDLE_MS = 30_000;

/** Starts a thread for a tokenizer's folder; null where there is none to start. */
export type StartWorker = (dir: string) => Worker | null;

/** What waits for an answer. */
interface Waiting {
  /** null: the thread could not do it. */
  resolve(ids: number[] | null): void;
  reject(error: LongcatError): void;
}

/** The thread of one tokenizer. */
export class EncodeWorker {
  readonly #dir: string;
  readonly #startWorker: StartWorker;
  #worker: Worker | null = null;
  #idle: NodeJS.Timeout | null = null;
  #requests = 0;
  #closed = false;
  readonly #waiting = new Map<number, Waiting>();

  constructor(dir: string, start: StartWorker = startWorker) {
    this.#dir = dir;
    this.#startWorker = start;
  }

  /**
   * The ids of some segments; null if no thread can do it here, and the caller must.
   *
   * @throws LongcatError `DISPOSED` once it is closed.
   */
  async encode(segments: (string | number)[]): Promise<number[] | null> {
    if (this.#closed) throw closed();
    const worker = this.#start();
    if (worker === null) return null;
    const id = this.#requests++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      worker.ref();
      worker.postMessage({ id, segments } satisfies EncodeRequest);
    });
  }

  /** Ends the thread for good. Texts that it still has are nobody's work any more: they are rejected. */
  close(): void {
    this.#closed = true;
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    this.#end();
    for (const { reject } of waiting) reject(closed());
  }

  /** Ends the thread; the next text starts another. */
  #end(): void {
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
    let worker: Worker | null;
    try {
      worker = this.#startWorker(this.#dir);
    } catch {
      return null; // the system gives no thread now (its limit, its memory): the text is encoded without one
    }
    if (worker === null) return null;
    worker.on("message", (reply: EncodeReply) => this.#settle(reply));
    const lost = worker;
    worker.on("error", () => this.#lose(lost));
    worker.on("exit", () => this.#lose(lost));
    this.#worker = worker;
    return worker;
  }

  #settle(reply: EncodeReply): void {
    const waiting = this.#waiting.get(reply.id);
    this.#waiting.delete(reply.id);
    if (this.#waiting.size === 0) this.#rest();
    waiting?.resolve(reply.error === undefined ? Array.from(reply.ids) : null);
  }

  #rest(): void {
    this.#worker?.unref();
    this.#idle = setTimeout(() => this.#end(), IDLE_MS);
    this.#idle.unref();
  }

  #lose(worker: Worker): void {
    if (this.#worker !== worker) return;
    this.#worker = null;
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { resolve } of waiting) resolve(null);
  }
}

function startWorker(dir: string): Worker | null {
  const file = workerFile();
  return file === null ? null : new Worker(file, { workerData: { dir }, execArgv: [] });
}

function closed(): LongcatError {
  return new LongcatError("DISPOSED", "the tokenizer was closed before the text was encoded");
}

/** The compiled worker; when this is the TypeScript source, only if that one is up to date. */
function workerFile(): string | null {
  const here = fileURLToPath(import.meta.url);
  const compiled = compiledFile(import.meta.url, "encode-worker");
  if (compiled === null || here.endsWith(".js")) return compiled;
  return statSync(compiled).mtimeMs >= statSync(here).mtimeMs ? compiled : null;
}
