/**
 * The thread that encodes long texts. It is started by encode-worker-host.ts and loads the same tokenizer.
 * @module
 */
import { parentPort, workerData } from "node:worker_threads";
import type { EncodeReply, EncodeRequest } from "./encode-worker-host.js";
import { Tokenizer } from "./tokenizer.js";

const port = parentPort;
if (port !== null) {
  const loaded = Tokenizer.load((workerData as { dir: string }).dir);
  loaded.catch(() => {}); // each request reports it
  port.on("message", ({ id, segments }: EncodeRequest) => {
    loaded
      .then((tokenizer) => {
        if (tokenizer === null) throw new Error("tokenizer.json is gone");
        const ids = Int32Array.from(segments.flatMap((segment) => (typeof segment === "string" ? tokenizer.encode(segment) : segment)));
        port.postMessage({ id, ids } satisfies EncodeReply, [ids.buffer]);
      })
      .catch((error: unknown) => port.postMessage({ id, error: String(error) } satisfies EncodeReply));
  });
}
