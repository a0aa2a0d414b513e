/** Where the repository keeps its checkpoints. */
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** The repository's root. */
export const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** Names of the checkpoints in the repository. */
export type ModelName = "mini" | "tiny-a" | "tiny-lite-a";

/** A checkpoint's folder. Not to be written to. */
export function modelPath(name: ModelName): string {
  return name === "mini" ? join(ROOT, "models/mini") : join(ROOT, "test/fixtures", name);
}
