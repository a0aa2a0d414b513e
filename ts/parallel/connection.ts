/**
 * A connection between two processes of a group. It carries frames: the length of the rest (u32, little-endian), a kind (u8), a body. Bodies are
 * bytes or, of most kinds, one value as v8 serializes it.
 * @module
 */

import type { Socket } from "node:net";
import { deserialize, serialize } from "node:v8";

/** So long nothing is said until the system asks whether the other side is still there, and keeps what is between them from forgetting the connection. */
const IDLE_MS = 10_000;

/** Bytes in front of a body. */
const HEADER_BYTES = 5;

/** Longest frame that an unknown sender may send. */
const MOST_STRANGER_BYTES = 256;

/** Longest frame. */
const MOST_BYTES = 1 << 30;

/** What a connection tells its owner. */
export interface ConnectionEvents {
  onFrame(kind: number, body: Buffer): void;
  /** Once: the other side closed it, or it broke; `why` says how. `isForeign`: what it sent are no frames of ours. Not called after `close`. */
  onEnd(why: string, isForeign: boolean): void;
}

export class Connection {
  readonly #socket: Socket;
  #events: ConnectionEvents;
  /** What was read of frames that are not whole, and how many bytes the first of them takes. */
  #chunks: Buffer[] = [];
  #numBytes = 0;
  #neededBytes = HEADER_BYTES;
  #mostBytes: number;
  #ended = false;
  #why = "its connection was closed";
  #isForeign = false;

  /** `isStranger`: nobody knows yet who sends; its first frame is short. */
  constructor(socket: Socket, events: ConnectionEvents, isStranger = false) {
    this.#socket = socket;
    this.#mostBytes = isStranger ? MOST_STRANGER_BYTES : MOST_BYTES;
    this.#events = events;
    socket.setNoDelay(true);
    socket.setKeepAlive(true, IDLE_MS);
    socket.on("data", (chunk: Buffer) => this.#read(chunk));
    socket.on("error", (error) => {
      this.#why = `its connection broke: ${error.message}`;
    });
    socket.on("close", () => this.#end());
  }

  /** From now on frames may be long, and go to this owner. */
  trust(events: ConnectionEvents): void {
    this.#mostBytes = MOST_BYTES;
    this.#events = events;
  }

  /** Sends a frame. What is sent within one turn of the event loop may travel together. */
  send(kind: number, body: Uint8Array = NOTHING): void {
    if (this.#ended || this.#socket.writableEnded) return;
    const frame = Buffer.allocUnsafe(HEADER_BYTES + body.length);
    frame.writeUInt32LE(1 + body.length, 0);
    frame.writeUInt8(kind, 4);
    frame.set(body, HEADER_BYTES);
    this.#socket.write(frame);
  }

  /** Sends a value. What cannot be cloned (functions) throws a DataCloneError. */
  sendValue(kind: number, value: unknown): void {
    this.send(kind, serialize(value));
  }

  /** Closes it. Resolves when what was sent before has left this process. */
  close(): Promise<void> {
    this.#ended = true;
    return new Promise((resolve) => {
      this.#socket.once("close", () => resolve());
      this.#socket.end(() => resolve());
    });
  }

  /** Closes it at once. */
  destroy(): void {
    this.#ended = true;
    this.#socket.destroy();
  }

  /** Sends a last frame and closes it, whatever the other side does. */
  dismiss(kind: number, body: Uint8Array): void {
    this.send(kind, body);
    this.#ended = true;
    this.#socket.destroySoon();
  }

  /** Whether it keeps the process alive. */
  keepAlive(does: boolean): void {
    if (does) this.#socket.ref();
    else this.#socket.unref();
  }

  #read(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#numBytes += chunk.length;
    if (this.#numBytes < this.#neededBytes) return;
    let bytes = this.#chunks.length === 1 ? chunk : Buffer.concat(this.#chunks);
    this.#neededBytes = HEADER_BYTES;
    while (!this.#ended && bytes.length >= HEADER_BYTES) {
      const frameBytes = 4 + bytes.readUInt32LE(0);
      if (frameBytes > this.#mostBytes) {
        this.#isForeign = true;
        this.#why = `it sent a frame of ${frameBytes} bytes`;
        this.#socket.destroy();
        return;
      }
      if (bytes.length < frameBytes) {
        this.#neededBytes = frameBytes;
        break;
      }
      this.#events.onFrame(bytes.readUInt8(4), bytes.subarray(HEADER_BYTES, frameBytes));
      bytes = bytes.subarray(frameBytes);
    }
    this.#chunks = [bytes];
    this.#numBytes = bytes.length;
  }

  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#events.onEnd(this.#why, this.#isForeign);
  }
}

const NOTHING = new Uint8Array(0);

/** The value of a frame that `sendValue` sent. */
export function readValue(body: Buffer): unknown {
  return deserialize(body);
}
