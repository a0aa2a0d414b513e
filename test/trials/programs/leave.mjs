// Workers that leave while the engine works. argv[2]: "exit" (process.exit in the worker 5 ms after a generation began), "load" (terminated
// at many moments of a load), "step" (terminated while it generates). Prints their exit codes, then what this thread still generates, then
// by how many MB the process has grown since the first few.
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { Engine } from "../../../dist/index.js";

const options = { device: "cpu", threads: 2, maxSequences: 2 };
const way = process.argv[2];

async function inWorker() {
  const loading = Engine.load(undefined, options);
  parentPort.postMessage("loading");
  const engine = await loading;
  const generating = engine.generate("Once upon a time", { ignoreEos: true });
  parentPort.postMessage("generating");
  if (workerData === "exit") setTimeout(() => process.exit(0), 5);
  await generating;
}

async function ended(round) {
  const worker = new Worker(new URL(import.meta.url), { workerData: way });
  const exited = new Promise((resolve, reject) => worker.on("exit", resolve).on("error", reject));
  if (way === "exit") return exited;
  const wanted = way === "load" ? "loading" : "generating";
  await new Promise((resolve) => worker.on("message", (message) => message === wanted && resolve()));
  await new Promise((resolve) => setTimeout(resolve, 3 * (round % 7)));
  await worker.terminate();
  return exited;
}

async function inMain() {
  const codes = new Set();
  let settled = 0;
  const [rounds, first] = [20, 8];
  for (let round = 0; round < rounds; round++) {
    codes.add(await ended(round));
    if (round === first) settled = process.memoryUsage().rss;
  }
  const grown = (process.memoryUsage().rss - settled) / 2 ** 20;
  const engine = await Engine.load(undefined, options);
  const { text } = await engine.generate({ messages: [{ role: "user", content: "Compute 56 + 80." }] }, { temperature: 0 });
  console.log(JSON.stringify({ codes: [...codes].sort(), text, grown }));
}

await (isMainThread ? inMain() : inWorker());
