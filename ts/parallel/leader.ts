/**
 * Starting a group of ranks, leading it, and ending it.
 * @module
 */

import { randomBytes } from "node:crypto";
import { resolve as absolutePath } from "node:path";
import { onAbort } from "../engine/abort.js";
import type { ScoreOptions } from "../engine/engine.js";
import type { EncodedPrompt } from "../engine/prompt.js";
import type { Chunk, EngineStats, GenerateResult, ScoreResult, TokenPrompt } from "../engine/types.js";
import { LongcatError } from "../errors.js";
import { packageVersion } from "../runtime/addon.js";
import type { PlainParameters } from "../sampling/parameters.js";
import { CoordinatorThread } from "./coordinator-thread.js";
import type { GroupOptions, RankFacts, RankGroup, RemoteCall } from "./group.js";
import { isOneHost } from "./launcher.js";
import type { PlainOptions } from "./messages.js";
import { joinMs, rankPlaces } from "./rank-places.js";
import { RankProcess } from "./rank-process.js";
import type { RemoteRank } from "./remote-rank.js";
import { within } from "./within.js";
import { RequestServer } from "./request-server.js";

/** Ranks that are asked to end have so long: their calls, a step that is under way, their memory. */
const CLOSE_MS = 10_000;

/** So long a load may stand still. */
const LOAD_MS = 600_000;

/** What calls end with that a closed group still had. */
const closed = (): LongcatError => new LongcatError("ABORTED", "the engine was closed");

/** The only address that ranks of one host need. */
const LOOPBACK = "127.0.0.1";

/**
 * Starts the ranks of this process and waits for all of the group.
 *
 * @throws LongcatError what a load throws, beginning with the rank whose it is; COMM_ERROR naming ranks that did not come, or were lost meanwhile;
 * OPTION_INVALID: ranks that cannot be shared out; ABORTED if `options.signal` fired
 */
export async function startGroup(options: GroupOptions): Promise<RankGroup> {
  const { place } = options;
  const token = place?.token ?? randomBytes(32).toString("hex");
  const own = isOneHost(place) ? LOOPBACK : undefined;
  const ranks = options.options.parallel.expert;
  rankPlaces(options, { address: LOOPBACK, port: 0 }); // checks before anything is started
  const requests = await RequestServer.listen({ ranks, token, address: own, port: place && !isOneHost(place) ? place.port + 1 : 0 });
  const load = new Load(options);
  let group: Group | undefined;
  try {
    const coordinator = new CoordinatorThread(
      {
        ...{ ranks, token, port: place?.port ?? 0, address: own },
        ...{ connectMs: joinMs(options), loadMs: LOAD_MS },
        starter: place === undefined ? "they are processes of this host" : `${place.launcher} started ${place.processes} processes`,
        setup: {
          version: packageVersion(),
          directory: absolutePath(options.directory),
          options: plain(options),
          requestsPort: requests.port,
        },
      },
      load,
    );
    group = new Group(coordinator, requests);
    const port = await load.orStopped(coordinator.listens);
    group.start(rankPlaces(options, { address: LOOPBACK, port }).map((rank) => new RankProcess(rank, token)));
    await load.orStopped(group.serve());
    return group;
  } catch (error) {
    await (group?.end() ?? requests.close(closed()));
    throw error;
  } finally {
    load.over();
  }
}

/** The caller's part in a load: what it hears, and its wish to stop. */
class Load {
  readonly #options: GroupOptions["options"];
  #stop!: (error: unknown) => void;
  readonly #stopped = new Promise<never>((_, reject) => {
    this.#stop = reject;
  });
  readonly over: () => void;

  constructor({ options }: GroupOptions) {
    this.#options = options;
    this.#stopped.catch(() => undefined); // told to whoever awaits something
    const { signal } = options;
    const stop = (): void => this.#stop(new LongcatError("ABORTED", "the load was aborted", { cause: signal?.reason }));
    this.over = onAbort(signal, stop);
    if (signal?.aborted) stop();
  }

  /** The promise, unless the load is to stop before. */
  orStopped<T>(promise: Promise<T>): Promise<T> {
    return Promise.race([promise, this.#stopped]);
  }

  onProgress = (progress: { doneBytes: number; totalBytes: number }): void => this.#call(() => this.#options.onProgress?.(progress));
  onWarning = (message: string): void => this.#call(() => this.#options.onWarning(message));

  /** What a listener throws ends the load. */
  #call(listener: () => void): void {
    try {
      listener();
    } catch (error) {
      this.#stop(error);
    }
  }
}

