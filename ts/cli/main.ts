#!/usr/bin/env node
/**
 * The `longcat` program: finds the command, parses its flags, turns failures into exit codes.
 * 0 success, 1 a LongcatError (one line `error: CODE: message`), 2 wrong usage, 130 Ctrl-C.
 * @module
 */

import { LongcatError, version } from "../index.js";
import { type Command, HELP_FLAG } from "./command.js";
import { COMMANDS, findCommand } from "./commands.js";
import { describeFlags, type Flag, parseFlags, UsageError } from "./flags.js";
import { handleInterrupts, INTERRUPTED } from "./interrupt.js";
import { endOnFailedOutput, note, print } from "./output.js";

function overview(): string {
  const width = Math.max(...COMMANDS.map((entry) => entry.name.length));
  const lines = COMMANDS.map((entry) => `  ${entry.name.padEnd(width)}  ${entry.summary}`);
  return [
    "longcat: the LongCat-Flash model family in process",
    "",
    "usage: longcat COMMAND …",
    "",
    ...lines,
    "",
    "longcat COMMAND --help says more. Without --model a command uses the bundled mini checkpoint.",
    "",
  ].join("\n");
}

function help(command: Command): string {
  const usage = command.usage.map((line, i) => `${i === 0 ? "usage:" : "      "} longcat ${line}`).join("\n");
  return `${usage}\n\n${command.about}\n\n${describeFlags([...command.flags, HELP_FLAG])}\n`;
}

async function run(argv: readonly string[]): Promise<number> {
  const [first, ...rest] = argv;
  if (first === undefined) throw new UsageError("no command; longcat --help lists them");
  if (first === "--help" || first === "-h" || first === "help") {
    if (rest.length > 0 && first === "help") return run([...rest, "--help"]);
    await print(overview());
    return 0;
  }
  if (first === "--version" || first === "-v") {
    await print(`${version}\n`);
    return 0;
  }
  const { command, words } = await findCommand(first, rest);
  runningFlags = command.flags;
  // What follows a "--" is text, whatever it looks like.
  const before = words.includes("--") ? words.slice(0, words.indexOf("--")) : words;
  if (before.includes("--help") || before.includes("-h")) {
    await print(help(command));
    return 0;
  }
  return (await command.run(parseFlags(words, command.flags, command.maxPositionals))) ?? 0;
}

/** Flags of the command that runs: errors name them. */
let runningFlags: readonly Flag[] = [];

/** Options whose flag is not their own name in kebab case. */
const FLAG_OF: Readonly<Record<string, string>> = {
  ...{ "parallel.expert": "ranks", "parallel.exchange": "exchange", "parallel.dispatchDType": "dispatch-dtype" },
  ...{ "parallel.joinTimeoutMs": "join-timeout", "parallel.timeoutMs": "rank-timeout" },
  ...{ drainTimeoutMs: "drain-timeout", stopTokens: "stop-token" },
  ...{ batchInvariant: "no-batch-invariant", prefixCache: "no-prefix-cache", cacheDType: "cache-dtype" },
};

/** " (--max-tokens)" after a message about the option `maxTokens`; nothing where the option is called as its flag is, or has none. */
function flagHint(message: string): string {
  const option = /^([a-zA-Z.]+)(\[\d+\])?:/.exec(message)?.[1] ?? "";
  const name = FLAG_OF[option] ?? option.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  return name !== option && runningFlags.some((flag) => flag.name === name) ? ` (--${name})` : "";
}

/** Puts an error on standard error as one line; the exit code that goes with it. */
function report(error: unknown): number {
  if (error instanceof UsageError) {
    note(`usage error: ${error.message.replaceAll("\n", " ")}`);
    return 2;
  }
  if (error instanceof LongcatError) {
    note(`error: ${error.code}: ${error.message.replaceAll(/\s*\n\s*/g, " | ")}${flagHint(error.message)}`);
    return error.code === "ABORTED" ? INTERRUPTED : 1;
  }
  note(`error: INTERNAL: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
  return 1;
}

endOnFailedOutput();
handleInterrupts();
try {
  process.exitCode = await run(process.argv.slice(2));
} catch (error) {
  process.exitCode = report(error);
}
