// Ways for a process to end with a device: "idle" (never closed), "unused", "pending" (a promise is waited for), "exit" (in mid-step), "collected".
import { addon, makeWork } from "./library.mjs";

const way = process.argv[2];
if (way === "unused") addon.openDevice({ kind: "cpu", threads: 2 });
if (way === "idle") {
  const { run } = makeWork(10);
  await run();
}
if (way === "pending") {
  const { device, graph } = makeWork(1000);
  device.replay(0, graph);
  device.done(0).then(() => console.log("done"));
}
if (way === "exit") {
  const { device, graph } = makeWork(2000);
  for (let i = 0; i < 100; i++) device.replay(0, graph);
  void device.done(0);
  setTimeout(() => process.exit(7), 5);
}
if (way === "collected") {
  for (let i = 0; i < 30; i++) {
    await makeWork(10).run();
    await new Promise(setImmediate);
    globalThis.gc();
  }
}
console.log("end");
