// worker.terminate() in mid-step, several times; then an exception that nobody catches while the device works.
import { Worker } from "node:worker_threads";
import { makeWork } from "./library.mjs";

for (let i = 0; i < 5; i++) {
  const worker = new Worker(new URL("./worker.mjs", import.meta.url), { workerData: { forever: true, rounds: 1000 } });
  await new Promise((resolve, reject) => worker.on("message", resolve).on("error", reject));
  await new Promise((resolve) => setTimeout(resolve, 20 * i));
  await worker.terminate();
}
console.log("terminated");
if (process.argv[2] === "throw") {
  const { device, graph } = makeWork(2000);
  for (let i = 0; i < 50; i++) device.replay(0, graph);
  setTimeout(() => {
    throw new Error("nobody catches this");
  }, 5);
  await device.done(0);
}
