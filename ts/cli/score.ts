/**
 * `longcat score`: the log-probability of each token given those before it.
 * @module
 */

import { type Command, JSON_FLAG } from "./command.js";
import { ENGINE_FLAGS, leading, loadEngine, SPECULATIVE_FLAG } from "./engine-flags.js";
import { type Flag, UsageError } from "./flags.js";
import { interruptible } from "./interrupt.js";
import { alignColumns, print, printJson } from "./output.js";
import { readText, TOKENS_FLAG } from "./prompt-flags.js";

/** Nothing is drawn, so nothing foreseen. */
const DRAFTS_FLAG: Flag = { ...SPECULATIVE_FLAG, help: "changes no score; off leaves the draft head's weights and cache out" };

/** Six decimals, and five significant digits however near to 0: a likely token's is not "-0.0000". */
function formatLogprob(logprob: number | null): string {
  if (logprob === null) return "-";
  return Math.abs(logprob) >= 0.01 || logprob === 0 ? logprob.toFixed(6) : logprob.toPrecision(5);
}

export const scoreCommand: Command = {
  usage: ["score TEXT [flags]", "score --tokens 1,2,3 [flags]"],
  about:
    "Prints each token's id, its text (escaped) and its log-probability given the tokens before it; the first has none. Then their sum.\n" +
    'TEXT that begins with "-" goes behind --. --json: {tokens, logprobs}.',
  flags: [TOKENS_FLAG, ...ENGINE_FLAGS.map((flag) => (flag === SPECULATIVE_FLAG ? DRAFTS_FLAG : flag)), JSON_FLAG],
  maxPositionals: 1,
  run: (flags) =>
    leading(flags, async () => {
      const ids = flags.ids("tokens");
      if (ids !== undefined && flags.positionals.length > 0) throw new UsageError("TEXT and --tokens exclude each other");
      const prompt = ids === undefined ? await readText(flags) : { tokens: ids };
      await interruptible(async (signal) => {
        const engine = await loadEngine(flags, signal);
        try {
          const { tokens, logprobs } = await engine.score(prompt, { signal });
          if (flags.on("json")) return await printJson({ tokens, logprobs });
          const textOf = (token: number) => (engine.info.hasTokenizer ? JSON.stringify(engine.detokenize([token])) : "");
          const rows = tokens.map((token, i) => [token, formatLogprob(logprobs[i] ?? null), textOf(token)]);
          const sum = logprobs.reduce<number>((total, logprob) => total + (logprob ?? 0), 0);
          const head = ["token", "logprob", engine.info.hasTokenizer ? "text" : ""];
          await print(`${alignColumns([head, ...rows, ["sum", formatLogprob(sum), ""]])}\n`);
        } finally {
          await engine.close();
        }
      });
      return undefined;
    }),
};
