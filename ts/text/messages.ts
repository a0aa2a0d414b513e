/**
 * Checks a chat prompt where it enters and brings it into the one shape that templates expect: content is text,
 * tool-call arguments are objects, `developer` is `system`. Every fault names the field.
 * @module
 */
import { LongcatError } from "../errors.js";
import type { Message, Tool } from "./types.js";

/** Which tool the model is to call, as OpenAI writes it. */
export type ToolChoice = "auto" | "none" | "required" | { type: "function"; function: { name: string } };

/** A prompt that goes through the checkpoint's chat template. */
export interface ChatPrompt {
  messages: Message[];
  tools?: Tool[] | null;
  /** `"none"` keeps the tools out of the prompt. `"required"` demands a call, a named tool a call of it: the engine sees to that. */
  toolChoice?: ToolChoice | null;
  enableThinking?: boolean | null;
  /** Further variables of the template; only names that it reads. */
  templateArgs?: Record<string, unknown> | null;
}

/** A JSON value. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** A message as templates get it. */
export interface TemplateMessage {
  role: "system" | "user" | "assistant" | "tool";
  content: string;
  name?: string;
  reasoning_content?: string;
  tool_calls?: { id?: string; type: "function"; function: { name: string; arguments: { [key: string]: Json } } }[];
  tool_call_id?: string;
}

/** A checked chat prompt. */
export interface CheckedChat {
  messages: TemplateMessage[];
  /** The tools that the prompt shows; empty where there are none or `toolChoice` is `"none"`. */
  tools: Tool[];
  enableThinking: boolean | undefined;
  templateArgs: { [key: string]: Json };
}

const MAX_DEPTH = 100;
const ROLES = ["system", "developer", "user", "assistant", "tool"];
const PROMPT_KEYS = ["messages", "tools", "toolChoice", "enableThinking", "templateArgs"];
const MESSAGE_KEYS = ["role", "content", "name", "tool_calls", "toolCalls", "tool_call_id", "toolCallId", "reasoning_content", "reasoning"];
/** Fields of OpenAI's replies that clients send back; nothing is lost where they are empty. */
const EMPTY_MESSAGE_KEYS = ["refusal", "annotations", "audio", "function_call"];

function bad(field: string, what: string): LongcatError {
  return new LongcatError("PROMPT_INVALID", `${field}: ${what}`);
}

function badOption(field: string, what: string): LongcatError {
  return new LongcatError("OPTION_INVALID", `${field}: ${what}`);
}

/** A value for a message: short, whatever it is. */
function show(value: unknown): string {
  if (value === undefined) return "nothing";
  if (typeof value === "function" || typeof value === "symbol" || typeof value === "bigint") return typeof value;
  if (Array.isArray(value)) return "an array";
  if (typeof value === "object" && value !== null) return "an object";
  const text = JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 57)}…` : text;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function absent(value: unknown): value is null | undefined {
  return value === undefined || value === null;
}

function refuseUnknown(value: Record<string, unknown>, field: string, known: readonly string[], refuse = bad): void {
  for (const key of Object.keys(value)) {
    if (!known.includes(key) && !absent(value[key]))
      throw refuse(field === "" ? key : `${field}.${key}`, `is not known; known are ${known.join(", ")}`);
  }
}

/**
 * Checks a chat prompt.
 * @throws LongcatError `PROMPT_INVALID` naming the field, or `OPTION_INVALID` for what is not built yet.
 */
export function validateChat(prompt: ChatPrompt): CheckedChat {
  if (!isObject(prompt)) throw bad("prompt", `must be an object with messages, not ${show(prompt)}`);
  refuseUnknown(prompt, "", PROMPT_KEYS);
  const { messages } = prompt;
  if (!Array.isArray(messages)) throw bad("messages", `must be an array, not ${show(messages)}`);
  if (messages.length === 0) throw bad("messages", "is empty; at least one message is needed");
  const calls = new KnownCalls();
  const tools = checkTools(prompt.tools);
  const hidden = checkToolChoice(prompt.toolChoice, tools);
  if (!absent(prompt.enableThinking) && typeof prompt.enableThinking !== "boolean") {
    throw badOption("enableThinking", `must be true or false, not ${show(prompt.enableThinking)}`);
  }
  return {
    messages: messages.map((message: unknown, at) => checkMessage(message, `messages[${at}]`, calls)),
    tools: hidden ? [] : tools,
    enableThinking: prompt.enableThinking ?? undefined,
    templateArgs: absent(prompt.templateArgs) ? {} : checkObject(prompt.templateArgs, "templateArgs"),
  };
}

/** The tool calls so far, which a tool's answer must name. */
class KnownCalls {
  readonly #ids = new Set<string>();
  #anonymous = false;

  add(id: string | undefined): void {
    if (id === undefined) this.#anonymous = true;
    else this.#ids.add(id);
  }

  check(id: string, field: string): void {
    if (this.#ids.has(id) || this.#anonymous) return;
    const known =
      this.#ids.size === 0
        ? "there is no tool call before it"
        : `the calls before it are ${[...this.#ids].map((one) => JSON.stringify(one)).join(", ")}`;
    throw bad(field, `${show(id)} is not the id of an earlier tool call; ${known}`);
  }
}

