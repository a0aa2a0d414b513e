/**
 * Programs that run in threads or processes of their own are compiled files, also for tests, which run the TypeScript itself.
 * @module
 */

import { existsSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/**
 * The compiled file of that name in a module's own folder: beside the module, or, where that is TypeScript, in dist.
 *
 * @param importer the module's import.meta.url
 * @returns null: it is not built
 */
export function compiledFile(importer: string, name: string): string | null {
  const here = fileURLToPath(importer);
  const folder = dirname(here);
  const file = here.endsWith(".js") ? join(folder, `${name}.js`) : join(folder, "../../dist", basename(folder), `${name}.js`);
  return existsSync(file) ? file : null;
}
