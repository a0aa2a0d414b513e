/**
 * `longcat quantize`: writes a block-FP8 copy of a checkpoint.
 * @module
 */

import { quantizeCheckpoint } from "../model/quantize.js";
import type { Command } from "./command.js";
import { UsageError } from "./flags.js";
import { note } from "./output.js";
import { ProgressBar } from "./progress.js";

export const quantizeCommand: Command = {
  usage: ["quantize IN OUT"],
  about: "Reads the checkpoint folder IN and writes its copy in block FP8 (128 × 128, e4m3) to the new folder OUT.",
  flags: [],
  maxPositionals: 2,
  run: async (flags) => {
    const [input, output] = flags.positionals;
    if (input === undefined || output === undefined) throw new UsageError("quantize needs two folders: IN and OUT");
    const bar = new ProgressBar("Quantizing");
    try {
      await quantizeCheckpoint(input, output, { onProgress: (done: number, total: number) => bar.update(total === 0 ? 1 : done / total) });
    } finally {
      bar.end();
    }
    note(`wrote ${output}`);
    return undefined;
  },
};
