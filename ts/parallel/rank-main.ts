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

// What is meant for the leader reaches the whole group of processes: Ctrl-C, a closed terminal, the end of a service or of a job. It decides what becomes of
// its ranks, which end when it lets go of them.
for (const signal of ["SIGINT", "SIGHUP", "SIGTERM"]) process.on(signal, () => undefined);
process.on("disconnect", kill);
if (!process.connected) kill();

const place = JSON.parse(process.argv[2] as string) as RankPlace;
void Rank.run(place, process.env[TOKEN_VARIABLE] as string, {
  tell,
  end: (failed) => void told.then(() => (failed ? kill() : process.exit(0))),
});
