/**
 * `longcat score`: the log-probability of each token given those before it.
 * @module
 */

import { type Command, JSON_FLAG } from "./command.js";
import { ENGINE_FLAGS, loadEngine } from "./engine-flags.js";
import { UsageError } from "./flags.js";
import { interruptible } from "./interrupt.js";
import { alignColumns, print, printJson } from "./output.js";
import { readText, TOKENS_FLAG } from "./prompt-flags.js";

export const scoreCommand: Command = {
  usage: ["score TEXT [flags]", "score --tokens 1,2,3 [flags]"],
  about: "Prints the log-probability of each token given those before it; the first has none. --json: {tokens, logprobs}.",
  flags: [TOKENS_FLAG, ...ENGINE_FLAGS, JSON_FLAG],
  maxPositionals: 1,
  run: async (flags) => {
    const ids = flags.ids("tokens");
    if (ids !== undefined && flags.positionals.length > 0) throw new UsageError("TEXT and --tokens exclude each other");
    const prompt = ids === undefined ? await readText(flags) : { tokens: ids };
    await interruptible(async (signal) => {
      const engine = await loadEngine(flags, signal);
      try {
        const { tokens, logprobs } = await engine.score(prompt, { signal });
        if (flags.on("json")) return await printJson({ tokens, logprobs });
        const rows = tokens.map((token, i) => [token, logprobs[i]?.toFixed(4) ?? "-"]);
        const sum = logprobs.reduce<number>((total, logprob) => total + (logprob ?? 0), 0);
        await print(`${alignColumns([["token", "logprob"], ...rows, ["sum", sum.toFixed(4)]])}\n`);
      } finally {
        await engine.close();
      }
    });
    return undefined;
  },
};