class Group implements RankGroup {
  ranks: readonly RankFacts[] = [];
  readonly lost: Promise<LongcatError>;
  readonly #coordinator: CoordinatorThread;
  readonly #requests: RequestServer;
  #processes: readonly RankProcess[] = [];
  #remotes: readonly RemoteRank[] = [];
  /** Calls in flight. */
  #numCalls = 0;
  #failure: LongcatError | undefined;
  #closing: Promise<void> | undefined;
  #ending: Promise<void> | undefined;

  constructor(coordinator: CoordinatorThread, requests: RequestServer) {
    this.#coordinator = coordinator;
    this.#requests = requests;
    this.lost = new Promise((resolve) => {
      void coordinator.lost.then((error) => {
        this.#failure = error;
        requests.fail(error);
        if (this.#closing === undefined) resolve(error);
        void this.end();
      });
    });
    void requests.broken.then(({ rank, why }) => coordinator.disconnected(rank, why));
  }

  /** Leads these processes, which were started here. */
  start(processes: readonly RankProcess[]): void {
    this.#processes = processes;
    for (const { rank, ended } of processes) void ended.then(({ how }) => this.#coordinator.ended(rank, how));
  }

  /** Resolves when all ranks take requests. From then on the group keeps the process alive only while it answers some. */
  async serve(): Promise<void> {
    const lost = this.#coordinator.lost.then((error) => Promise.reject(error));
    await Promise.race([this.#arrive(), lost]);
    for (const part of [this.#requests, ...this.#processes]) part.unref();
    this.#coordinator.keepAlive(false);
  }

  async #arrive(): Promise<void> {
    this.ranks = await this.#coordinator.started;
    this.#remotes = await this.#requests.ranks;
    await Promise.all(this.#remotes.map(({ heard }) => heard));
  }

  generate(rank: number, prompt: EncodedPrompt, parameters: PlainParameters, onChunk: (chunk: Chunk) => void): RemoteCall<GenerateResult> {
    return this.#inFlight(this.#remote(rank).generate(prompt, parameters, onChunk));
  }

  score(rank: number, prompt: readonly number[] | string | TokenPrompt, options: Omit<ScoreOptions, "signal">): RemoteCall<ScoreResult> {
    return this.#inFlight(this.#remote(rank).score(prompt, options));
  }

  stats(rank: number): EngineStats {
    return this.#remote(rank).stats;
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** Ends everything at once. */
  end(): Promise<void> {
    this.#ending ??= this.#end();
    return this.#ending;
  }

  async #close(): Promise<void> {
    if (this.#failure === undefined) {
      this.#coordinator.close();
      await within(CLOSE_MS, Promise.race([this.#coordinator.quiet, this.#coordinator.lost]));
      await within(CLOSE_MS, Promise.all(this.#processes.map(({ ended }) => ended)));
    }
    await this.end();
  }

  async #end(): Promise<void> {
    this.#requests.close(this.#failure ?? closed());
    await Promise.all(this.#processes.map((process) => process.end()));
    await this.#coordinator.end();
  }

  /** Keeps the process alive while a call lasts, through the thread that knows whether its rank lives: a lost rank's connection and process are gone. */
  #inFlight<T>(call: RemoteCall<T>): RemoteCall<T> {
    if (this.#numCalls++ === 0) this.#coordinator.keepAlive(true);
    const over = (): void => {
      if (--this.#numCalls === 0) this.#coordinator.keepAlive(false);
    };
    call.done.then(over, over);
    return call;
  }

  #remote(rank: number): RemoteRank {
    const remote = this.#remotes[rank];
    if (remote === undefined) throw new LongcatError("INTERNAL", `there is no rank ${rank}`);
    return remote;
  }
}

/** The options that can travel. */
function plain({ options }: GroupOptions): PlainOptions {
  const { signal: _signal, onProgress: _onProgress, onWarning: _onWarning, ...others } = options;
  return others;
}
