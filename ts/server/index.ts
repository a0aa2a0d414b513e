/**
 * `longcat-node/server`: the server of `longcat serve` in a program of one's own, over an engine that the program has loaded.
 *
 * @example
 * import { Engine } from "longcat-node";
 * import { ApiServer, pageFiles } from "longcat-node/server";
 *
 * const server = await ApiServer.listen({ port: 8000 }, pageFiles());
 * const engine = await Engine.load();
 * server.serve(engine);
 * process.once("SIGTERM", () => server.drain().then(() => engine.close()));
 *
 * @module
 */

export type { ServableEngine } from "./call.js";
export type { ServerOptions } from "./options.js";
export { pageFiles } from "./page/index.js";
export { ApiServer, type PageFile } from "./server.js";
