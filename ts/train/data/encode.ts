/**
 * Documents as tokens.
 *
 * Each answer of a chat is a document of its own behind the prompt that the engine would have given the model there, token for token:
 * what is trained on is what is served.
 * @module
 */

import { LongcatError } from "../../errors.js";
import type { RenderedChat } from "../../text/chat-template.js";
import { THINK_CLOSE, THINK_OPEN } from "../../text/markers.js";
import { type ChatDocument, type Document, isChat, promptOf } from "./document.js";
import type { TextForm } from "./tokenizer.js";

/** A document's tokens, the end among them. */
export interface EncodedDocument {
  ids: number[];
  /** Tokens before this one are given, not learnt. */
  learnFrom: number;
}

/** A text is one, a chat one for each answer. */
export function encodeDocument(document: Document, form: TextForm, learn: "answers" | "all"): EncodedDocument[] {
  if (!isChat(document)) return [{ ids: [...form.tokenizer.encode(document.text), form.end], learnFrom: 0 }];
  return turnsOf(document, form).map(({ prompt, answer }) => {
    const given = form.tokenizer.encodeSegments(prompt.segments);
    const learnt = form.tokenizer.encode(answer, { parseSpecial: true });
    const end = learnt.at(-1) === form.end ? [] : [form.end];
    return { ids: [...given, ...learnt, ...end], learnFrom: learn === "all" ? 0 : given.length };
  });
}

/** What of a document a tokenizer is trained on: its text without special tokens. */
export function textsOf(document: Document, form: TextForm): string[] {
  if (!isChat(document)) return [document.text];
  const { prompt, answer } = turnsOf(document, form).at(-1)!;
  return [...prompt.segments, ...form.tokenizer.split(answer)].filter((segment) => typeof segment === "string");
}

/** An answer of a chat: what stands before it, and how the template writes it, special tokens in text. */
interface Turn {
  prompt: RenderedChat;
  answer: string;
}

function turnsOf(document: ChatDocument, { tokenizer, template }: TextForm): Turn[] {
  if (!template) throw new LongcatError("TOKENIZER_INVALID", `${tokenizer.dir}: has no chat template, and a document is a chat`);
  return document.messages.flatMap(({ role, reasoning_content }, i) => {
    if (role !== "assistant") return [];
    const prompt = template.render(promptOf(document, i));
    const before = prompt.startsInReasoning ? withoutOpening(prompt.rendered) : prompt.rendered;
    const whole = template.render(promptOf(document, i + 1)).rendered;
    if (!whole.startsWith(before))
      throw new LongcatError("TOKENIZER_INVALID", `${tokenizer.dir}: its chat template writes an answer elsewhere than after its prompt`);
    const said = whole.slice(before.length);
    return [{ prompt, answer: prompt.startsInReasoning ? `${reasoning_content ?? ""}\n${THINK_CLOSE}\n${said}` : said }];
  });
}

/** A prompt that has opened reasoning, without that: histories do not show any. */
function withoutOpening(rendered: string): string {
  return rendered.slice(0, rendered.lastIndexOf(THINK_OPEN));
}
