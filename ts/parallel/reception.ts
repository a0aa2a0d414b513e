/**
 * Where ranks arrive: listens, and lets in who says first which rank it is and proves that it knows the group's token. Everybody else is told why not.
 * @module
 */

import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { LongcatError } from "../errors.js";
import { Connection, type ConnectionEvents } from "./connection.js";
import { type Challenge, challenge, equal, type Newcomer, OTHER_TOKEN } from "./introduction.js";
import { Frame } from "./messages.js";

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
  channels: readonly number[];
  ranks: number;
}

/** Takes over a rank's connection; gives why it is not welcome, if it is not. */
export type Admit = (newcomer: Newcomer, connection: Connection) => string | undefined;

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

  /** A connection of somebody who has not proved who it is. It does not keep the process alive. */
  #meet(socket: Socket): void {
    this.#strangers.add(socket.unref());
    const timer = setTimeout(() => socket.destroy(), HELLO_MS).unref();
    const gone = (): void => {
      clearTimeout(timer);
      this.#strangers.delete(socket);
    };
    let asked: Challenge | undefined;
    const answer = (kind: number, body: Buffer): string | undefined => {
      if (asked !== undefined) {
        if (kind !== Frame.proof || !equal(body, asked.proof)) return OTHER_TOKEN;
        gone();
        connection.keepAlive(true);
        return this.#admit(asked.newcomer, connection);
      }
      asked = kind === Frame.hello ? challenge(body, this.#options.token) : undefined;
      const why = this.#refuses(asked?.newcomer);
      if (why === undefined) connection.send(Frame.challenge, asked!.body);
      return why;
    };
    const events: ConnectionEvents = {
      onFrame: (kind, body) => {
        const why = answer(kind, body);
        if (why !== undefined) connection.dismiss(Frame.refused, Buffer.from(why));
      },
      onEnd: () => undefined,
    };
    const connection = new Connection(socket, events, true);
    socket.once("close", gone);
  }

  #refuses(newcomer: Newcomer | undefined): string | undefined {
    const { channels, ranks } = this.#options;
    if (newcomer === undefined) return "that is no hello";
    if (!channels.includes(newcomer.channel) || newcomer.rank >= ranks) return `this leader's group has ${ranks} ranks`;
    return undefined;
  }
}
