/**
 * A run's tokenizer: that of a checkpoint, or one that is trained from the run's documents. Its files go into the run's checkpoints.
 *
 * A trained one has the form of the bundled model's: its special tokens, its way to cut text in pieces, its chat template.
 * @module
 */

import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Tokenizer as LibraryTokenizer } from "@huggingface/tokenizers";

import { invalid } from "../../checks.js";
import { LongcatError } from "../../errors.js";
import { kindOf } from "../../model/files.js";
import { BYTE_CHARACTERS } from "../../text/byte-level.js";
import { ChatTemplate } from "../../text/chat-template.js";
import { Tokenizer } from "../../text/tokenizer.js";
import { trainBpe } from "./bpe-trainer.js";

/** What turns documents into tokens. */
export interface TextForm {
  tokenizer: Tokenizer;
  /** null: chats cannot be trained on. */
  template: ChatTemplate | null;
  /** The token after a document. */
  end: number;
}

/** Files by name. */
export type TokenizerFiles = ReadonlyMap<string, Uint8Array>;

/** The form of the bundled model. */
export const BUNDLED = fileURLToPath(new URL("../../../models/mini", import.meta.url));

const TOKENIZER_NAME = "tokenizer.json";
const FILE_NAMES = /^(tokenizer|special_tokens_map|added_tokens|chat_template)/;

/** The files of a folder that say how it writes text. */
export function tokenizerFiles(dir: string): TokenizerFiles {
  if (kindOf(join(dir, TOKENIZER_NAME)) !== "file") throw invalid("data.tokenizer", dir, `a folder with ${TOKENIZER_NAME}`);
  const names = readdirSync(dir).filter((name) => FILE_NAMES.test(name) && kindOf(join(dir, name)) === "file");
  return new Map(names.sort().map((name) => [name, readFileSync(join(dir, name))]));
}

/** Reads the form in a folder. */
export async function loadForm(dir: string): Promise<TextForm> {
  const tokenizer = await Tokenizer.load(dir);
  const end = tokenizer?.endTokenIds[0];
  if (!tokenizer || end === undefined)
    throw new LongcatError("TOKENIZER_INVALID", `${dir}: names no eos_token, which ends the documents that are trained on`);
  return { tokenizer, template: await ChatTemplate.load(dir, tokenizer), end };
}

/** The form in some files. */
export async function formOf(files: TokenizerFiles): Promise<TextForm> {
  const dir = mkdtempSync(join(tmpdir(), "longcat-tokenizer-"));
  try {
    for (const [name, bytes] of files) writeFileSync(join(dir, name), bytes);
    return await loadForm(dir);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

/** The part of tokenizer.json that training touches. */
interface TokenizerJson {
  added_tokens: { id: number; content: string }[];
  model: Record<string, unknown>;
}

/**
 * Trains a tokenizer of the bundled form.
 *
 * @param texts without special tokens
 * @param size tokens at most: special ones and the 256 bytes among them
 */
export function trainTokenizer(texts: Iterable<string>, size: number): TokenizerFiles {
  const files = tokenizerFiles(BUNDLED);
  const json = JSON.parse(Buffer.from(files.get(TOKENIZER_NAME)!).toString()) as TokenizerJson;
  const special = json.added_tokens.map(({ content }) => content);
  const first = [...special, ...[...BYTE_CHARACTERS].sort()];
  if (size < first.length)
    throw invalid("model.vocab_size", size, `at least the ${first.length} tokens with which training a tokenizer begins`);
  const cutter = new LibraryTokenizer(json, {}).pre_tokenizer!;
  const { tokens, merges } = trainBpe(
    piecesOf(texts, (text) => cutter.pre_tokenize([text])),
    first,
    special.length,
    size,
  );
  const vocab = Object.fromEntries(tokens.map((token, id) => [token, id]));
  const trained = { ...json, model: { ...json.model, vocab, merges } };
  return new Map([...files, [TOKENIZER_NAME, Buffer.from(JSON.stringify(trained))]]);
}

function* piecesOf(texts: Iterable<string>, cut: (text: string) => string[]): Iterable<string> {
  for (const text of texts) yield* cut(text);
}
