// An engine here and one in a forked child, at once; prints both answers. The child leaves its engine open.
import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { Engine } from "../../../dist/index.js";

const engine = await Engine.load(undefined, { device: "cpu", threads: 2 });
const answer = async () => (await engine.generate("Once upon a time", { maxTokens: 40, temperature: 0 })).tokens.join(" ");

if (process.send) {
  process.send(await answer());
  process.disconnect();
} else {
  const child = fork(fileURLToPath(import.meta.url));
  const theirs = new Promise((resolve, reject) => child.on("message", resolve).on("error", reject));
  const exited = new Promise((resolve) => child.on("exit", (code, signal) => resolve([code, signal])));
  const own = await answer();
  console.log(JSON.stringify({ same: own === (await theirs) && own === (await answer()), child: await exited }));
}
