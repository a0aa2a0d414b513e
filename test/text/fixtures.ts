/** What the text tests share: the golden file, mini's tokenizer, and folders with a changed one. */
import { cpSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Message, Tool } from "../../ts/text/index.js";
import { Tokenizer } from "../../ts/text/index.js";

export const MINI = fileURLToPath(new URL("../../models/mini", import.meta.url));

export interface GoldenCase {
  messages?: Message[];
  tools?: Tool[];
  enable_thinking?: boolean;
  rendered?: string;
  prompt?: string;
  prompt_ids: number[];
  greedy_ids: number[];
  text: string;
}

export interface Goldens {
  cases: GoldenCase[];
  tokenization: { text: string; ids: number[]; decoded: string }[];
}

export const goldens: Goldens = JSON.parse(readFileSync(fileURLToPath(new URL("../fixtures/mini/goldens.json", import.meta.url)), "utf8"));

/** The golden cases that go through the chat template. */
export const chatCases = goldens.cases.filter((one) => one.messages !== undefined);

export async function miniTokenizer(): Promise<Tokenizer> {
  const tokenizer = await Tokenizer.load(MINI);
  if (tokenizer === null) throw new Error("mini has no tokenizer.json");
  return tokenizer;
}

/** A golden case by index; indices are those of the file. */
export function golden(index: number): GoldenCase & { messages: Message[] } {
  const one = goldens.cases[index];
  if (one?.messages === undefined) throw new Error(`golden ${index} has no messages`);
  return one as GoldenCase & { messages: Message[] };
}

/** A document of unknown shape, to be changed at will. */
// biome-ignore lint/suspicious/noExplicitAny: the tests break it in every way
export type Json = Record<string, any>;

/** A copy of mini's text files, changed; a string replaces a file's text, null leaves it out. */
export function changedFolder(change: {
  tokenizer?: ((json: Json) => unknown) | string | null;
  config?: ((json: Json) => unknown) | string | null;
}): string {
  const dir = mkdtempSync(join(tmpdir(), "longcat-text-"));
  const put = (name: string, how: ((json: Json) => unknown) | string | null | undefined): void => {
    if (how === null) return;
    if (how === undefined) cpSync(join(MINI, name), join(dir, name));
    else if (typeof how === "string") writeFileSync(join(dir, name), how);
    else {
      const json = JSON.parse(readFileSync(join(MINI, name), "utf8")) as Json;
      writeFileSync(join(dir, name), JSON.stringify(how(json) ?? json));
    }
  };
  put("tokenizer.json", change.tokenizer);
  put("tokenizer_config.json", change.config);
  return dir;
}
