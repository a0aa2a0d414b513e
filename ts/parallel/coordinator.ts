/**
 * What keeps a group's ranks together: they join here, hand their window's handles to each other, agree on forward passes, and are told at once
 * when one of them is lost. It runs in a thread of the leader's, so that nothing that the leader does stalls a step.
 * @module
 */

import type { LoadProgress } from "../engine/options.js";
import { LongcatError } from "../errors.js";
import { type Connection, type ConnectionEvents, readValue } from "./connection.js";
import type { RankFacts } from "./group.js";
import { Channel, Frame, readForward, type RankSetup, roundBody, type ToCoordinator, type ToRank } from "./messages.js";
import { rankName, rankNames } from "./names.js";
import { Reception, type ReceptionOptions } from "./reception.js";
import { Rounds } from "./rounds.js";
import { fromWire, toWire, type WireError } from "./wire-error.js";

/** Ranks say so often that they are there, and so does the coordinator. */
export const BEAT_MS = 1000;

/**
 * So many beats without a word make a rank dead: one that serves; and one that loads, whose event loop may stand still for seconds. Beats of the
 * listener's own are counted, not time: whoever was stopped itself has not heard of the others either.
 */
export const MOST_SILENT_BEATS = { serving: 5, loading: 60 };

/** From the first rank that says that it is stuck to the judgement. */
const STUCK_MS = 500;

/** From a rank's last word to the judgement. */
const LAST_WORD_MS = 100;

/** What a coordinator is made with. */
export interface CoordinatorOptions extends Omit<ReceptionOptions, "channel"> {
  setup: RankSetup;
  /** How long ranks may take to connect, and how long a load may stand still. */
  connectMs: number;
  loadMs: number;
  /** Who should have started them, for the message that names those that are missing. */
  starter: string;
}

/** What a coordinator tells its leader. */
export interface CoordinatorEvents {
  onProgress(progress: LoadProgress): void;
  onWarning(message: string): void;
  /** All ranks have loaded. */
  onStarted(facts: RankFacts[]): void;
  /** The group is over. Once; nothing follows. `rank`: which is to blame, where it is one. */
  onLost(error: LongcatError, rank: number | undefined): void;
  /** After `close`: no rank has work any more, and all end. */
  onQuiet(): void;
}

/** A rank, as far as it is known. */
interface Member {
  connection: Connection;
  silentBeats: number;
  facts?: RankFacts;
  progress?: LoadProgress;
  quiet: boolean;
}

