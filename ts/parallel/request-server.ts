/**
 * Where the ranks' connections for requests arrive, in the leader's main thread.
 * @module
 */

import { type AddressInfo, createServer, type Socket } from "node:net";
import { Connection, type ConnectionEvents } from "./connection.js";
import { listenAt } from "./coordinator.js";
import { Channel, Frame, readHello } from "./messages.js";
import { RemoteRank } from "./remote-rank.js";

export class RequestServer {
  readonly #token: string;
  readonly #server = createServer((socket) => this.#meet(socket));
  readonly #strangers = new Set<Socket>();
  readonly #arrived: ((rank: RemoteRank) => void)[] = [];
  /** By rank: resolves when it has come. */
  readonly ranks: readonly Promise<RemoteRank>[];

  private constructor(ranks: number, token: string) {
    this.#token = token;
    this.ranks = Array.from({ length: ranks }, (_, rank) => new Promise<RemoteRank>((resolve) => (this.#arrived[rank] = resolve)));
  }

  /** @throws LongcatError COMM_ERROR: it cannot listen there */
  static async listen(ranks: number, token: string, address: string | undefined): Promise<RequestServer> {
    const server = new RequestServer(ranks, token);
    await listenAt(server.#server, address, 0);
    return server;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Lets the process end although it listens. */
  unref(): void {
    this.#server.unref();
  }

  /** Lets nobody in any more. */
  close(): void {
    this.#server.close();
    for (const socket of this.#strangers) socket.destroy();
  }

  #meet(socket: Socket): void {
    this.#strangers.add(socket);
    const events: ConnectionEvents = {
      onFrame: (kind, body) => {
        this.#strangers.delete(socket);
        const hello = kind === Frame.hello ? readHello(body, this.#token) : undefined;
        const arrived = hello?.channel === Channel.requests ? this.#arrived[hello.rank] : undefined;
        if (arrived === undefined) return connection.destroy();
        const rank = new RemoteRank(connection);
        // That it ends is the coordinator's to tell.
        connection.trust({ onFrame: (_, answer) => rank.receive(answer), onEnd: () => undefined });
        arrived(rank);
      },
      onEnd: () => this.#strangers.delete(socket),
    };
    const connection = new Connection(socket, events, true);
  }
}
