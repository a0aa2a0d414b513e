// A worker thread: does some rounds of work and reports, or works until it is ended (data.until), or leaves by process.exit (data.exitAfterMs).
import { parentPort, workerData } from "node:worker_threads";
import { makeWork } from "./library.mjs";

const { device, graph, run } = makeWork(workerData.rounds ?? 100);
if (workerData.exitAfterMs !== undefined) setTimeout(() => process.exit(0), workerData.exitAfterMs);
if (workerData.forever) {
  parentPort.postMessage("working");
  for (let i = 0; i < 50; i++) device.replay(0, graph);
  for (;;) await run();
}
const sums = [];
for (let i = 0; i < 5; i++) sums.push(await run());
if (workerData.close) await device.close();
parentPort.postMessage(sums.join(" "));
