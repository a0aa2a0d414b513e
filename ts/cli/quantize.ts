/**
 * `longcat quantize`: writes a block-FP8 copy of a checkpoint.
 * @module
 */

import { quantize } from "../index.js";
import type { Command } from "./command.js";
import { UsageError } from "./flags.js";
import { interruptible } from "./interrupt.js";
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
      await interruptible((signal) =>
        quantize(input, output, {
          signal,
          onProgress: (done, total) => bar.update(total === 0 ? 1 : done / total),
          onWarning: (message) => {
            bar.end();
            note(`warning: ${message}`);
          },
        }),
      );
    } finally {
      bar.end();
    }
    note(`wrote ${output}`);
    return undefined;
  },
};
