// Workers one after another; each starts work and calls process.exit 5 ms later. Prints their exit codes.
import { Worker } from "node:worker_threads";

const codes = [];
for (let i = 0; i < Number(process.argv[2]); i++) {
  const worker = new Worker(new URL("./worker.mjs", import.meta.url), { workerData: { forever: true, exitAfterMs: 5, rounds: 1000 } });
  codes.push(await new Promise((resolve, reject) => worker.on("exit", resolve).on("error", reject)));
}
console.log(JSON.stringify(codes));
