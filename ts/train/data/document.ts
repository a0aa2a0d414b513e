/**
 * Documents: what a line of JSONL holds, a piece of a text file, or what the corpus generator makes.
 * @module
 */

import { isPlain } from "../../checks.js";
import { LongcatError } from "../../errors.js";
import { validateChat } from "../../text/messages.js";
import type { Message, Tool } from "../../text/types.js";

/** Plain text: every token is learnt. */
export interface TextDocument {
  text: string;
}

/** A chat, as OpenAI and the hubs' data sets write it: the assistant's messages are what is learnt. */
export interface ChatDocument {
  messages: Message[];
  tools?: Tool[];
  /** Whether the template is asked for reasoning; the answer's is its `reasoning_content`. */
  enable_thinking?: boolean;
}

export type Document = TextDocument | ChatDocument;

export function isChat(document: Document): document is ChatDocument {
  return "messages" in document;
}

/** Its text without any form: what filters and deduplication look at. */
export function plainText(document: Document): string {
  if (!isChat(document)) return document.text;
  return document.messages
    .flatMap(({ reasoning_content, content, tool_calls }) => [
      ...(reasoning_content ? [reasoning_content] : []),
      ...(typeof content === "string" ? [content] : (content ?? []).map(({ text }) => text)),
      ...(tool_calls ?? []).map((call) => JSON.stringify(call.function)),
    ])
    .join("\n");
}

/**
 * A parsed line of JSONL as a document. Fields that are not known are left: data sets have many.
 *
 * @param where file and line, for the error
 * @throws LongcatError OPTION_INVALID
 */
export function parseDocument(value: unknown, where: string): Document {
  if (isPlain(value)) {
    const { text, messages, tools, enable_thinking } = value;
    if (typeof text === "string") return { text };
    if (Array.isArray(messages)) {
      const document = { messages, ...(tools != null && { tools }), ...(enable_thinking === true && { enable_thinking }) } as ChatDocument;
      try {
        validateChat(promptOf(document, messages.length));
      } catch (error) {
        throw new LongcatError("OPTION_INVALID", `${where}: ${(error as Error).message}`, { cause: error });
      }
      if (!document.messages.some(({ role }) => role === "assistant"))
        throw new LongcatError("OPTION_INVALID", `${where}: no message is the assistant's, so there is nothing to learn`);
      return document;
    }
  }
  throw new LongcatError("OPTION_INVALID", `${where}: an object with "text" or "messages" is wanted`);
}

/** The first messages of a chat as a prompt of the engine. */
export function promptOf({ messages, tools, enable_thinking }: ChatDocument, count: number) {
  return { messages: messages.slice(0, count), ...(tools && { tools }), ...(enable_thinking && { enableThinking: true }) };
}
