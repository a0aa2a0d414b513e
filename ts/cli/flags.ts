/**
 * Flags of the command line: described once, then parsed strictly and printed as help from the same description.
 * @module
 */

import { parseArgs } from "node:util";

/** One flag. `kind` says what its value is; `flag` takes none. */
export interface Flag {
  readonly name: string;
  readonly kind: "flag" | "text" | "number" | "ids";
  /** What stands for the value in the help; absent for kind `flag`. */
  readonly value?: string;
  readonly help: string;
  /** May be given more than once. */
  readonly repeated?: boolean;
}

/** The command line was wrong: exit code 2. The message names what was given and what would be accepted. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

/** `text` as a finite number, or a UsageError that names `where`. Nothing is coerced: no "", "NaN", "Infinity", "0x10". */
export function parseNumber(where: string, text: string): number {
  const value = Number(text);
  if (!NUMBER.test(text) || !Number.isFinite(value)) throw new UsageError(`${where}: ${JSON.stringify(text)} is not a number`);
  return value;
}

/** "1,2,3" as whole numbers, or a UsageError that names `where`. Whether the ids exist is the engine's question. */
function parseIds(where: string, text: string): number[] {
  if (text.trim() === "") return [];
  return text.split(",").map((part) => {
    if (!/^-?\d+$/.test(part.trim())) throw new UsageError(`${where}: ${JSON.stringify(part)} is not a token id; write ids like 1,2,3`);
    return Number(part);
  });
}

/** The parsed command line of one command. */
export class ParsedFlags {
  readonly #values: Readonly<Record<string, string | boolean | readonly (string | boolean)[] | undefined>>;
  readonly positionals: readonly string[];

  constructor(values: Record<string, string | boolean | (string | boolean)[] | undefined>, positionals: readonly string[]) {
    this.#values = values;
    this.positionals = positionals;
  }

  /** Whether a flag without value was given. */
  on(name: string): boolean {
    return this.#values[name] === true;
  }

  text(name: string): string | undefined {
    const value = this.#values[name];
    return typeof value === "string" ? value : undefined;
  }

  /** Every value of a repeated flag; undefined if it was not given. */
  texts(name: string): string[] | undefined {
    const value = this.#values[name];
    return Array.isArray(value) ? value.map(String) : undefined;
  }

  number(name: string): number | undefined {
    const text = this.text(name);
    return text === undefined ? undefined : parseNumber(`--${name}`, text);
  }

  ids(name: string): number[] | undefined {
    const text = this.text(name);
    return text === undefined ? undefined : parseIds(`--${name}`, text);
  }
}

/** `--temperature -0.5` → `--temperature=-0.5`: parseArgs takes a value that begins with a dash only in the second form. */
function joinNegativeValues(argv: readonly string[], flags: readonly Flag[]): string[] {
  const takesValue = new Set(flags.filter((flag) => flag.kind !== "flag").map((flag) => `--${flag.name}`));
  const joined: string[] = [];
  for (let i = 0; i < argv.length; i++) {
    const [word = "", next] = [argv[i], argv[i + 1]];
    if (word === "--") return joined.concat(argv.slice(i));
    if (takesValue.has(word) && next !== undefined && /^-[\d.]/.test(next)) {
      joined.push(`${word}=${next}`);
      i++;
    } else joined.push(word);
  }
  return joined;
}

/** Letters to insert, remove or exchange to make one word of the other. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const above = row;
    row = [i];
    for (let j = 1; j <= b.length; j++)
      row.push(Math.min((above[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, (above[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)));
  }
  return row[b.length] ?? 0;
}

/** The flag that a mistyped one most likely means: two wrong letters or a third of them, written in camel or snake case, or cut short. */
function nearestFlag(mistyped: string, flags: readonly Flag[]): string | undefined {
  if (!/^--[a-z]/i.test(mistyped) || mistyped.length > 40) return undefined;
  const word = mistyped
    .slice(2)
    .replace(/([a-z])([A-Z])/g, "$1-$2")
    .replaceAll("_", "-")
    .toLowerCase();
  const distances = [...flags.map((flag) => flag.name), "help"].map((name) => ({
    name,
    distance: word.length > 2 && name.startsWith(word) ? 0 : editDistance(word, name),
  }));
  const [nearest] = distances.sort((a, b) => a.distance - b.distance);
  return nearest !== undefined && nearest.distance <= (word.length < 4 ? 1 : Math.max(2, word.length / 3)) ? nearest.name : undefined;
}

/** The words of parseArgs on one line, and what was probably meant. */
function explain(message: string, flags: readonly Flag[], maxPositionals: number): string {
  const unknown = /^Unknown option '([\s\S]*?)'(?:\. To specify|$)/.exec(message)?.[1];
  if (unknown === undefined) return message.replaceAll(/\s*\n\s*/g, " ");
  const nearest = nearestFlag(unknown, flags);
  const hint = maxPositionals > 0 ? '; put -- before a text that begins with "-"' : "";
  return `unknown flag ${JSON.stringify(unknown)}${nearest === undefined ? hint : `; did you mean --${nearest}?`}`;
}

/** Parses a command's words strictly. A flag that is not repeated may be given once. */
export function parseFlags(argv: readonly string[], flags: readonly Flag[], maxPositionals: number): ParsedFlags {
  const options = Object.fromEntries(
    flags.map((flag) => [flag.name, { type: flag.kind === "flag" ? ("boolean" as const) : ("string" as const), multiple: true }]),
  );
  let parsed: ReturnType<typeof parseArgs>;
  try {
    parsed = parseArgs({ args: joinNegativeValues(argv, flags), options, allowPositionals: true, strict: true });
  } catch (error) {
    throw new UsageError(explain((error as Error).message, flags, maxPositionals));
  }
  const extra = parsed.positionals[maxPositionals];
  if (extra !== undefined) throw new UsageError(`unexpected argument ${JSON.stringify(extra)}`);
  const values: Record<string, string | boolean | (string | boolean)[] | undefined> = {};
  for (const flag of flags) {
    const given = parsed.values[flag.name] as (string | boolean)[] | undefined;
    if (given === undefined) continue;
    if (!flag.repeated && flag.kind !== "flag" && given.length > 1) throw new UsageError(`--${flag.name} is given ${given.length} times`);
    values[flag.name] = flag.repeated ? given : given[0];
  }
  return new ParsedFlags(values, parsed.positionals);
}

/** The flags as aligned lines of help. */
export function describeFlags(flags: readonly Flag[]): string {
  const heads = flags.map((flag) => `  --${flag.name}${flag.value === undefined ? "" : ` ${flag.value}`}${flag.repeated ? " …" : ""}`);
  const width = Math.max(...heads.map((head) => head.length));
  return flags.map((flag, i) => `${(heads[i] ?? "").padEnd(width)}  ${flag.help}`).join("\n");
}
