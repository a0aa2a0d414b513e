/**
 * Puts the files of the page at `/` beside what TypeScript compiled: dist/server/page. Browsers run them as they are.
 *
 *   node scripts/copy-page.mjs
 */
import { copyFileSync, mkdirSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** Copies all but TypeScript. */
export function copyPage(root) {
  const [from, to] = [join(root, "ts", "server", "page"), join(root, "dist", "server", "page")];
  mkdirSync(to, { recursive: true });
  for (const name of readdirSync(from).filter((file) => !file.endsWith(".ts"))) copyFileSync(join(from, name), join(to, name));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) copyPage(dirname(dirname(fileURLToPath(import.meta.url))));
