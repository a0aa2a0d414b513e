/**
 * A chat prompt to token ids through the checkpoint's own template. Content never becomes special tokens.
 * @module
 */
import { basename } from "node:path";
import { LongcatError } from "../errors.js";
import { type ChatPrompt, type CheckedChat, type Json, type TemplateMessage, validateChat } from "./messages.js";
import { SpecialGuard } from "./special-guard.js";
import { TemplateProgram, TemplateRefusal } from "./template-program.js";
import type { EncodeResult, Segment, Tokenizer } from "./tokenizer.js";
import { readChatTemplates } from "./tokenizer-files.js";
import { KEY_OPEN, THINK_CLOSE, THINK_OPEN } from "./markers.js";
import type { CallForm } from "./tool-call-parser.js";
import type { Tool } from "./types.js";

/** Where the answer begins: in plain text, or in reasoning that the prompt has opened. */
export type ReasoningStart = false | "after-tag" | "after-newline";

/** What a rendered chat says of the answer to come: all that its parser needs. */
export interface ChatAnswer {
  /** Whether generation starts inside reasoning. */
  startsInReasoning: ReasoningStart;
  /** The tools that the prompt shows. */
  tools: Tool[];
  /** How the template writes the calls of a history, and so the model its own. */
  callForm: CallForm;
}

/** A rendered chat prompt, before it is encoded. */
export interface RenderedChat extends ChatAnswer {
  /** The text, special tokens included. */
  rendered: string;
  /** The same text cut at the special tokens that the template wrote. */
  segments: Segment[];
}

/** A chat prompt as ids. */
export interface EncodedChat extends RenderedChat {
  ids: number[];
}

interface Source {
  /** Its file's name. Not the path: errors of requests go to clients, who need not know the folder. */
  file: string;
  program: TemplateProgram;
  source: string;
  callForm: CallForm;
}

/** Variables that the template gets from this class alone. */
const RESERVED = ["messages", "tools", "add_generation_prompt", "bos_token", "eos_token", "pad_token", "unk_token"];

/**
 * The chat template of a checkpoint.
 *
 * @example
 * const template = await ChatTemplate.load(dir, tokenizer);
 * template?.encode({ messages: [{ role: "user", content: "Compute 56 + 80." }] }).ids;
 */
export class ChatTemplate {
  readonly #tokenizer: Tokenizer;
  readonly #templates: ReadonlyMap<string, Source>;

  private constructor(tokenizer: Tokenizer, templates: ReadonlyMap<string, Source>) {
    this.#tokenizer = tokenizer;
    this.#templates = templates;
  }

  /**
   * Reads chat_template.jinja or tokenizer_config.json's `chat_template`; null if the folder has neither.
   * @throws LongcatError `TOKENIZER_INVALID` for a template that does not parse, `CHECKPOINT_INVALID` for one outside the folder.
   */
  static async load(dir: string, tokenizer: Tokenizer): Promise<ChatTemplate | null> {
    const templates = new Map<string, Source>();
    for (const [name, { path, source }] of await readChatTemplates(dir, tokenizer.config)) {
      try {
        const callForm = source.includes(KEY_OPEN) ? "xml" : "json";
        templates.set(name, { file: basename(path), source, program: new TemplateProgram(source), callForm });
      } catch (error) {
        throw new LongcatError("TOKENIZER_INVALID", `${path}: the chat template "${name}" does not parse: ${(error as Error).message}`, {
          cause: error,
        });
      }
    }
    return templates.size === 0 ? null : new ChatTemplate(tokenizer, templates);
  }

  /** Whether the template can be told to reason. */
  get readsThinking(): boolean {
    return this.reads("enable_thinking");
  }

