// The whole engine, from dist/: generates greedily in this thread and in two workers at once, ends a worker in mid-load and one in mid-step,
// imports again in a worker after all others have ended, and then ends by itself with an idle engine that nobody closed.
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { Engine } from "../../../dist/index.js";

const prompt = { tokens: [3, 17, 29, 5, 11, 42] };

async function tokens(engine) {
  return (await engine.generate(prompt, { maxTokens: 24, temperature: 0, ignoreEos: true })).tokens.join(" ");
}

function inWorker(job) {
  const worker = new Worker(new URL(import.meta.url), { workerData: job });
  const message = new Promise((resolve, reject) => worker.on("message", resolve).on("error", reject));
  return { worker, message };
}

if (isMainThread) {
  const engine = await Engine.load(undefined, { threads: 1 });
  const [first, second] = [inWorker("generate"), inWorker("generate")];
  const results = await Promise.all([tokens(engine), first.message, second.message]);
  for (const job of ["load", "endless"]) {
    const { worker, message } = inWorker(job);
    await message;
    await worker.terminate();
  }
  results.push(await inWorker("generate").message);
  console.log(JSON.stringify(results));
} else {
  const loading = Engine.load(undefined, { threads: 1 });
  if (workerData === "load") parentPort.postMessage("loading");
  const engine = await loading;
  if (workerData === "endless") {
    parentPort.postMessage("working");
    for (;;) await tokens(engine);
  }
  parentPort.postMessage(await tokens(engine));
}
