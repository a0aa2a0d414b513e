/**
 * An OpenAI-compatible HTTP server over the public contract.
 * @module
 */

export type { ServerOptions } from "./options.js";
export { pageFiles } from "./page/index.js";
export { ApiServer, type PageFile } from "./server.js";
