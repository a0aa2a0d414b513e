/**
 * `longcat serve`: an OpenAI-compatible HTTP server. SIGTERM lets answers end and exits with 0; a second signal exits at once.
 * @module
 */

import { readFileSync } from "node:fs";
import { Engine, inspect, LongcatError } from "../index.js";
import { ApiServer, pageFiles, type ServerOptions } from "../server/index.js";
import type { Command } from "./command.js";
import { ENGINE_FLAGS, engineOptions, leading, loadEngine } from "./engine-flags.js";
import { type Flag, type ParsedFlags, UsageError } from "./flags.js";
import { INTERRUPTED, interruptible, TERMINATED } from "./interrupt.js";
import { note } from "./output.js";

const SERVER_FLAGS: readonly Flag[] = [
  { name: "host", kind: "text", value: "H", help: "address to listen on (default: 127.0.0.1, this machine only)" },
  { name: "port", kind: "number", value: "P", help: "default: 8000; 0 takes a free one" },
  { name: "api-key", kind: "text", value: "K", help: "requests must say Authorization: Bearer K" },
  { name: "api-key-file", kind: "text", value: "FILE", help: "the same, read from a file, where ps does not show it" },
  { name: "model-name", kind: "text", value: "NAME", help: "the model's id (default: the folder's name)" },
  { name: "cors", kind: "text", value: "ORIGIN", repeated: true, help: "pages of this origin may use the server; * is all" },
  { name: "allowed-host", kind: "text", value: "NAME", repeated: true, help: "a further host name of this server; matters without a key" },
  { name: "max-body-bytes", kind: "number", value: "B", help: "largest body of a request" },
  { name: "max-queue", kind: "number", value: "N", help: "most answers that wait for their turn" },
  { name: "drain-timeout", kind: "number", value: "S", help: "seconds that SIGTERM waits for answers under way (default: 30)" },
];

export const serveCommand: Command = {
  usage: ["serve [flags]"],
  about:
    "Serves the model over HTTP as OpenAI's clients expect it: /v1/chat/completions, /v1/completions, /v1/models, /v1/score, /tokenize,\n" +
    "/detokenize, /health, /metrics, and a chat page at /. docs/serving.md says more. SIGTERM takes no more requests, lets those under way end\n" +
    "and exits with 0; a second signal exits at once.",
  flags: [...SERVER_FLAGS, ...ENGINE_FLAGS],
  maxPositionals: 0,
  run: (flags) => leading(flags, () => interruptible((interrupt) => serve(flags, interrupt))),
};

async function serve(flags: ParsedFlags, interrupt: AbortSignal): Promise<number> {
  const options = serverOptions(flags);
  const stop = stopOnSignals(interrupt);
  await checkModel(flags);
  const server = await ApiServer.listen(options, pageFiles());
  note(`listening on ${server.url}`);
  if (options.apiKey === undefined && !/^(127\.|::1$|localhost$)/.test(options.host ?? "127.0.0.1"))
    note("warning: no key is set, and other machines can reach this address: --api-key-file sets one");
  let engine: Engine | undefined;
  try {
    engine = await loadEngine(flags, stop);
    server.serve(engine);
    note(`ready: ${server.model}`);
    await aborted(stop);
    note("draining: answers under way may end; a second signal exits at once");
  } catch (error) {
    if (!(stop.aborted && error instanceof LongcatError && error.code === "ABORTED")) throw error;
  } finally {
    await server.drain();
    await engine?.close();
  }
  return interrupt.aborted ? INTERRUPTED : 0;
}

/** Refuses, before the port is open, what no load could mend: impossible options, a folder that holds no checkpoint. Only headers are read. */
async function checkModel(flags: ParsedFlags): Promise<void> {
  const [directory, options] = [flags.text("model"), engineOptions(flags)];
  await inspect(directory, { allowUnknownTensors: options.allowUnknownTensors });
  // A load that is stopped before it begins has checked its options.
  await Engine.load(directory, { ...options, signal: AbortSignal.abort() }).catch((error: unknown) => {
    if (!(error instanceof LongcatError && error.code === "ABORTED")) throw error;
  });
}

function serverOptions(flags: ParsedFlags): ServerOptions {
  const [key, keyFile] = [flags.text("api-key"), flags.text("api-key-file")];
  if (key !== undefined && keyFile !== undefined) throw new UsageError("--api-key and --api-key-file exclude each other");
  const seconds = flags.number("drain-timeout");
  return {
    host: flags.text("host"),
    port: flags.number("port"),
    apiKey: keyFile === undefined ? key : readKey(keyFile),
    modelName: flags.text("model-name"),
    cors: flags.texts("cors"),
    allowedHosts: flags.texts("allowed-host"),
    maxBodyBytes: flags.number("max-body-bytes"),
    maxQueue: flags.number("max-queue"),
    drainTimeoutMs: seconds === undefined ? undefined : Math.round(seconds * 1000),
    onLog: note,
  };
}

function readKey(file: string): string {
  try {
    return readFileSync(file, "utf8").trim();
  } catch (error) {
    throw new UsageError(`--api-key-file: ${(error as Error).message}`);
  }
}

/** Fires at the first SIGTERM or Ctrl-C; the second of either ends the program. */
function stopOnSignals(interrupt: AbortSignal): AbortSignal {
  const controller = new AbortController();
  process.on("SIGTERM", () => {
    if (controller.signal.aborted) process.exit(TERMINATED);
    controller.abort();
  });
  interrupt.addEventListener("abort", () => {
    if (controller.signal.aborted) process.exit(INTERRUPTED);
    controller.abort();
  });
  return controller.signal;
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}