function checkMessage(value: unknown, field: string, calls: KnownCalls): TemplateMessage {
  if (!isObject(value)) throw bad(field, `must be an object, not ${show(value)}`);
  for (const key of EMPTY_MESSAGE_KEYS) {
    const empty = absent(value[key]) || (Array.isArray(value[key]) && value[key].length === 0);
    if (!empty) throw bad(`${field}.${key}`, "is not supported");
  }
  refuseUnknown(value, field, [...MESSAGE_KEYS, ...EMPTY_MESSAGE_KEYS]);
  const role = value["role"];
  if (typeof role !== "string" || !ROLES.includes(role))
    throw bad(`${field}.role`, `${absent(role) ? "is missing" : `${show(role)} is not known`}; known are ${ROLES.join(", ")}`);
  const message: TemplateMessage = {
    role: role === "developer" ? "system" : (role as TemplateMessage["role"]),
    content: checkContent(value["content"], `${field}.content`, role === "assistant"),
  };
  const name = checkString(value["name"], `${field}.name`);
  if (name !== undefined) message.name = name;
  const reasoning = either(value, field, "reasoning_content", "reasoning");
  if (reasoning !== undefined) {
    if (role !== "assistant") throw bad(reasoning.field, "belongs to assistant messages only");
    message.reasoning_content = checkString(reasoning.value, reasoning.field) as string;
  }
  const toolCalls = either(value, field, "tool_calls", "toolCalls");
  if (toolCalls !== undefined) {
    if (role !== "assistant") throw bad(toolCalls.field, "belongs to assistant messages only");
    if (!Array.isArray(toolCalls.value)) throw bad(toolCalls.field, `must be an array, not ${show(toolCalls.value)}`);
    const checked = toolCalls.value.map((call: unknown, at) => checkCall(call, `${toolCalls.field}[${at}]`));
    for (const call of checked) calls.add(call.id);
    if (checked.length > 0) message.tool_calls = checked;
  }
  const callId = either(value, field, "tool_call_id", "toolCallId");
  if (callId !== undefined) {
    if (role !== "tool") throw bad(callId.field, "belongs to tool messages only");
    message.tool_call_id = checkString(callId.value, callId.field) as string;
    calls.check(message.tool_call_id, callId.field);
  }
  return message;
}

/** A field of two spellings; both at once are refused. */
function either(
  value: Record<string, unknown>,
  field: string,
  first: string,
  second: string,
): { field: string; value: unknown } | undefined {
  const given = [first, second].filter((key) => !absent(value[key]));
  if (given.length > 1) throw bad(`${field}.${second}`, `says the same as ${first}; give one of them`);
  const [key] = given;
  return key === undefined ? undefined : { field: `${field}.${key}`, value: value[key] };
}

function checkString(value: unknown, field: string): string | undefined {
  if (absent(value)) return undefined;
  if (typeof value !== "string") throw bad(field, `must be a string, not ${show(value)}`);
  return value;
}

/** Text, or text parts joined without a separator. An assistant's may be absent, for it may only call tools. */
function checkContent(value: unknown, field: string, optional: boolean): string {
  if (absent(value)) {
    if (optional) return "";
    throw bad(field, `must be a string or text parts, not ${show(value)}`);
  }
  if (typeof value === "string") return value;
  if (!Array.isArray(value)) throw bad(field, `must be a string or text parts, not ${show(value)}`);
  const texts = value.map((part: unknown, at) => {
    const where = `${field}[${at}]`;
    if (!isObject(part)) throw bad(where, `must be {type: "text", text}, not ${show(part)}`);
    if (part["type"] !== "text") throw bad(where, `parts of type ${show(part["type"])} are not supported; "text" is`);
    refuseUnknown(part, where, ["type", "text"]);
    if (typeof part["text"] !== "string") throw bad(`${where}.text`, `must be a string, not ${show(part["text"])}`);
    return part["text"];
  });
  return texts.join("");
}

type TemplateCall = NonNullable<TemplateMessage["tool_calls"]>[number];

/** A call as OpenAI writes it, or as a result of ours has it: `{id, name, arguments}`. */
function checkCall(value: unknown, field: string): TemplateCall {
  if (!isObject(value)) throw bad(field, `must be an object, not ${show(value)}`);
  const flat = absent(value["function"]) && !absent(value["name"]);
  refuseUnknown(value, field, flat ? ["id", "type", "index", "name", "arguments"] : ["id", "type", "index", "function"]);
  if (!absent(value["type"]) && value["type"] !== "function")
    throw bad(`${field}.type`, `${show(value["type"])} is not supported; "function" is`);
  const called = flat ? value : value["function"];
  const where = flat ? field : `${field}.function`;
  if (!isObject(called)) throw bad(where, `must be an object with a name and arguments, not ${show(called)}`);
  if (!flat) refuseUnknown(called, where, ["name", "arguments"]);
  const name = called["name"];
  if (typeof name !== "string" || name === "") throw bad(`${where}.name`, `must be a string that is not empty, not ${show(name)}`);
  const id = checkString(value["id"], `${field}.id`);
  const args = checkArguments(called["arguments"], `${where}.arguments`);
  return { ...(id === undefined ? {} : { id }), type: "function", function: { name, arguments: args } };
}

