/**
 * The program of a rank's process; started by rank-process.ts.
 * @module
 */

import { TOKEN_VARIABLE } from "./launcher.js";
import { Rank } from "./rank.js";
import type { RankPlace, ToStarter } from "./rank-process.js";

/** Word to the process that started this one gets there within so long, or never. */
const TELL_MS = 200;

/** The system ends it, since a thread may stand in an exchange whose other ranks are gone. There is nothing to save. */
function kill(): void {
  process.kill(process.pid, "SIGKILL");
}

/** What was told last is on its way. */
let told: Promise<unknown> = Promise.resolve();

function tell(message: ToStarter): void {
  told = new Promise((resolve) => {
    if (!process.connected) return resolve(undefined);
    process.send?.(message, resolve);
    setTimeout(resolve, TELL_MS);
  });
}

// Ctrl-C and a closed terminal reach the whole group of processes: the leader decides what they mean.
process.on("SIGINT", () => undefined);
process.on("SIGHUP", () => undefined);
process.on("SIGTERM", kill);
process.on("disconnect", kill);

const place = JSON.parse(process.argv[2] as string) as RankPlace;
void Rank.run(place, process.env[TOKEN_VARIABLE] as string, {
  tell,
  end: (failed) => void told.then(() => (failed ? kill() : process.exit(0))),
});
