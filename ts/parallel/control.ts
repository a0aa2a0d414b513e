/**
 * A rank's connection to the coordinator: joining, gathering, agreeing on forward passes, and word of the group's end.
 * @module
 */

import { setTimeout as sleep } from "node:timers/promises";
import { LongcatError } from "../errors.js";
import type { Forward, Lockstep, Round } from "../model/lockstep.js";
import { type Connection, readValue } from "./connection.js";
import type { RankFacts } from "./group.js";
import { dial, introduce, refusal } from "./introduction.js";
import { BEAT_MS, Channel, Frame, forwardBody, type RankSetup, readRound, type ToCoordinator, type ToRank } from "./messages.js";
import { leaderLost, rankName } from "./names.js";
import { fromWire, toWire } from "./wire-error.js";

/** The leader may still be starting: it is asked again after so long. */
const RETRY_MS = 200;

/** So many beats without a word of the coordinator: the leader's host is gone. More than it allows a rank, so that it is the one that speaks. */
const MOST_SILENT_BEATS = 15;

/** Where a leader is found, and as whom. */
export interface LeaderPlace {
  address: string;
  port: number;
  token: string;
  rank: number;
  ranks: number;
  /** How long it may take to answer. */
  connectMs: number;
}

/** What the coordinator asks of a rank. */
export interface ControlEvents {
  /** A round in which this rank has no rows. */
  onRound(round: Round): void;
  /** Calls are to end; then `quiet()` is to be called. */
  onClose(): void;
  /** All ranks are quiet: the rank may end. */
  onAllQuiet(): void;
  /** The group is over, or the leader is gone. Once; nothing follows. */
  onLost(error: LongcatError): void;
}

/** Somebody who waits for an answer. */
interface Waiting<T> {
  resolve(value: T): void;
  reject(error: LongcatError): void;
}

export class Control implements Lockstep {
  readonly setup: RankSetup;
  /** All ranks have loaded. */
  readonly started: Promise<void>;
  readonly #connection: Connection;
  readonly #place: LeaderPlace;
  readonly #gathers = new Map<string, Waiting<Uint8Array[]>>();
  readonly #timer: NodeJS.Timeout;
  #start!: Waiting<void>;
  #asked: Waiting<Round> | undefined;
  #events: ControlEvents | undefined;
  #silentBeats = 0;
  #lost: LongcatError | undefined;
  #isClosed = false;

  private constructor(connection: Connection, place: LeaderPlace, setup: RankSetup) {
    this.#connection = connection;
    this.#place = place;
    this.setup = setup;
    this.started = new Promise((resolve, reject) => {
      this.#start = { resolve, reject };
    });
    this.started.catch(() => undefined); // told through onLost as well
    this.#timer = setInterval(() => this.#beat(), BEAT_MS);
    connection.trust({
      onFrame: (kind, body) => this.#receive(kind, body),
      onEnd: (why) => this.#lose(this.#gone(why)),
    });
  }

  /**
   * Joins the group.
   *
   * @throws LongcatError COMM_ERROR: no leader within the time, or one that refuses
   */
  static async join(place: LeaderPlace): Promise<Control> {
    const { address, port, rank, ranks, connectMs } = place;
    const deadline = performance.now() + connectMs;
    const who = rankName(rank, ranks);
    for (let why = ""; ; ) {
      const left = deadline - performance.now();
      if (left <= 0)
        throw new LongcatError("COMM_ERROR", `${who} found no leader at ${address}:${port} within ${connectMs / 1000} s${why}`);
      try {
        const connection = await introduce(await dial(address, port, left), { ...place, channel: Channel.control }, left);
        return await Control.#listen(connection, place);
      } catch (error) {
        if (error instanceof LongcatError) throw fromWire(toWire(error), who);
        why = `: ${(error as Error).message}`;
      }
      await sleep(Math.min(RETRY_MS, left));
    }
  }

