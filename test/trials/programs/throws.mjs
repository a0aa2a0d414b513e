// An exception that nobody catches, or process.exit, while the engine works: argv[2].
import { Engine } from "../../../dist/index.js";

const engine = await Engine.load(undefined, { device: "cpu", threads: 2 });
setTimeout(() => {
  if (process.argv[2] === "exit") process.exit(7);
  throw new Error("nobody catches this");
}, 30);
await engine.generate("Once upon a time", { ignoreEos: true });
