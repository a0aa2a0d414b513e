/**
 * Where a prompt comes from: an argument, standard input, token ids, or a file of chat messages.
 * @module
 */

import { readFile } from "node:fs/promises";
import { LongcatError, type Message, type Prompt, type Tool } from "../index.js";
import { type Flag, type ParsedFlags, UsageError } from "./flags.js";

export const TOKENS_FLAG: Flag = { name: "tokens", kind: "ids", value: "1,2,3", help: "token ids instead of text" };

export const PROMPT_FLAGS: readonly Flag[] = [
  {
    name: "messages",
    kind: "text",
    value: "FILE",
    help: "JSON file {messages, tools?, enable_thinking?} for the chat template; - is standard input",
  },
  { name: "chat", kind: "flag", help: "send the text as one user message through the chat template" },
  { name: "think", kind: "flag", help: "let the model reason first, with --messages or --chat" },
  TOKENS_FLAG,
];

/** All of standard input as UTF-8. */
export async function readStandardInput(): Promise<string> {
  const pieces: Buffer[] = [];
  for await (const piece of process.stdin) pieces.push(piece as Buffer);
  return decodeUtf8(Buffer.concat(pieces), "standard input");
}

/** Bytes as text. Throws PROMPT_INVALID, naming `where` they are from. */
export function decodeUtf8(bytes: Uint8Array, where: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new LongcatError("PROMPT_INVALID", `${where}: not valid UTF-8`, { cause });
  }
}

/** The text argument; "-" or nothing means standard input, whose one last line break is not part of the text. */
export async function readText(flags: ParsedFlags): Promise<string> {
  const argument = flags.positionals[0];
  if (argument !== undefined && argument !== "-") return argument;
  if (argument === undefined && process.stdin.isTTY) throw new UsageError("no text: give it as an argument or on standard input");
  return (await readStandardInput()).replace(/\r?\n$/, "");
}

/** The prompt as the flags give it. */
export async function readPrompt(flags: ParsedFlags): Promise<Prompt> {
  const file = flags.text("messages");
  const tokens = flags.ids("tokens");
  const given = [flags.positionals.length > 0 && "PROMPT", file !== undefined && "--messages", tokens !== undefined && "--tokens"].filter(
    (name) => name !== false,
  );
  if (given.length > 1) throw new UsageError(`${given.join(" and ")} exclude each other`);
  const chat = file !== undefined || flags.on("chat");
  if (flags.on("think") && !chat) throw new UsageError("--think needs --messages or --chat: raw text has no template");
  if (flags.on("chat") && (file !== undefined || tokens !== undefined))
    throw new UsageError("--chat takes a text, not --messages or --tokens");
  if (tokens !== undefined) return { tokens };
  if (file !== undefined) return readMessages(file, flags.on("think"));
  const text = await readText(flags);
  if (!flags.on("chat")) return text;
  return { messages: [{ role: "user", content: text }], ...(flags.on("think") ? { enableThinking: true } : {}) };
}

async function readMessages(file: string, think: boolean): Promise<Prompt> {
  const where = file === "-" ? "standard input" : file;
  let text: string;
  try {
    text = file === "-" ? await readStandardInput() : decodeUtf8(await readFile(file), where);
  } catch (cause) {
    if (cause instanceof LongcatError) throw cause;
    throw new LongcatError("PROMPT_INVALID", `--messages ${file}: ${(cause as Error).message}`, { cause });
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new LongcatError("PROMPT_INVALID", `${where}: not JSON: ${(cause as Error).message}`, { cause });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new LongcatError("PROMPT_INVALID", `${where}: must hold an object {messages, tools?, enable_thinking?}`);
  const { messages, tools, enable_thinking: thinking, ...rest } = value as Record<string, unknown>;
  const unknown = Object.keys(rest)[0];
  if (unknown !== undefined)
    throw new LongcatError(
      "PROMPT_INVALID",
      `${where}: unknown key ${JSON.stringify(unknown)}; known are messages, tools, enable_thinking`,
    );
  if (thinking !== undefined && thinking !== null && typeof thinking !== "boolean")
    throw new LongcatError("PROMPT_INVALID", `${where}: enable_thinking must be true or false`);
  if (think && thinking === false) throw new UsageError(`--think and enable_thinking: false in ${where} contradict each other`);
  // Messages and tools are the engine's to check.
  const enableThinking = think || thinking === true;
  return {
    messages: messages as Message[],
    ...(tools === undefined || tools === null ? {} : { tools: tools as Tool[] }),
    ...(enableThinking ? { enableThinking } : {}),
  };
}
