/**
 * The command line of the repository's own programs: --help prints the usage and ends with 0, a wrong word says so in a line and ends with 2.
 * Node built-ins only.
 */
import { parseArgs } from "node:util";

/** A flag with a value, and one without. */
export const text = (value) => ({ type: "string", default: value });
export const flag = { type: "boolean", default: false };

/** As util.parseArgs; `usage` is what --help prints. */
export function argumentsOf(usage, options, allowPositionals = false) {
  try {
    const parsed = parseArgs({ options: { ...options, help: flag }, allowPositionals });
    if (!parsed.values.help) return parsed;
  } catch (error) {
    wrongUsage(usage, error.message.split(". ")[0]);
  }
  process.stdout.write(`usage: ${usage}\n`);
  process.exit(0);
}

/** Ends the program. */
export function wrongUsage(usage, complaint) {
  process.stderr.write(`usage error: ${complaint}\nusage: ${usage}\n`);
  process.exit(2);
}
