/**
 * A rank as the leader's main thread sees it: calls that go there, and the pieces and results that come back.
 * @module
 */

import type { ScoreOptions } from "../engine/engine.js";
import type { EncodedPrompt } from "../engine/prompt.js";
import type { Chunk, EngineStats, GenerateResult, ScoreResult, TokenPrompt } from "../engine/types.js";
import { LongcatError } from "../errors.js";
import type { PlainParameters } from "../sampling/parameters.js";
import { type Connection, readValue } from "./connection.js";
import type { RemoteCall } from "./group.js";
import { Frame, type ToLeader, type ToRequests } from "./messages.js";
import { fromWire, toWire } from "./wire-error.js";

/** A call in flight. */
interface Pending {
  onChunk(chunk: Chunk): void;
  resolve(result: unknown): void;
  reject(error: unknown): void;
  /** Once it was to end: why, and with what. Its pieces are nobody's any more. */
  aborted?: { error: unknown } | { message: string; cause: unknown };
}

export class RemoteRank {
  readonly #connection: Connection;
  readonly #pending = new Map<number, Pending>();
  #numCalls = 0;
  #stats: EngineStats | undefined;
  #firstStats!: () => void;
  #failure: LongcatError | undefined;
  /** Resolves when it has told what it does for the first time. */
  readonly heard = new Promise<void>((resolve) => {
    this.#firstStats = resolve;
  });

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** The newest that is known, once `heard` has resolved. */
  get stats(): EngineStats {
    return structuredClone(this.#stats as EngineStats);
  }

  generate(prompt: EncodedPrompt, parameters: PlainParameters, onChunk: (chunk: Chunk) => void): RemoteCall<GenerateResult> {
    return this.#call((id) => ({ type: "generate", id, prompt, parameters }), onChunk);
  }

  score(prompt: readonly number[] | string | TokenPrompt, options: Omit<ScoreOptions, "signal">): RemoteCall<ScoreResult> {
    return this.#call(
      (id) => ({ type: "score", id, prompt, options }),
      () => undefined,
    );
  }

  /** Lets the process end although it is connected. */
  unref(): void {
    this.#connection.keepAlive(false);
  }

  /** What came over its connection. */
  receive(body: Buffer): void {
    const message = readValue(body) as ToLeader;
    switch (message.type) {
      case "stats":
        this.#stats = message.stats;
        this.#firstStats();
        break;
      case "chunks":
        for (const [id, chunk] of message.chunks) this.#hand(id, chunk);
        break;
      case "result":
        this.#settle(message.id, (pending) => pending.resolve(message.result));
        break;
      case "error":
        this.#settle(message.id, (pending) => pending.reject(fromWire(message.error)));
        break;
    }
  }

  /** No call is answered any more: those in flight, and all that come, are rejected with this. */
  fail(error: LongcatError): void {
    this.#failure ??= error;
    for (const { reject } of this.#pending.values()) reject(this.#failure);
    this.#pending.clear();
  }

  /** Closes the connection. Calls that are still in flight end as aborted ones. */
  close(error: LongcatError): void {
    this.fail(error);
    this.#connection.destroy();
  }

  #call<T>(request: (id: number) => ToRequests, onChunk: (chunk: Chunk) => void): RemoteCall<T> {
    const id = this.#numCalls++;
    const done = new Promise<T>((resolve, reject) => {
      if (this.#failure !== undefined) return reject(this.#failure);
      try {
        this.#connection.sendValue(Frame.value, request(id));
      } catch (error) {
        return reject(new LongcatError("INTERNAL", `a call cannot be sent: ${toWire(error).message}`, { cause: error }));
      }
      this.#pending.set(id, { onChunk, resolve: resolve as (result: unknown) => void, reject });
    });
    done.catch(() => undefined); // whoever waits sees the error; nobody has to
    return { done, abort: (message, cause) => this.#abort(id, { message, cause }) };
  }

  #abort(id: number, how: NonNullable<Pending["aborted"]>): void {
    const pending = this.#pending.get(id);
    if (pending === undefined || pending.aborted !== undefined) return;
    pending.aborted = how;
    this.#connection.sendValue(Frame.value, { type: "abort", id } satisfies ToRequests);
  }

  /** A piece of an answer for its listener. What that throws ends the call. */
  #hand(id: number, chunk: Chunk): void {
    const pending = this.#pending.get(id);
    if (pending === undefined || pending.aborted !== undefined) return;
    try {
      pending.onChunk(chunk);
    } catch (error) {
      this.#abort(id, { error });
    }
  }

  /** The end of a call. One that was to end is aborted, even if its answer was whole when its rank heard of it; one that had failed by then has failed. */
  #settle(id: number, settle: (pending: Pending) => void): void {
    const pending = this.#pending.get(id);
    if (pending === undefined) return;
    this.#pending.delete(id);
    const { aborted } = pending;
    if (aborted === undefined) settle(pending);
    else if ("error" in aborted) pending.reject(aborted.error);
    else {
      const { message, cause } = aborted;
      const abort = (partial: unknown): void => pending.reject(new LongcatError("ABORTED", message, { cause, partial }));
      const fail = (error: unknown): void => {
        const { code, partial } = error as LongcatError;
        if (code === "ABORTED") abort(partial);
        else pending.reject(error);
      };
      settle({ ...pending, resolve: abort, reject: fail });
    }
  }
}
