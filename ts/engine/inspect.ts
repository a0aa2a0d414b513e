/**
 * A checkpoint described without loading it.
 * @module
 */

import { absent, boolean, invalid, record, rejectUnknown } from "../checks.js";
import { openCheckpoint } from "../model/checkpoint.js";
import { type CheckpointDescription, describeCheckpoint } from "../model/describe.js";
import { bundledCheckpoint } from "./load.js";

/** Options of an inspection. */
export interface InspectOptions {
  /** Accept tensors that are not known. Default false. */
  allowUnknownTensors?: boolean | null;
}

/**
 * Describes a checkpoint from its config and its files' headers.
 *
 * @param directory Absent: the bundled mini checkpoint.
 * @throws LongcatError `CONFIG_INVALID`, `CHECKPOINT_INVALID`, `CHECKPOINT_UNSUPPORTED`, `OPTION_INVALID`.
 */
export async function describeModel(directory?: string | null, options?: InspectOptions | null): Promise<CheckpointDescription> {
  if (!absent(directory) && (typeof directory !== "string" || directory === ""))
    throw invalid("directory", directory, "the path of a checkpoint folder, or nothing for the bundled one");
  const input = record(options, "options");
  rejectUnknown(input, ["allowUnknownTensors"], "option");
  const unknown = input["allowUnknownTensors"];
  const allowUnknownTensors = absent(unknown) ? false : boolean(unknown, "allowUnknownTensors");
  const checkpoint = await openCheckpoint(directory ?? bundledCheckpoint(), { allowUnknownTensors });
  try {
    return describeCheckpoint(checkpoint);
  } finally {
    checkpoint.close();
  }
}
