/**
 * The static page at `/`: a chat in plain web standards. Its files lie beside this module, in the sources as in dist.
 * @module
 */

import { readdirSync, readFileSync } from "node:fs";
import { extname } from "node:path";
import { fileURLToPath } from "node:url";
import type { PageFile } from "../server.js";

/** The page's files, beside TypeScript and what it compiles to. */
const FILES = /^(index\.html|icon\.svg|page\.css|(api|page|routing|store|view)\.js)$/;

const TYPES: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".svg": "image/svg+xml",
};

/**
 * The page's files by the path that they are served at: `/` and `/page.js`, `/page.css` and so on. They hold no secret and ask nothing of
 * another host; the page asks for the API key where the server wants one.
 */
export function pageFiles(): Map<string, PageFile> {
  const folder = fileURLToPath(new URL(".", import.meta.url));
  const files = new Map<string, PageFile>();
  for (const name of readdirSync(folder).filter((file) => FILES.test(file))) {
    const path = name === "index.html" ? "/" : `/${name}`;
    files.set(path, { type: TYPES[extname(name)] ?? "application/octet-stream", body: readFileSync(folder + name) });
  }
  return files;
}
