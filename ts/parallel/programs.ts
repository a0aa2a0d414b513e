/**
 * The programs of this room: a rank's process, its heart's thread, and the coordinator's.
 * @module
 */

import { LongcatError } from "../errors.js";
import { compiledFile } from "../runtime/compiled.js";

/** @throws LongcatError INTERNAL: the package is not built */
export function programFile(name: "rank-main" | "heart-main" | "coordinator-main"): string {
  const file = compiledFile(import.meta.url, name);
  if (file === null) throw new LongcatError("INTERNAL", `parallel/${name}.js is not built: npm run build`);
  return file;
}
