/**
 * A rank: joins its group, opens its part of the model, and answers its leader's requests with an engine of its own until the group is over.
 * @module
 */

import { hostname } from "node:os";
import { Engine } from "../engine/engine.js";
import { type LoadedParts, loadParts } from "../engine/load.js";
import type { ResolvedOptions } from "../engine/options.js";
import { LongcatError } from "../errors.js";
import type { Round } from "../model/lockstep.js";
import type { Runner } from "../model/runner.js";
import { packageVersion } from "../runtime/addon.js";
import type { Connection } from "./connection.js";
import { Control } from "./control.js";
import { startHeart } from "./heart.js";
import { dial, introduce, refusal } from "./introduction.js";
import { Channel, Frame } from "./messages.js";
import { leaderLost } from "./names.js";
import { deviceOfRank, hostFacts } from "./rank-device.js";
import type { RankPlace, ToStarter } from "./rank-process.js";
import { Requests } from "./requests.js";
import { timeoutOn, watchExchange } from "./watchdog.js";
import { fromWire, toWire } from "./wire-error.js";

/**
 * A step behind the one that runs: all ranks enqueue steps equally far ahead, so that they ask for the next one at the same time, which is when
 * one is over.
 */
const STEPS_AHEAD = 1;

/** Progress is told so often at most. */
const PROGRESS_MS = 50;

/** A rank that has failed waits so long for the coordinator's word that all end. */
const VERDICT_MS = 2000;

/** What a rank asks of its process. */
export interface RankHost {
  /** Tells the process that started this one. */
  tell(message: ToStarter): void;
  /** Ends this process: at once and whatever its threads do if the group has failed. */
  end(failed: boolean): void;
}

