// Opens devices in a process that may start few threads: prints the refusal of 1000, then what a device of as many as it proposes computes.
import { addon, makeWork } from "./library.mjs";

for (let i = 0; i < 3; i++) {
  try {
    addon.openDevice({ kind: "cpu", threads: 1000 });
    console.log("1000 threads");
  } catch (error) {
    const there = Number(/give threads: (\d+)$/.exec(error.message)?.[1]);
    console.log(`${error.code}: ${error.message.replaceAll(String(there), "N")}`);
    const { device, run } = makeWork(10, there);
    await run();
    await device.close();
  }
}
console.log("end");
