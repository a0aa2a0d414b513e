/**
 * How a rank and its leader learn that the other one belongs to the group. Each proves that it knows the token, without showing it, by a digest of the
 * token and of what both have just drawn; nothing is read as a value before.
 *
 *     rank → leader   hello       who it is, the rank's nonce
 *     leader → rank   challenge   the leader's nonce and proof
 *     rank → leader   proof
 *
 * What follows is neither signed nor hidden.
 * @module
 */

import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { connect, type Socket } from "node:net";
import { LongcatError } from "../errors.js";
import { Connection } from "./connection.js";
import { Frame } from "./messages.js";

/** Which of a rank's connections one is. */
export interface Newcomer {
  channel: number;
  rank: number;
}

/** Bytes of a nonce, and of a proof. */
const NONCE_BYTES = 32;

/** Who it is: channel (u8), rank (u32). */
const NEWCOMER_BYTES = 5;

/** Why somebody is refused who does not know the token, or asks somebody who does not. */
export const OTHER_TOKEN = "this leader's group has another token";

/** A connected socket. */
export function dial(host: string, port: number, timeoutMs: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port });
    const timer = setTimeout(() => socket.destroy(new Error("it does not answer")), timeoutMs);
    socket.once("connect", () => {
      clearTimeout(timer);
      socket.off("error", reject);
      resolve(socket);
    });
    socket.once("error", reject);
    socket.once("close", () => clearTimeout(timer));
  });
}

/**
 * A rank introduces itself to who answers at a socket. The connection that it gives is to be trusted at once: the leader may write from now on, if only
 * why it refuses.
 *
 * @throws LongcatError COMM_ERROR: that is no leader, or none of the group; Error: it says nothing
 */
export function introduce(socket: Socket, { channel, rank, token }: Newcomer & { token: string }, timeoutMs: number): Promise<Connection> {
  const hello = Buffer.alloc(NEWCOMER_BYTES + NONCE_BYTES);
  hello.writeUInt8(channel, 0);
  hello.writeUInt32LE(rank, 1);
  randomBytes(NONCE_BYTES).copy(hello, NEWCOMER_BYTES);
  const where = `${socket.remoteAddress}:${socket.remotePort}`;
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => socket.destroy(new Error("it does not answer")), timeoutMs);
    const give = (connection: Connection, error: LongcatError): void => {
      connection.destroy();
      reject(error);
    };
    const connection: Connection = new Connection(
      socket,
      {
        onFrame: (kind, body) => {
          clearTimeout(timer);
          if (kind === Frame.refused) return give(connection, refusal(body.toString()));
          const nonce = body.subarray(0, NONCE_BYTES);
          if (kind !== Frame.challenge || !equal(body.subarray(NONCE_BYTES), proof(token, "leader", hello, nonce)))
            return give(connection, refusal(OTHER_TOKEN));
          connection.send(Frame.proof, proof(token, "rank", hello, nonce));
          resolve(connection);
        },
        onEnd: (why, isForeign) => {
          clearTimeout(timer);
          const words = `what listens at ${where} is no leader of ranks; MASTER_PORT says where a leader is looked for`;
          reject(isForeign ? new LongcatError("COMM_ERROR", words) : new Error(why));
        },
      },
      true,
    );
    connection.send(Frame.hello, hello);
  });
}

/** What a leader answers to a hello, and what it then wants to see. */
export interface Challenge {
  newcomer: Newcomer;
  body: Uint8Array;
  proof: Uint8Array;
}

/** undefined: that is no hello. */
export function challenge(hello: Buffer, token: string): Challenge | undefined {
  if (hello.length !== NEWCOMER_BYTES + NONCE_BYTES) return undefined;
  const nonce = randomBytes(NONCE_BYTES);
  return {
    newcomer: { channel: hello.readUInt8(0), rank: hello.readUInt32LE(1) },
    body: Buffer.concat([nonce, proof(token, "leader", hello, nonce)]),
    proof: proof(token, "rank", hello, nonce),
  };
}

/** Whether two proofs are the same; how long it takes says nothing of where they differ. */
export function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && timingSafeEqual(a, b);
}

/** The error of who was refused. */
export function refusal(why: string): LongcatError {
  return new LongcatError("COMM_ERROR", `refused: ${why}`);
}

function proof(token: string, whose: "leader" | "rank", hello: Uint8Array, nonce: Uint8Array): Buffer {
  return createHmac("sha256", token).update(whose).update(hello).update(nonce).digest();
}
