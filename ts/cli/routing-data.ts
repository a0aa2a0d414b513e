/**
 * What `longcat inspect routing` looks at: a checkpoint, and texts (words of the command line, ids, and files), each a data set with a name.
 * @module
 */

import { readFile, stat } from "node:fs/promises";
import { LongcatError, type Prompt, type RoutingData } from "../index.js";
import { type Flag, type ParsedFlags, UsageError } from "./flags.js";
import { decodeUtf8, readStandardInput, TOKENS_FLAG } from "./prompt-flags.js";

export const DATA_FLAGS: readonly Flag[] = [
  { name: "file", kind: "text", value: "FILE", help: "a data set of that name", repeated: true },
  { name: "data", kind: "text", value: "NAME=FILE", help: "a data set; files of one NAME belong together", repeated: true },
  TOKENS_FLAG,
];

export const ROUTING_FORM = "inspect routing DIR TEXT…";

/** The words: a checkpoint's folder, and texts. Without words there is no folder, and the bundled checkpoint is meant. */
export async function splitWords({ positionals }: ParsedFlags): Promise<{ directory?: string; texts: readonly string[] }> {
  const [directory, ...texts] = positionals;
  if (directory === undefined) return { texts };
  // A text in the folder's place may be longer than any path.
  const found = await stat(directory).catch(() => undefined);
  if (!found?.isDirectory())
    throw new UsageError(`${ROUTING_FORM}: the checkpoint's folder comes first, and ${JSON.stringify(directory)} is no folder`);
  return { directory, texts };
}

/** All data sets, in the order: texts, and what the flags name: ids, files. */
export async function readData(flags: ParsedFlags, texts: readonly string[]): Promise<RoutingData> {
  const sets = new Map<string, Prompt[]>();
  const add = (name: string, prompts: readonly Prompt[]) => sets.set(name, [...(sets.get(name) ?? []), ...prompts]);
  for (const [i, text] of texts.entries())
    add(texts.length === 1 ? "text" : `text ${i + 1}`, [text === "-" ? await readStandardInput() : text]);
  const tokens = flags.ids("tokens");
  if (tokens) add("tokens", [{ tokens }]);
  for (const { name, file } of [...(flags.texts("file") ?? []).map((file) => ({ name: file, file })), ...namedFiles(flags)])
    add(name, await readPrompts(file));
  if (sets.size === 0) throw new UsageError(`${ROUTING_FORM} needs a text, --tokens, --file or --data`);
  return Object.fromEntries(sets);
}

function namedFiles(flags: ParsedFlags): { name: string; file: string }[] {
  return (flags.texts("data") ?? []).map((given) => {
    const [, name, file] = /^([^=]+)=(.+)$/s.exec(given) ?? [];
    if (name === undefined || file === undefined) throw new UsageError(`--data: ${JSON.stringify(given)} is not NAME=FILE`);
    return { name, file };
  });
}

/** A file's texts: of .jsonl one a line, of .json one; any other file is a text as a whole. */
async function readPrompts(file: string): Promise<Prompt[]> {
  let bytes: Buffer;
  try {
    bytes = await readFile(file);
  } catch (cause) {
    throw new LongcatError("PROMPT_INVALID", `${file}: ${(cause as Error).message}`, { cause });
  }
  const text = decodeUtf8(bytes, file);
  if (/\.json$/i.test(file)) return [promptOf(text, file)];
  if (!/\.jsonl$/i.test(file)) return [text];
  return text.split("\n").flatMap((line, i) => (line.trim() === "" ? [] : [promptOf(line, `${file}:${i + 1}`)]));
}

/** `{"text"}`, `{"messages", "tools"?, "enable_thinking"?}`, `{"tokens"}` or a bare list of ids. Other keys, which data sets have for their own ends, are not read. */
function promptOf(json: string, where: string): Prompt {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch (cause) {
    throw new LongcatError("PROMPT_INVALID", `${where}: not JSON: ${(cause as Error).message}`, { cause });
  }
  if (Array.isArray(value)) return { tokens: value as number[] };
  const { text, messages, tools, enable_thinking: enableThinking, tokens } = (value ?? {}) as Record<string, unknown>;
  const kinds = Object.entries({ text, messages, tokens }).filter(([, one]) => one !== undefined && one !== null);
  const [[kind] = []] = kinds;
  if (kinds.length !== 1 || (kind === "text" && typeof text !== "string"))
    throw new LongcatError("PROMPT_INVALID", `${where}: give one of "text" (a string), "messages" and "tokens", or a list of token ids`);
  // What is in them is the engine's to check.
  if (kind === "messages") return { messages, tools, enableThinking } as Prompt;
  return kind === "tokens" ? ({ tokens } as Prompt) : (text as string);
}
