/**
 * A checkpoint's tokenizer, template and output parser as the engine uses them.
 * @module
 */

import { Grammars } from "../grammar/index.js";
import { ChatTemplate, OutputParser, Tokenizer } from "../text/index.js";
import type { TextTools } from "./prompt.js";

/** Loads a folder's tokenizer and template; undefined if it has no tokenizer. */
export async function loadTextTools(dir: string, vocabularySize: number): Promise<(TextTools & { close(): void }) | undefined> {
  const tokenizer = await Tokenizer.load(dir);
  if (tokenizer === null) return undefined;
  tokenizer.checkAgainst(vocabularySize);
  const special = new Map([...tokenizer.addedTokens].map(([content, { id }]) => [content, id] as const));
  const added = new Set(special.values());
  const textIds = tokenizer.allowedIds.filter((id) => !added.has(id));
  const tokenBytes = (id: number): Uint8Array => tokenizer.tokenBytes(id);
  const template = await ChatTemplate.load(dir, tokenizer);
  return {
    hasTemplate: template !== null,
    allowedIds: tokenizer.allowedIds,
    endTokenIds: tokenizer.endTokenIds,
    encode: (text, options) => tokenizer.encodeAsync(text, options),
    encodeChat: (chat, options) => (template as ChatTemplate).encodeAsync(chat, options),
    newParser: (stop, chat) => new OutputParser({ tokenizer, stop, ...(chat ?? { mode: "raw" }) }),
    decode: (ids) => tokenizer.decode(ids),
    tokenBytes,
    isSpecial: (id) => tokenizer.isSpecial(id),
    grammars: new Grammars(vocabularySize, { textIds, tokenBytes, special }),
    close: () => tokenizer.close(),
  };
}
