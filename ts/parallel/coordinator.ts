/**
 * What keeps a group's ranks together: they join here, hand their window's handles to each other, agree on forward passes, and are told at once
 * when one of them is lost. It runs in a thread of the leader's, so that nothing that the leader does stalls a step.
 * @module
 */

import type { LoadProgress } from "../engine/options.js";
import { LongcatError, type LongcatErrorCode } from "../errors.js";
import { type Connection, type ConnectionEvents, readValue } from "./connection.js";
import type { RankFacts } from "./group.js";
import type { Newcomer } from "./introduction.js";
import { BEAT_MS, Channel, Frame, readForward, type RankSetup, roundBody, type ToCoordinator, type ToRank } from "./messages.js";
import { rankName, rankNames } from "./names.js";
import { Reception, type ReceptionOptions } from "./reception.js";
import { Rounds } from "./rounds.js";
import { fromWire, toWire, type WireError } from "./wire-error.js";

/**
 * So many beats without a word make a rank dead: of its process; and, once it serves, of its main thread, which may stand still for a while. Beats of the
 * listener's own are counted, not time: whoever was stopped itself has not heard of the others either.
 */
const MOST_SILENT_BEATS = { process: 5, mainThread: 60 };

/** From the first rank that says that it is stuck to the judgement. */
const STUCK_MS = 500;

/** From the end of a rank's connection to the judgement: the leader may know more, how its process ended. */
const ENDED_MS = 100;

/** From a rank's failure to the judgement, where it may be the end of another one that this rank has noticed first: a GPU or NCCL does. */
const FAILED_MS = 500;
const NOTICED: ReadonlySet<string> = new Set<LongcatErrorCode>(["COMM_ERROR", "CUDA_ERROR"]);

/** What a coordinator is made with. */
export interface CoordinatorOptions extends Omit<ReceptionOptions, "channels"> {
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
  /** From a thread of its own; absent: not yet there. */
  heart?: Connection;
  silentBeats: Record<keyof typeof MOST_SILENT_BEATS, number>;
  facts?: RankFacts;
  progress?: LoadProgress;
  quiet: boolean;
  /** How a connection of it ended. */
  ended?: string;
}

export class Coordinator {
  readonly #options: CoordinatorOptions;
  readonly #events: CoordinatorEvents;
  readonly #members: (Member | undefined)[];
  readonly #gathered = new Map<string, Map<number, Uint8Array>>();
  /** Ranks that are stuck, and which rank each waits for, where it knows. */
  readonly #waits = new Map<number, number | undefined>();
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
    const arrive = ({ channel, rank }: Newcomer, connection: Connection) =>
      channel === Channel.heart ? coordinator.#hearHeart(rank, connection) : coordinator.#join(rank, connection);
    coordinator.#reception = await Reception.open({ ...options, channels: [Channel.control, Channel.heart] }, arrive);
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

