// A program that has nothing to do but to wait for an answer of an engine over two ranks. Tells their processes once the answer has begun, then how it
// ended, one JSON a line.
//   node waits.mjs generate|stream
import { Engine } from "../../../dist/index.js";

const tell = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);
const engine = await Engine.load(undefined, { device: "cpu", threads: 1, cacheBytes: 32e6, parallel: { expert: 2 } });
const params = { maxTokens: 3000, ignoreEos: true };

let hasBegun = false;
const begin = () => {
  if (!hasBegun) tell("begun");
  hasBegun = true;
};
try {
  if (process.argv[2] === "generate") await engine.generate("Once", params, begin);
  else for await (const _ of engine.stream("Once", params)) begin();
} catch ({ code, message }) {
  tell({ code, message });
}
await engine.close();
tell("closed");
