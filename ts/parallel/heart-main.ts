/**
 * The thread that is a rank's heart; started by heart.ts.
 * @module
 */

import { parentPort, workerData } from "node:worker_threads";
import type { LeaderPlace } from "./control.js";
import { dial, introduce } from "./introduction.js";
import { BEAT_MS, Channel, Frame } from "./messages.js";

if (parentPort !== null) {
  const { address, port, rank, token, connectMs } = workerData as LeaderPlace;
  const connection = await introduce(await dial(address, port, connectMs), { channel: Channel.heart, rank, token }, connectMs);
  // What the leader has to say it says to the main thread.
  connection.trust({ onFrame: () => undefined, onEnd: () => undefined });
  setInterval(() => connection.send(Frame.beat), BEAT_MS);
  parentPort.postMessage("beats");
}
