/**
 * A rank's heart: a thread that tells the coordinator that the rank's process is there. Its main thread may stand still for seconds, over a long text or
 * in the driver, and is not dead.
 * @module
 */

import { Worker } from "node:worker_threads";
import { LongcatError } from "../errors.js";
import type { LeaderPlace } from "./control.js";
import { programFile } from "./programs.js";

/** Starts it, once the rank has joined. Resolves when the coordinator hears it, with what ends it. */
export async function startHeart(place: LeaderPlace): Promise<() => Promise<unknown>> {
  const worker = new Worker(programFile("heart-main"), { workerData: place, execArgv: [] });
  worker.unref();
  try {
    await new Promise((resolve, reject) => {
      worker.once("message", resolve);
      worker.once("error", reject);
    });
  } catch (error) {
    throw new LongcatError("COMM_ERROR", `the coordinator does not hear this rank: ${(error as Error).message}`, { cause: error });
  }
  return () => worker.terminate();
}