/** Arguments as an object, or as the text of one; nothing at all means `{}`. */
function checkArguments(value: unknown, field: string): { [key: string]: Json } {
  if (absent(value)) return {};
  if (typeof value !== "string") return checkObject(value, field);
  if (value.trim() === "") return {};
  let parsed: unknown;
  try {
    parsed = JSON.parse(value);
  } catch (error) {
    throw bad(field, `is not JSON (${(error as Error).message})`);
  }
  return parsed === null ? {} : checkObject(parsed, field);
}

function checkObject(value: unknown, field: string): { [key: string]: Json } {
  if (!isObject(value)) throw bad(field, `must be an object, or the JSON text of one, not ${show(value)}`);
  return plainJson(value, field, 0) as { [key: string]: Json };
}

/** A copy that holds JSON values and nothing else: no functions, no cycles, no endless nesting. */
function plainJson(value: unknown, field: string, depth: number): Json {
  if (depth > MAX_DEPTH) throw bad(field.length > 100 ? `${field.slice(0, 100)}…` : field, `is nested deeper than ${MAX_DEPTH}`);
  if (value === null || typeof value === "boolean" || typeof value === "string") return value;
  if (typeof value === "number" && Number.isFinite(value)) return value;
  if (Array.isArray(value)) return value.map((item, at) => plainJson(item, `${field}[${at}]`, depth + 1));
  if (isObject(value)) {
    const entries = Object.entries(value).filter(([, item]) => item !== undefined);
    return Object.fromEntries(entries.map(([key, item]) => [key, plainJson(item, `${field}.${key}`, depth + 1)]));
  }
  throw bad(field, `must be a JSON value, not ${typeof value === "number" ? String(value) : show(value)}`);
}

function checkTools(value: unknown): Tool[] {
  if (absent(value)) return [];
  if (!Array.isArray(value)) throw bad("tools", `must be an array, not ${show(value)}`);
  return value.map((tool: unknown, at) => {
    const field = `tools[${at}]`;
    if (!isObject(tool)) throw bad(field, `must be {type: "function", function}, not ${show(tool)}`);
    if (tool["type"] !== "function")
      throw bad(`${field}.type`, `${absent(tool["type"]) ? "is missing" : `${show(tool["type"])} is not supported`}; "function" is`);
    refuseUnknown(tool, field, ["type", "function"]);
    return { type: "function", function: checkFunction(tool["function"], `${field}.function`) };
  });
}

function checkFunction(value: unknown, field: string): Tool["function"] {
  if (!isObject(value)) throw bad(field, `must be an object with a name, not ${show(value)}`);
  refuseUnknown(value, field, ["name", "description", "parameters", "strict"]);
  const { name, description, parameters, strict } = value;
  if (typeof name !== "string" || name === "") throw bad(`${field}.name`, `must be a string that is not empty, not ${show(name)}`);
  checkString(description, `${field}.description`);
  if (!absent(strict) && typeof strict !== "boolean") throw bad(`${field}.strict`, `must be true or false, not ${show(strict)}`);
  const checked: Record<string, unknown> = {};
  // The order of the keys is the caller's: a template may print the whole object.
  for (const [key, item] of Object.entries(value)) {
    if (absent(item) || key === "strict") continue;
    checked[key] = key === "parameters" ? checkObject(parameters, `${field}.parameters`) : item;
  }
  return checked as Tool["function"];
}

/** Whether the choice hides the tools. One that demands a call needs them. */
function checkToolChoice(value: unknown, tools: readonly Tool[]): boolean {
  if (absent(value) || value === "auto") return false;
  if (value === "none") return true;
  const named = value === "required" ? undefined : toolNamed(value);
  if (named !== undefined && !tools.some((tool) => tool.function.name === named))
    throw badOption("toolChoice", `${show(named)} is not one of the tools`);
  if (tools.length === 0) throw badOption("toolChoice", `${show(value)} needs tools; give them with the messages`);
  return false;
}

function toolNamed(value: unknown): string {
  const called = isObject(value) && value["type"] === "function" ? value["function"] : undefined;
  if (!isObject(value) || !isObject(called) || typeof called["name"] !== "string")
    throw badOption(
      "toolChoice",
      `${show(value)} is not known; known are "auto", "none", "required" and {type: "function", function: {name}}`,
    );
  refuseUnknown(value, "toolChoice", ["type", "function"], badOption);
  refuseUnknown(called, "toolChoice.function", ["name"], badOption);
  return called["name"];
}