export class Coordinator {
  readonly #options: CoordinatorOptions;
  readonly #events: CoordinatorEvents;
  readonly #members: (Member | undefined)[];
  readonly #gathered = new Map<string, Map<number, Uint8Array>>();
  /** Ranks that are stuck, and which rank each waits for. */
  readonly #waits = new Map<number, number>();
  readonly #warnings = new Set<string>();
  readonly #rounds = new Rounds((round, withRows) => {
    for (const [rank, member] of this.#members.entries()) member?.connection.send(Frame.round, roundBody(round, withRows.has(rank)));
  });
  #reception!: Reception;
  readonly #timers: NodeJS.Timeout[] = [];
  #loadTimer: NodeJS.Timeout | undefined;
  #isOver = false;
  #allQuiet = false;

  private constructor(options: CoordinatorOptions, events: CoordinatorEvents) {
    this.#options = options;
    this.#events = events;
    this.#members = new Array<Member | undefined>(options.ranks).fill(undefined);
  }

  /** @throws LongcatError COMM_ERROR if the port cannot be had */
  static async listen(options: CoordinatorOptions, events: CoordinatorEvents): Promise<Coordinator> {
    const coordinator = new Coordinator(options, events);
    const arrive = (rank: number, connection: Connection) => coordinator.#join(rank, connection);
    coordinator.#reception = await Reception.open({ ...options, channel: Channel.control }, arrive);
    coordinator.#start();
    return coordinator;
  }

  get port(): number {
    return this.#reception.port;
  }

  /** The leader knows that a rank's process has ended. */
  ended(rank: number, how: string): void {
    if (!this.#allQuiet) this.#lose(rank, how);
  }

  /** Asks all ranks to end their calls, then to end. */
  close(): void {
    this.#broadcast({ type: "close" });
  }

  /** Lets go of everything, ranks included. */
  destroy(): void {
    this.#isOver = true;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#rounds.stop();
    this.#reception.close();
    for (const member of this.#members) void member?.connection.close();
  }

  #start(): void {
    const { connectMs, loadMs } = this.#options;
    this.#timers.push(setInterval(() => this.#beat(), BEAT_MS));
    this.#timers.push(setTimeout(() => this.#checkConnected(), connectMs));
    this.#loadTimer = setTimeout(() => this.#checkLoaded(), loadMs);
    this.#timers.push(this.#loadTimer);
  }

  #join(rank: number, connection: Connection): string | undefined {
    if (this.#members[rank] !== undefined) return `${rankName(rank, this.#options.ranks)} has joined already`;
    const member: Member = { connection, silentBeats: 0, quiet: false };
    this.#members[rank] = member;
    const events: ConnectionEvents = {
      onFrame: (kind, body) => {
        member.silentBeats = 0;
        if (kind === Frame.want) this.#rounds.want(rank, readForward(body));
        else if (kind === Frame.works) this.#rounds.works(rank, body[0] === 1);
        else if (kind === Frame.value) this.#hear(rank, member, readValue(body) as ToCoordinator);
      },
      onEnd: (why) => {
        this.#rounds.stop();
        // The leader may know more: how its process ended.
        if (!this.#allQuiet) this.#timers.push(setTimeout(() => this.#lose(rank, why), LAST_WORD_MS));
      },
    };
    connection.trust(events);
    this.#send(member, { type: "setup", setup: this.#options.setup });
    return undefined;
  }

  #hear(rank: number, member: Member, message: ToCoordinator): void {
    switch (message.type) {
      case "gather":
        this.#gather(rank, message.name, message.bytes);
        break;
      case "progress":
        member.progress = message;
        this.#loadTimer?.refresh();
        this.#tellProgress();
        break;
      case "warning":
        if (!this.#warnings.has(message.message)) this.#events.onWarning(message.message);
        this.#warnings.add(message.message);
        break;
      case "ready":
        member.facts = message.facts;
        this.#startIfAllAreReady();
        break;
      case "failed":
        this.#hearFailed(rank, message.error);
        break;
      case "stuck":
        this.#hearStuck(rank, message.waitsFor, message.ms);
        break;
      case "quiet":
        member.quiet = true;
        this.#endIfAllAreQuiet();
        break;
    }
  }

  /** A load that fails is this rank's own error; a rank that cannot go on is lost to the others. */
  #hearFailed(rank: number, error: WireError): void {
    if (this.#isServing) this.#lose(rank, error.code === "COMM_ERROR" ? error.message : `${error.code}: ${error.message}`);
    else this.#end(fromWire(error, rankName(rank, this.#options.ranks)), rank);
  }

  /** One that waits may be waited for itself: who is to blame is known when all who are stuck have said so. */
  #hearStuck(rank: number, waitsFor: number, ms: number): void {
    this.#waits.set(rank, waitsFor);
    if (this.#waits.size > 1) return;
    const blame = (): void => {
      let blamed = waitsFor;
      for (let i = 0; i < this.#options.ranks; i++) blamed = this.#waits.get(blamed) ?? blamed;
      this.#lose(blamed, `others have waited for it for ${ms / 1000} s within a step`);
    };
    this.#timers.push(setTimeout(blame, STUCK_MS));
  }

  #gather(rank: number, name: string, bytes: Uint8Array): void {
    const there = this.#gathered.get(name) ?? new Map<number, Uint8Array>();
    this.#gathered.set(name, there.set(rank, bytes));
    if (there.size < this.#options.ranks) return;
    this.#gathered.delete(name);
    this.#broadcast({ type: "gathered", name, all: this.#members.map((_, i) => there.get(i) as Uint8Array) });
  }

  /** What all ranks have done, once each has said how much it has to do. */
  #tellProgress(): void {
    const all = this.#members.map((member) => member?.progress);
    if (all.includes(undefined)) return;
    const sum = (of: (one: LoadProgress) => number): number => all.reduce((total, one) => total + of(one as LoadProgress), 0);
    this.#events.onProgress({ doneBytes: sum(({ doneBytes }) => doneBytes), totalBytes: sum(({ totalBytes }) => totalBytes) });
  }

  #startIfAllAreReady(): void {
    const facts = this.#members.flatMap((member) => member?.facts ?? []);
    if (facts.length < this.#options.ranks) return;
    this.#broadcast({ type: "started" });
    this.#events.onStarted(facts);
  }

  #endIfAllAreQuiet(): void {
    if (!this.#members.every((member) => member?.quiet)) return;
    this.#allQuiet = true;
    this.#rounds.stop();
    this.#broadcast({ type: "allQuiet" });
    this.#events.onQuiet();
  }

  #beat(): void {
    const most = this.#isServing ? MOST_SILENT_BEATS.serving : MOST_SILENT_BEATS.loading;
    for (const member of this.#members) {
      if (member === undefined) continue;
      member.connection.send(Frame.beat);
      member.silentBeats += 1;
    }
    const silent = this.#members.findIndex((member) => member !== undefined && member.silentBeats > most);
    if (silent >= 0 && !this.#allQuiet) this.#lose(silent, `nothing was heard of it for ${(most * BEAT_MS) / 1000} s`);
  }

  get #isServing(): boolean {
    return this.#members.every((member) => member?.facts !== undefined);
  }

  #checkConnected(): void {
    const { ranks, connectMs, address, starter } = this.#options;
    const missing = this.#without((member) => member !== undefined);
    if (missing.length === 0) return;
    const where = `the leader at port ${this.port} of ${address ?? "its host"}`;
    const words = `${rankNames(missing, ranks)} did not connect to ${where} within ${connectMs / 1000} s; ${starter}`;
    this.#end(new LongcatError("COMM_ERROR", words), missing.length === 1 ? missing[0] : undefined);
  }

  #checkLoaded(): void {
    const { ranks, loadMs } = this.#options;
    const missing = this.#without((member) => member?.facts !== undefined);
    if (missing.length === 0) return;
    this.#end(
      new LongcatError("COMM_ERROR", `${rankNames(missing, ranks)} did not load; for ${loadMs / 1000} s no rank has read anything`),
      missing[0],
    );
  }

  #without(has: (member: Member | undefined) => boolean): number[] {
    return this.#members.flatMap((member, rank) => (has(member) ? [] : rank));
  }

  #lose(rank: number, why: string): void {
    this.#end(new LongcatError("COMM_ERROR", `${rankName(rank, this.#options.ranks)} is lost: ${why}`), rank);
  }

  /** Tells everybody that it is over. */
  #end(error: LongcatError, rank: number | undefined): void {
    if (this.#isOver) return;
    this.#broadcast({ type: "lost", error: toWire(error) });
    this.destroy();
    this.#events.onLost(error, rank);
  }

  #broadcast(message: ToRank): void {
    for (const member of this.#members) if (member !== undefined) this.#send(member, message);
  }

  #send(member: Member, message: ToRank): void {
    member.connection.sendValue(Frame.value, message);
  }
}
