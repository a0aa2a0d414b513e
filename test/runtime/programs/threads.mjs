// The main thread and two workers at once: the same numbers in each. Then a worker again after all have ended.
import { Worker } from "node:worker_threads";
import { makeWork } from "./library.mjs";

const inWorker = () =>
  new Promise((resolve, reject) => {
    const worker = new Worker(new URL("./worker.mjs", import.meta.url), { workerData: { close: true } });
    worker.on("message", resolve).on("error", reject);
  });
const inMain = async () => {
  const { run } = makeWork(100);
  const sums = [];
  for (let i = 0; i < 5; i++) sums.push(await run());
  return sums.join(" ");
};
const sums = await Promise.all([inMain(), inWorker(), inWorker()]);
sums.push(await inWorker());
console.log(JSON.stringify(sums));
