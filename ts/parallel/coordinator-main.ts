/**
 * The thread in which a coordinator runs; started by coordinator-thread.ts.
 * @module
 */

import { parentPort, workerData } from "node:worker_threads";
import { Coordinator, type CoordinatorOptions } from "./coordinator.js";
import type { FromCoordinator, ToCoordinatorThread } from "./coordinator-thread.js";
import { toWire } from "./wire-error.js";

const port = parentPort;
if (port !== null) {
  const tell = (message: FromCoordinator): void => port.postMessage(message);
  Coordinator.listen(workerData as CoordinatorOptions, {
    onProgress: (progress) => tell({ type: "progress", progress }),
    onWarning: (message) => tell({ type: "warning", message }),
    onStarted: (facts) => tell({ type: "started", facts }),
    onLost: (error) => tell({ type: "lost", error: toWire(error) }),
    onQuiet: () => tell({ type: "quiet" }),
  }).then(
    (coordinator) => {
      port.on("message", (message: ToCoordinatorThread) => {
        if (message.type === "ended") coordinator.ended(message.rank, message.how);
        else if (message.type === "disconnected") coordinator.disconnected(message.rank, message.why);
        else coordinator.close();
      });
      tell({ type: "listens", port: coordinator.port });
    },
    (error) => tell({ type: "lost", error: toWire(error) }),
  );
}