  /** Whether the template reads a variable from outside. */
  reads(name: string): boolean {
    return [...this.#templates.values()].some(({ program }) => program.reads.has(name));
  }

  /**
   * Checks and renders a chat prompt.
   * @throws LongcatError `PROMPT_INVALID` naming the field or what the template said, `OPTION_INVALID` for arguments that it does not read.
   */
  render(prompt: ChatPrompt): RenderedChat {
    const chat = validateChat(prompt);
    const source = this.#pick(chat);
    const given = thinkingArgs(chat, source);
    const { messages, tools } = withDefaults(chat, source.program);
    const texts = [source.source];
    collectTexts([messages, tools, given] as unknown as Json, texts);
    const guard = new SpecialGuard([...this.#tokenizer.addedTokens.keys()], texts);
    const named = this.#tokenizer.config.named;
    const marked = renderWith(
      source,
      {
        ...Object.fromEntries(Object.keys(named).map((key) => [key, named[key]])),
        ...(guard.guard(given, true) as object),
        messages: messages.map((message) => guardMessage(guard, message)),
        ...(tools.length > 0 ? { tools: tools.map((tool) => guardTool(guard, tool)) } : {}),
        add_generation_prompt: true,
      },
      texts.length,
    );
    const segments = this.#tokenizer
      .split(marked)
      .map((part) => (typeof part === "string" ? guard.clean(part) : part))
      .filter((part) => part !== "");
    const rendered = guard.clean(marked);
    const startsInReasoning = reasoningStart(segments, rendered, this.#tokenizer);
    return { rendered, segments, tools: chat.tools, callForm: source.callForm, startsInReasoning };
  }

  /** Checks, renders and encodes a chat prompt. Throws what {@link render} throws. */
  encode(prompt: ChatPrompt): EncodedChat {
    const chat = this.render(prompt);
    return { ...chat, ids: this.#tokenizer.encodeSegments(chat.segments) };
  }

  /** As {@link encode}; long prompts are encoded in a worker thread, hopelessly long ones refused at once. */
  async encodeAsync(prompt: ChatPrompt, options: { maxTokens?: number } = {}): Promise<RenderedChat & EncodeResult> {
    const chat = this.render(prompt);
    return { ...chat, ...(await this.#tokenizer.encodeSegmentsAsync(chat.segments, options.maxTokens)) };
  }

  #pick(chat: CheckedChat): Source {
    const wanted = chat.tools.length > 0 ? ["tool_use", "default"] : ["default"];
    const name = wanted.find((one) => this.#templates.has(one)) ?? [...this.#templates.keys()][0];
    return this.#templates.get(name as string) as Source;
  }
}

/** The template's own arguments, `enable_thinking` among them. */
function thinkingArgs(chat: CheckedChat, { program, file }: Source): { [key: string]: Json } {
  const given = { ...chat.templateArgs };
  for (const name of Object.keys(given)) {
    if (RESERVED.includes(name)) throw new LongcatError("OPTION_INVALID", `templateArgs.${name}: is set by the engine`);
    if (program.reads.has(name) || (name === "enable_thinking" && given[name] === false)) continue;
    const known = [...program.reads].filter((one) => !RESERVED.includes(one));
    throw new LongcatError(
      "OPTION_INVALID",
      `templateArgs.${name}: the chat template of ${file} does not read it; it reads ${known.join(", ") || "no further names"}`,
    );
  }
  if (chat.enableThinking === undefined) return given;
  if ("enable_thinking" in given && given["enable_thinking"] !== chat.enableThinking) {
    throw new LongcatError("OPTION_INVALID", "enableThinking and templateArgs.enable_thinking contradict each other");
  }
  if (chat.enableThinking && !program.reads.has("enable_thinking")) {
    throw new LongcatError("OPTION_INVALID", `enableThinking: the chat template of ${file} has no reasoning to turn on`);
  }
  return { ...given, enable_thinking: chat.enableThinking };
}

/** A template that asks for a tool's description or parameters may count on them. */
function withDefaults(chat: CheckedChat, program: TemplateProgram): { messages: TemplateMessage[]; tools: Tool[] } {
  const defaults: Record<string, Json> = {};
  if (program.attributes.has("description")) defaults["description"] = "";
  if (program.attributes.has("parameters")) defaults["parameters"] = {};
  const tools = chat.tools.map((tool) => {
    const missing = Object.entries(defaults).filter(([key]) => !(key in tool.function));
    return { ...tool, function: { ...tool.function, ...Object.fromEntries(missing) } };
  });
  return { messages: chat.messages, tools };
}

function guardMessage(guard: SpecialGuard, message: TemplateMessage): Json {
  const { role, tool_calls, ...content } = message;
  const guarded = guard.guard(content as { [key: string]: Json }, true) as { [key: string]: Json };
  if (tool_calls === undefined) return { role, ...guarded };
  const calls = tool_calls.map(({ function: called, ...call }) => ({
    ...(guard.guard(call, true) as { [key: string]: Json }),
    function: { name: guard.guard(called.name), arguments: guard.guard(called.arguments) },
  }));
  return { role, ...guarded, tool_calls: calls };
}

function guardTool(guard: SpecialGuard, tool: Tool): Json {
  const entries = Object.entries(tool.function).map(([key, value]) => [key, guard.guard(value as Json)]);
  return { type: tool.type, function: Object.fromEntries(entries) };
}

function collectTexts(value: Json, texts: string[]): void {
  if (typeof value === "string") texts.push(value);
  else if (Array.isArray(value)) for (const item of value) collectTexts(item, texts);
  else if (typeof value === "object" && value !== null) {
    texts.push(...Object.keys(value));
    for (const item of Object.values(value)) collectTexts(item, texts);
  }
}

function renderWith({ program, file }: Source, variables: Record<string, unknown>, texts: number): string {
  try {
    return program.render(variables, texts);
  } catch (error) {
    const message = (error as Error).message;
    const said = error instanceof TemplateRefusal ? `refused the messages: ${message}` : `cannot render the messages: ${message}`;
    throw new LongcatError("PROMPT_INVALID", `the chat template of ${file} ${said}`, { cause: error });
  }
}

/** The prompt has opened reasoning when its last words are the opening tag. */
function reasoningStart(segments: readonly Segment[], rendered: string, tokenizer: Tokenizer): ReasoningStart {
  const trimmed = rendered.trimEnd();
  const last = segments.findLast((segment) => typeof segment !== "string" || segment.trim() !== "");
  const opened = tokenizer.addedTokens.has(THINK_OPEN)
    ? typeof last === "object" && last.content === THINK_OPEN
    : trimmed.endsWith(THINK_OPEN) && !trimmed.endsWith(THINK_CLOSE);
  if (!opened) return false;
  return trimmed.length < rendered.length ? "after-newline" : "after-tag";
}