export class Rank {
  readonly #place: RankPlace;
  readonly #token: string;
  readonly #host: RankHost;
  readonly #control: Control;
  #runner: Runner | undefined;
  #engine: Engine | undefined;
  #requests: Requests | undefined;
  /** The newest round that this rank has joined without rows, and with it all before, is over. */
  #joined: Promise<void> | undefined;
  #isAllQuiet = false;
  /** All devices are: what ends now is the group, and in good order. */
  #isAtRest = false;
  #allQuiet!: () => void;
  /** No rank has work any more. */
  readonly #quiet = new Promise<void>((resolve) => {
    this.#allQuiet = resolve;
  });

  private constructor(place: RankPlace, token: string, host: RankHost, control: Control) {
    this.#place = place;
    this.#token = token;
    this.#host = host;
    this.#control = control;
    control.listen({
      onRound: (round) => this.#join(round),
      onClose: () => void this.#close(),
      onAllQuiet: () => {
        this.#isAllQuiet = true;
        this.#allQuiet();
      },
      onLost: (error) => {
        if (!this.#isAtRest) this.#end(error);
      },
    });
  }

  /** Runs a rank in this process until the group is over. Resolves when it serves, or has failed to; then it goes by the coordinator's word. */
  static async run(place: RankPlace, token: string, host: RankHost): Promise<void> {
    let control: Control;
    try {
      control = await Control.join({ ...place, token });
    } catch (error) {
      host.tell({ type: "lost", error: toWire(error) });
      return host.end(true);
    }
    const rank = new Rank(place, token, host, control);
    try {
      await rank.#serve();
    } catch (error) {
      control.fail(error);
      setTimeout(() => rank.#end(error), VERDICT_MS);
    }
  }

  async #serve(): Promise<void> {
    const control = this.#control;
    const { version, requestsPort } = control.setup;
    if (version !== packageVersion())
      throw new LongcatError(
        "COMM_ERROR",
        `the leader is longcat-node ${version}, this rank's is ${packageVersion()}; they must be the same`,
      );
    const stopHeart = await startHeart({ ...this.#place, token: this.#token });
    const connection = await this.#connect(requestsPort);
    const parts = await this.#load();
    const { runner } = parts;
    this.#runner = runner;
    const stopWatching = this.#watch(runner);
    this.#engine = Engine.fromParts({
      ...parts,
      stepsAhead: STEPS_AHEAD,
      onWork: (working) => control.works(working),
      onFailure: (error) => {
        // Whose fault it is the coordinator says, to all calls alike.
        this.#requests?.stop();
        control.fail(error);
      },
      close: async () => {
        control.quiet();
        await this.#quiet;
        await this.#joined;
        stopWatching();
        // NCCL's kernels use the other ranks' memory, even when those are through.
        await control.gather("devices are at rest", new Uint8Array());
        this.#isAtRest = true;
        await requests.close();
        await stopHeart();
        await control.close();
        await parts.close();
      },
    });
    const requests = new Requests(this.#engine, connection);
    this.#requests = requests;
    const { info, modelContext, defaults } = parts;
    control.ready({ rank: this.#place.rank, host: hostname(), pid: process.pid, info, limits: runner.limits, modelContext, defaults });
    await control.started;
    this.#host.tell({ type: "ready", info });
  }

  /** Opens this rank's part of the model. */
  #load(): Promise<LoadedParts> {
    const control = this.#control;
    const { directory, options } = control.setup;
    let toldMs = Number.NEGATIVE_INFINITY;
    const resolved: ResolvedOptions = {
      ...options,
      ...deviceOfRank(options, this.#place, hostFacts()),
      onWarning: (message) => control.warn(message),
      onProgress: ({ doneBytes, totalBytes }) => {
        const now = performance.now();
        if (doneBytes < totalBytes && now - toldMs < PROGRESS_MS) return;
        toldMs = now;
        control.progress(doneBytes, totalBytes);
      },
    };
    const { rank, ranks, localRanks } = this.#place;
    const { exchange, dispatchDType } = options.parallel;
    return loadParts(directory, resolved, {
      ...{ rank, ranks, ranksOnHost: localRanks, exchange, dispatchDType, lockstep: control },
      gather: (name, bytes) => control.gather(name, bytes),
    });
  }

  /** Watches what the runner exchanges with others. What it returns ends the watch. */
  #watch({ device, exchange, queue }: Runner): () => void {
    if (exchange === undefined) return () => undefined;
    const { timeoutMs } = this.#control.setup.options.parallel;
    return watchExchange({ exchange, queue }, timeoutOn(device.kind, timeoutMs), {
      onStuck: (waitsFor, ms) => this.#control.stuck(waitsFor, ms),
      onFailure: (error) => this.#control.fail(error),
    });
  }

  #join(round: Round): void {
    this.#joined = this.#runner?.join(round).catch((error) => this.#control.fail(error));
  }

  /** The connection on which the leader's requests come, once this rank is ready. */
  async #connect(port: number): Promise<Connection> {
    const { address, rank, ranks, connectMs } = this.#place;
    let connection: Connection;
    try {
      const newcomer = { channel: Channel.requests, rank, token: this.#token };
      connection = await introduce(await dial(address, port, connectMs), newcomer, connectMs);
    } catch (error) {
      const words = `the leader's port for requests, ${port} of ${address}, cannot be reached: ${(error as Error).message}`;
      throw new LongcatError("COMM_ERROR", words, { cause: error });
    }
    connection.trust({
      onFrame: (kind, body) => (kind === Frame.refused ? this.#end(refusal(body.toString())) : this.#requests?.receive(body)),
      onEnd: (why) => {
        // Nothing is to come any more; the leader may be through before us.
        if (!this.#isAllQuiet) this.#end(leaderLost(rank, ranks, why));
      },
    });
    return connection;
  }

  /** The leader has closed the group. */
  async #close(): Promise<void> {
    try {
      await this.#engine?.close();
      this.#host.end(false);
    } catch (error) {
      this.#end(error);
    }
  }

  /** The group has failed, or this rank has. What waits for other ranks on the device gives up; nobody is told what the device then leaves behind. */
  #end(error: unknown): void {
    const wire = toWire(error);
    this.#requests?.stop();
    this.#runner?.giveUp(fromWire(wire));
    this.#host.tell({ type: "lost", error: wire });
    this.#host.end(true);
  }
}