  /** Made when the coordinator says the first word: the next ones may come with it. */
  static #listen(connection: Connection, place: LeaderPlace): Promise<Control> {
    return new Promise((resolve, reject) => {
      connection.trust({
        onFrame: (kind, body) => {
          if (kind === Frame.refused) return reject(refusal(body.toString()));
          const message = readValue(body) as ToRank;
          if (message.type === "setup") resolve(new Control(connection, place, message.setup));
          else if (message.type === "lost") reject(fromWire(message.error));
        },
        onEnd: (why) => reject(new Error(why)),
      });
    });
  }

  /** From now on the coordinator's wishes go there; what came before is made up for. */
  listen(events: ControlEvents): void {
    this.#events = events;
    if (this.#lost !== undefined) events.onLost(this.#lost);
  }

  /** All ranks' bytes under this name, in the order of their ranks. */
  gather(name: string, bytes: Uint8Array): Promise<Uint8Array[]> {
    return new Promise((resolve, reject) => {
      if (this.#lost !== undefined) return reject(this.#lost);
      this.#gathers.set(name, { resolve, reject });
      this.#tell({ type: "gather", name, bytes });
    });
  }

  agree(want: Forward): Promise<Round> {
    return new Promise((resolve, reject) => {
      if (this.#lost !== undefined) return reject(this.#lost);
      this.#asked = { resolve, reject };
      this.#connection.send(Frame.want, forwardBody(want));
    });
  }

  /** Work begins, or is over. */
  works(working: boolean): void {
    this.#connection.send(Frame.works, Uint8Array.of(Number(working)));
  }

  progress(doneBytes: number, totalBytes: number): void {
    this.#tell({ type: "progress", doneBytes, totalBytes });
  }

  warn(message: string): void {
    this.#tell({ type: "warning", message });
  }

  ready(facts: RankFacts): void {
    this.#tell({ type: "ready", facts });
  }

  /** This rank cannot go on. */
  fail(error: unknown): void {
    this.#tell({ type: "failed", error: toWire(error) });
  }

  /** This rank waits for another one, for longer than it may. */
  stuck(waitsFor: number | undefined, ms: number): void {
    this.#tell({ type: "stuck", waitsFor, ms });
  }

  /** Nothing is to be done any more. */
  quiet(): void {
    this.#tell({ type: "quiet" });
  }

  /** Leaves the group. Resolves when what was said before has left this process. */
  close(): Promise<void> {
    this.#isClosed = true;
    clearInterval(this.#timer);
    return this.#connection.close();
  }

  #tell(message: ToCoordinator): void {
    this.#connection.sendValue(Frame.value, message);
  }

  #receive(kind: number, body: Buffer): void {
    this.#silentBeats = 0;
    if (kind === Frame.round) {
      const { round, withRows } = readRound(body);
      if (!withRows) this.#events?.onRound(round);
      else {
        this.#asked?.resolve(round);
        this.#asked = undefined;
      }
    } else if (kind === Frame.value) this.#hear(readValue(body) as ToRank);
  }

  #hear(message: ToRank): void {
    switch (message.type) {
      case "gathered":
        this.#gathers.get(message.name)?.resolve(message.all);
        this.#gathers.delete(message.name);
        break;
      case "started":
        this.#start.resolve();
        break;
      case "lost":
        this.#lose(fromWire(message.error));
        break;
      case "close":
        this.#events?.onClose();
        break;
      case "allQuiet":
        this.#events?.onAllQuiet();
        break;
    }
  }

  #beat(): void {
    this.#connection.send(Frame.beat);
    this.#silentBeats += 1;
    if (this.#silentBeats > MOST_SILENT_BEATS) this.#lose(this.#gone(`nothing was heard of it for ${MOST_SILENT_BEATS} s`));
  }

  #gone(why: string): LongcatError {
    return leaderLost(this.#place.rank, this.#place.ranks, why);
  }

  /** Everybody who waits is told. */
  #lose(error: LongcatError): void {
    if (this.#lost !== undefined || this.#isClosed) return;
    this.#lost = error;
    void this.close();
    this.#start.reject(error);
    this.#asked?.reject(error);
    for (const { reject } of this.#gathers.values()) reject(error);
    this.#events?.onLost(error);
  }
}
