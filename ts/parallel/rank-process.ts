/**
 * A rank's process, as the process sees it that started it.
 * @module
 */

import { type ChildProcess, spawn } from "node:child_process";
import type { Socket } from "node:net";
import { createInterface } from "node:readline";
import type { EngineInfo } from "../engine/types.js";
import { TOKEN_VARIABLE } from "./launcher.js";
import { programFile } from "./programs.js";
import type { WireError } from "./wire-error.js";

/** Where a rank belongs: what a process needs to know to become one. Beside this it gets the token, by its environment. */
export interface RankPlace {
  rank: number;
  ranks: number;
  /** Its number among the ranks of its host, and how many there are. */
  localRank: number;
  localRanks: number;
  /** Its number among the ranks that one process started, and how many there are. */
  ownRank: number;
  ownRanks: number;
  /** Where the leader listens, and how long it may take to be there. */
  address: string;
  port: number;
  connectMs: number;
}

/** What a rank tells the process that started it. */
export type ToStarter = { type: "ready"; info: EngineInfo } | { type: "lost"; error: WireError };

/** A process that is let go of has so long to end, before it is made to. */
const END_MS = 2000;

export class RankProcess {
  readonly rank: number;
  /** Resolves when the process has ended: how, and whether on its own accord. */
  readonly ended: Promise<{ how: string; orderly: boolean }>;
  readonly #child: ChildProcess;

  /** Starts it. What it writes comes out at stderr, with its number in front of each line. */
  constructor(place: RankPlace, token: string, onMessage: (message: ToStarter) => void = () => undefined) {
    this.rank = place.rank;
    const child = spawn(process.execPath, [programFile("rank-main"), JSON.stringify(place)], {
      env: { ...process.env, [TOKEN_VARIABLE]: token },
      stdio: ["ignore", "pipe", "pipe", "ipc"],
    });
    this.#child = child;
    for (const stream of [child.stdout, child.stderr])
      if (stream) createInterface(stream).on("line", (line) => process.stderr.write(`[rank ${place.rank}] ${line}\n`));
    child.on("message", (message) => onMessage(message as ToStarter));
    this.ended = new Promise((resolve) => {
      child.once("error", (error) => resolve({ how: `its process was not started: ${error.message}`, orderly: false }));
      child.once("exit", (code, signal) => {
        const how = signal === null ? `ended with exit code ${code}` : `was ended by ${signal}`;
        resolve({ how: `its process ${child.pid} ${how}`, orderly: code === 0 });
      });
    });
  }

  /** Lets this process end although that one runs: it then ends too. */
  unref(): void {
    this.#child.unref();
    this.#child.channel?.unref();
    for (const stream of [this.#child.stdout, this.#child.stderr]) (stream as Socket | null)?.unref();
  }

  /** Ends it: it kills itself when it is let go of, or the system does. */
  async end(): Promise<void> {
    this.#child.ref();
    if (this.#child.connected) this.#child.disconnect();
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), END_MS);
    await this.ended;
    clearTimeout(timer);
  }
}
