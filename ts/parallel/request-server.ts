/**
 * Where the ranks' connections for requests arrive, in the leader's main thread.
 * @module
 */

import type { LongcatError } from "../errors.js";
import type { Connection } from "./connection.js";
import type { Newcomer } from "./introduction.js";
import { Channel } from "./messages.js";
import { rankName } from "./names.js";
import { Reception, type ReceptionOptions } from "./reception.js";
import { RemoteRank } from "./remote-rank.js";

/** A rank whose connection has ended, and how. */
export interface Broken {
  rank: number;
  why: string;
}

export class RequestServer {
  /** Resolves when all have come: by rank. */
  readonly ranks: Promise<readonly RemoteRank[]>;
  /** Resolves once, when one of their connections ends that was not closed here. */
  readonly broken: Promise<Broken>;
  readonly #arrived = new Map<number, RemoteRank>();
  readonly #numRanks: number;
  #reception!: Reception;
  #allArrived!: (ranks: readonly RemoteRank[]) => void;
  #broke!: (broken: Broken) => void;

  private constructor(numRanks: number) {
    this.#numRanks = numRanks;
    this.ranks = new Promise((resolve) => {
      this.#allArrived = resolve;
    });
    this.broken = new Promise((resolve) => {
      this.#broke = resolve;
    });
  }

  /** @throws LongcatError COMM_ERROR: it cannot listen there */
  static async listen(options: Omit<ReceptionOptions, "channels">): Promise<RequestServer> {
    const server = new RequestServer(options.ranks);
    const arrive = ({ rank }: Newcomer, connection: Connection) => server.#arrive(rank, connection);
    server.#reception = await Reception.open({ ...options, channels: [Channel.requests] }, arrive);
    return server;
  }

  get port(): number {
    return this.#reception.port;
  }

  /** Lets the process end although it listens and is connected, while no call is in flight. */
  unref(): void {
    this.#reception.unref();
    for (const rank of this.#arrived.values()) rank.unref();
  }

  /** No call is answered any more: see RemoteRank.fail. */
  fail(error: LongcatError): void {
    for (const rank of this.#arrived.values()) rank.fail(error);
  }

  /** Lets nobody in any more, and closes all connections: see RemoteRank.close. */
  close(error: LongcatError): void {
    this.#reception.close();
    for (const rank of this.#arrived.values()) rank.close(error);
  }

  #arrive(rank: number, connection: Connection): string | undefined {
    if (this.#arrived.has(rank)) return `${rankName(rank, this.#numRanks)} has connected already`;
    const remote = new RemoteRank(connection);
    connection.trust({ onFrame: (_, answer) => remote.receive(answer), onEnd: (why) => this.#broke({ rank, why }) });
    this.#arrived.set(rank, remote);
    if (this.#arrived.size === this.#numRanks)
      this.#allArrived(Array.from({ length: this.#numRanks }, (_, i) => this.#arrived.get(i) as RemoteRank));
    return undefined;
  }
}
