/**
 * What a command is: its words in the help and what it does.
 * @module
 */

import type { Flag, ParsedFlags } from "./flags.js";

/** One command, or one subcommand such as `inspect model`. */
export interface Command {
  /** How it is typed, without `longcat`: one line a form. */
  readonly usage: readonly string[];
  /** What it does, in a few sentences. */
  readonly about: string;
  readonly flags: readonly Flag[];
  /** Words that are not flags: at most so many. */
  readonly maxPositionals: number;
  /** Does it; the exit code, 0 if undefined. */
  run(flags: ParsedFlags): Promise<number | undefined>;
}

export const JSON_FLAG: Flag = { name: "json", kind: "flag", help: "one JSON document on standard output, nothing else" };
export const HELP_FLAG: Flag = { name: "help", kind: "flag", help: "this help" };
