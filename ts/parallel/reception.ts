/**
 * Where ranks arrive: listens, and lets in who says first which rank it is and shows the group's token. Everybody else is told why not.
 * @module
 */

import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { LongcatError } from "../errors.js";
import { Connection, type ConnectionEvents } from "./connection.js";
import { Frame, readHello, type ToRank } from "./messages.js";
import { toWire } from "./wire-error.js";

/** A stranger has so long to say who it is. */
const HELLO_MS = 10_000;

/** Where to listen, and for whom. */
export interface ReceptionOptions {
  /** Absent: at all addresses of this host. */
  address?: string | undefined;
  /** 0: any. */
  port: number;
  token: string;
  /** Which of a rank's connections arrive here. */
  channel: number;
  ranks: number;
}

/** Takes over a rank's connection; gives why it is not welcome, if it is not. */
export type Admit = (rank: number, connection: Connection) => string | undefined;

export class Reception {
  readonly #options: ReceptionOptions;
  readonly #admit: Admit;
  readonly #server: Server;
  readonly #strangers = new Set<Socket>();

  private constructor(options: ReceptionOptions, admit: Admit) {
    this.#options = options;
    this.#admit = admit;
    this.#server = createServer((socket) => this.#meet(socket));
  }

  /** @throws LongcatError COMM_ERROR if it cannot listen there */
  static async open(options: ReceptionOptions, admit: Admit): Promise<Reception> {
    const reception = new Reception(options, admit);
    const { address, port } = options;
    await new Promise<void>((resolve, reject) => {
      reception.#server.on("error", (error) =>
        reject(new LongcatError("COMM_ERROR", `the leader cannot listen at port ${port}: ${error.message}`, { cause: error })),
      );
      reception.#server.listen({ port, host: address }, () => resolve());
    });
    return reception;
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

  /** A connection of somebody who has not said who it is. */
  #meet(socket: Socket): void {
    this.#strangers.add(socket);
    const timer = setTimeout(() => socket.destroy(), HELLO_MS).unref();
    const known = (): void => {
      clearTimeout(timer);
      this.#strangers.delete(socket);
    };
    const events: ConnectionEvents = {
      onFrame: (kind, body) => {
        known();
        const why = this.#check(kind, body, connection);
        if (why !== undefined) refuse(connection, why);
      },
      onEnd: known,
    };
    const connection = new Connection(socket, events, true);
  }

  #check(kind: number, body: Buffer, connection: Connection): string | undefined {
    const { token, channel, ranks } = this.#options;
    const hello = kind === Frame.hello ? readHello(body, token) : undefined;
    if (hello === undefined) return "this leader's group has another token";
    if (hello.channel !== channel || hello.rank >= ranks) return `this leader's group has ${ranks} ranks`;
    return this.#admit(hello.rank, connection);
  }
}

function refuse(connection: Connection, why: string): void {
  const error = new LongcatError("COMM_ERROR", `refused: ${why}`);
  connection.sendValue(Frame.value, { type: "lost", error: toWire(error) } satisfies ToRank);
  void connection.close();
}