  /** A connection of a rank's has ended. */
  disconnected(rank: number, why: string): void {
    const member = this.#members[rank];
    if (this.#allQuiet || member === undefined) return;
    this.#rounds.stop();
    member.ended ??= why;
    this.#timers.push(setTimeout(() => this.#lose(rank, why), ENDED_MS));
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
    for (const member of this.#members) {
      void member?.connection.close();
      void member?.heart?.close();
    }
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
    const member: Member = { connection, silentBeats: { process: 0, mainThread: 0 }, quiet: false };
    this.#members[rank] = member;
    const events: ConnectionEvents = {
      onFrame: (kind, body) => {
        member.silentBeats = { process: 0, mainThread: 0 };
        if (kind === Frame.want) this.#rounds.want(rank, readForward(body));
        else if (kind === Frame.works) this.#rounds.works(rank, body[0] === 1);
        else if (kind === Frame.value) this.#hear(rank, member, readValue(body) as ToCoordinator);
      },
      onEnd: (why) => this.disconnected(rank, why),
    };
    connection.trust(events);
    this.#send(member, { type: "setup", setup: this.#options.setup });
    return undefined;
  }

  #hearHeart(rank: number, heart: Connection): string | undefined {
    const member = this.#members[rank];
    if (member === undefined || member.heart !== undefined) return `${rankName(rank, this.#options.ranks)} is not there, or has a heart`;
    member.heart = heart;
    const onFrame = (): void => {
      member.silentBeats.process = 0;
    };
    heart.trust({ onFrame, onEnd: (why) => this.disconnected(rank, why) });
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

  /** A load that fails is this rank's own error; a rank that cannot go on is lost to the others. Either may be the fault of one that has ended. */
  #hearFailed(rank: number, error: WireError): void {
    const judge = (): void => {
      const ended = this.#members.findIndex((member, other) => other !== rank && member?.ended !== undefined);
      const own = fromWire(error, rankName(rank, this.#options.ranks));
      if (ended >= 0) this.#lose(ended, this.#members[ended]!.ended!, own);
      else if (this.#isServing) this.#lose(rank, error.code === "COMM_ERROR" ? error.message : `${error.code}: ${error.message}`);
      else this.#end(own, rank);
    };
    if (NOTICED.has(error.code)) this.#timers.push(setTimeout(judge, FAILED_MS));
    else judge();
  }

  /** One that waits may be waited for itself: who is to blame is known when all who are stuck have said so. */
  #hearStuck(rank: number, waitsFor: number | undefined, ms: number): void {
    this.#waits.set(rank, waitsFor);
    if (this.#waits.size > 1) return;
    const blame = (): void => {
      const last = waitsFor === undefined ? undefined : this.#lastBehind(waitsFor);
      const blamed = last === undefined || this.#waits.has(last) ? this.#firstAtRest() : last; // they may wait in a circle, beside one that does not
      const howLong = `for ${ms / 1000} s within a step`;
      if (blamed !== undefined) this.#lose(blamed, `others have waited for it ${howLong}`);
      else this.#end(new LongcatError("COMM_ERROR", `all ${this.#options.ranks} ranks have waited for one another ${howLong}`), undefined);
    };
    this.#timers.push(setTimeout(blame, STUCK_MS));
  }

  /** A rank that does not wait; undefined: all do. */
  #firstAtRest(): number | undefined {
    return this.#without((_, rank) => this.#waits.has(rank))[0];
  }

  /** The end of the ranks that wait for each other from this one on. */
  #lastBehind(rank: number): number {
    let last = rank;
    for (let i = 0; i < this.#options.ranks; i++) last = this.#waits.get(last) ?? last;
    return last;
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
    for (const member of this.#members) {
      if (member === undefined) continue;
      member.connection.send(Frame.beat);
      member.silentBeats.process += 1;
      member.silentBeats.mainThread += 1;
    }
    if (this.#allQuiet) return;
    const { process, mainThread } = MOST_SILENT_BEATS;
    const silent = (of: keyof Member["silentBeats"], most: number): number =>
      this.#members.findIndex((member) => member !== undefined && member.silentBeats[of] > most);
    const [dead, stuck] = [silent("process", process), silent("mainThread", mainThread)];
    if (dead >= 0) this.#lose(dead, `nothing was heard of it for ${(process * BEAT_MS) / 1000} s`);
    else if (stuck >= 0 && this.#isServing) this.#lose(stuck, `its main thread has stood still for ${(mainThread * BEAT_MS) / 1000} s`);
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

  #without(has: (member: Member | undefined, rank: number) => boolean): number[] {
    return this.#members.flatMap((member, rank) => (has(member, rank) ? [] : rank));
  }

  #lose(rank: number, why: string, cause?: LongcatError): void {
    this.#end(new LongcatError("COMM_ERROR", `${rankName(rank, this.#options.ranks)} is lost: ${why}`, { cause }), rank);
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
