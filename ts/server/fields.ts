/**
 * The fields of requests: which there are, what each is to the engine, and which are refused by name. Values are the engine's to check;
 * here is checked what only HTTP knows.
 * @module
 */

import { type ChatPrompt, type GenerateParams, MAX_CHOICES, type Prompt } from "../index.js";
import type { JsonObject } from "./body.js";
import { badField, HttpError } from "./errors.js";

/** Fields that are parameters of the engine under another name, on both generating routes. */
const PARAMETERS = {
  temperature: "temperature",
  top_p: "topP",
  top_k: "topK",
  min_p: "minP",
  repetition_penalty: "repetitionPenalty",
  presence_penalty: "presencePenalty",
  frequency_penalty: "frequencyPenalty",
  logit_bias: "logitBias",
  seed: "seed",
  stop: "stop",
  stop_token_ids: "stopTokens",
  ignore_eos: "ignoreEos",
  n: "n",
  response_format: "responseFormat",
} as const satisfies Record<string, keyof GenerateParams>;

/** Of raw text only: a chat's content never becomes special tokens. */
const TEXT_PARAMETERS = { parse_special: "parseSpecial" } as const satisfies Record<string, keyof GenerateParams>;

/** Fields of OpenAI that cannot change the output, each with its type. */
const WITHOUT_EFFECT: Readonly<Record<string, { is(value: unknown): boolean; accepted: string }>> = {
  user: { is: isText, accepted: "a string" },
  safety_identifier: { is: isText, accepted: "a string" },
  prompt_cache_key: { is: isText, accepted: "a string" },
  service_tier: { is: isText, accepted: "a string" },
  store: { is: (value) => typeof value === "boolean", accepted: "true or false" },
  metadata: { is: (value) => isObject(value) && Object.values(value).every(isText), accepted: "an object of strings" },
};
/** Fields of the generating routes that are neither parameters nor part of the prompt. */
const DELIVERY = ["model", "stream", "stream_options", "routing", "return_token_ids", "max_tokens", "logprobs"];
const CHAT_PROMPT = ["messages", "tools", "tool_choice", "enable_thinking", "chat_template_kwargs"];

const COMMON = [...Object.keys(PARAMETERS), ...Object.keys(WITHOUT_EFFECT), ...DELIVERY];
const CHAT_FIELDS = [...COMMON, ...CHAT_PROMPT, "max_completion_tokens", "top_logprobs", "parallel_tool_calls"];
const COMPLETION_FIELDS = [...COMMON, ...Object.keys(TEXT_PARAMETERS), "prompt", "echo"];

const ENGINE_NAMES = { ...PARAMETERS, ...TEXT_PARAMETERS };

/** The request's field for each name that the engine's messages begin with. */
export const FIELD_NAMES: Readonly<Record<string, string>> = {
  ...Object.fromEntries(Object.entries(ENGINE_NAMES).map(([field, name]) => [name, field])),
  maxTokens: "max_tokens",
  logprobs: "logprobs",
  toolChoice: "tool_choice",
  enableThinking: "enable_thinking",
  templateArgs: "chat_template_kwargs",
  messages: "messages",
  tools: "tools",
  prompt: "prompt",
  tokens: "tokens",
};
/** The same where ids are a prompt's. */
export const PROMPT_FIELD_NAMES: Readonly<Record<string, string>> = { ...FIELD_NAMES, tokens: "prompt" };
/** The same of a chat: messages are its prompt, and alternatives have a field of their own. */
export const CHAT_FIELD_NAMES: Readonly<Record<string, string>> = { ...FIELD_NAMES, prompt: "messages", logprobs: "top_logprobs" };

/** Most prompts of one request. */
const MAX_PROMPTS = 128;

/** How an answer is to be sent. */
export interface Delivery {
  stream: boolean;
  includeUsage: boolean;
  /** Counts of FFN experts, for each token and layer. */
  routing: boolean;
  /** The ids of generated tokens. */
  tokenIds: boolean;
}

/** A request for generation, in the engine's words. */
export interface GenerationRequest extends Delivery {
  /** One, or as many as the request has. */
  prompts: readonly Prompt[];
  params: GenerateParams;
  /** Choices that the request makes: n for each prompt. */
  numChoices: number;
}

export function given(value: unknown): boolean {
  return value !== undefined && value !== null;
}

function isText(value: unknown): value is string {
  return typeof value === "string";
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Throws a 400 for the first field that the route does not have; null is absent whatever its name. */
export function rejectUnknown(body: JsonObject, known: readonly string[], field = ""): void {
  for (const name of Object.keys(body)) {
    if (known.includes(name) || !given(body[name])) continue;
    const param = `${field}${name.slice(0, 100)}`;
    throw new HttpError(400, "unknown_field", `${param}: this field is not supported; supported are ${known.join(", ")}`, { param });
  }
}

/** Throws a 404 if the request names another model. Absent: the one that there is. */
export function checkModel(body: JsonObject, model: string): void {
  const { model: asked } = body;
  if (!given(asked)) return;
  if (typeof asked !== "string") throw badField("model", `${show(asked)} is not accepted; give a string`);
  if (asked !== model)
    throw new HttpError(404, "model_not_found", `the model ${show(asked)} is not there; there is ${show(model)}`, { param: "model" });
}

/** The request of `/v1/chat/completions`. */
export function chatRequest(body: JsonObject): GenerationRequest {
  rejectUnknown(body, CHAT_FIELDS);
  checkWithoutEffect(body);
  if (body["parallel_tool_calls"] === false) throw badField("parallel_tool_calls", "false cannot be enforced; give true, or leave it out");
  flag(body, "parallel_tool_calls");
  const params = { ...parameters(body), maxTokens: maxTokens(body), logprobs: chatLogprobs(body) };
  return { prompts: [chatPrompt(body)], params, numChoices: numChoices(body), ...delivery(body) };
}

/** The request of `/v1/completions`. */
export function completionRequest(body: JsonObject): GenerationRequest {
  rejectUnknown(body, COMPLETION_FIELDS);
  checkWithoutEffect(body);
  if (flag(body, "echo")) throw badField("echo", "true is not supported; give false, or leave it out");
  const prompts = promptList(body["prompt"]);
  const params = { ...parameters(body), maxTokens: maxTokens(body), logprobs: body["logprobs"] as GenerateParams["logprobs"] };
  return { prompts, params, numChoices: prompts.length * numChoices(body), ...delivery(body) };
}

/** Names of the fields that make a chat prompt. */
export const CHAT_PROMPT_FIELDS: readonly string[] = CHAT_PROMPT;

/** The chat of a request. The engine checks messages, tools and the template's variables. */
export function chatPrompt(body: JsonObject): ChatPrompt {
  const { messages, tools, tool_choice: toolChoice, enable_thinking, chat_template_kwargs } = body;
  if (!given(messages)) throw badField("messages", "is missing; give an array of messages", "prompt_invalid");
  checkToolResults(messages);
  if (given(chat_template_kwargs) && !isObject(chat_template_kwargs))
    throw badField("chat_template_kwargs", `${show(chat_template_kwargs)} is not accepted; give an object`);
  const { enable_thinking: inKwargs, ...templateArgs } = (chat_template_kwargs ?? {}) as JsonObject;
  if (given(enable_thinking) && given(inKwargs) && enable_thinking !== inKwargs)
    throw badField("enable_thinking", "chat_template_kwargs.enable_thinking says otherwise; give one of them");
  return {
    messages,
    tools,
    toolChoice,
    enableThinking: enable_thinking ?? inKwargs,
    ...(Object.keys(templateArgs).length > 0 && { templateArgs }),
  } as ChatPrompt;
}

/** A prompt of `/v1/completions`: text, ids, or an array of either. */
function promptList(prompt: unknown): Prompt[] {
  if (typeof prompt === "string") return [prompt];
  const accepted = "give a string, an array of token ids, or an array of these";
  if (!Array.isArray(prompt))
    throw badField("prompt", `${given(prompt) ? `${show(prompt)} is not accepted` : "is missing"}; ${accepted}`, "prompt_invalid");
  if (prompt.length === 0) throw badField("prompt", `is empty; ${accepted}`, "prompt_invalid");
  if (typeof prompt[0] === "number") return [{ tokens: prompt as number[] }];
  if (prompt.length > MAX_PROMPTS)
    throw badField("prompt", `${prompt.length} prompts are not accepted; give at most ${MAX_PROMPTS}`, "prompt_invalid");
  return prompt.map((one: unknown, i) => {
    if (typeof one === "string") return one;
    if (Array.isArray(one)) return { tokens: one as number[] };
    throw badField(`prompt[${i}]`, `${show(one)} is not accepted; give a string or an array of token ids`, "prompt_invalid");
  });
}

/** One prompt: text or ids. */
export function onePrompt(prompt: unknown): Prompt {
  if (typeof prompt === "string") return prompt;
  if (Array.isArray(prompt)) return { tokens: prompt as number[] };
  throw badField(
    "prompt",
    `${given(prompt) ? `${show(prompt)} is not accepted` : "is missing"}; give a string or an array of token ids`,
    "prompt_invalid",
  );
}

function checkWithoutEffect(body: JsonObject): void {
  for (const [name, { is, accepted }] of Object.entries(WITHOUT_EFFECT))
    if (given(body[name]) && !is(body[name])) throw badField(name, `${show(body[name])} is not accepted; give ${accepted}`);
}

/**
 * Throws a 400 for the first tool result that does not say which call it answers, as OpenAI does. Only behind a call that has no id
 * itself, as templates' own chats have them, there is nothing to say.
 */
function checkToolResults(messages: unknown): void {
  if (!Array.isArray(messages)) return;
  let unnamedCalls = false;
  for (const [i, message] of messages.entries()) {
    if (!isObject(message)) continue;
    unnamedCalls ||= callsOf(message).some((call) => isObject(call) && !given(call["id"]));
    if (message["role"] !== "tool" || unnamedCalls || given(message["tool_call_id"]) || given(message["toolCallId"])) continue;
    throw badField(`messages[${i}].tool_call_id`, "is missing; give the id of the call that this answers", "prompt_invalid");
  }
}

function callsOf({ tool_calls, toolCalls }: JsonObject): readonly unknown[] {
  const calls = tool_calls ?? toolCalls;
  return Array.isArray(calls) ? calls : [];
}

function parameters(body: JsonObject): GenerateParams {
  return Object.fromEntries(
    Object.entries(ENGINE_NAMES).flatMap(([field, name]) => (given(body[field]) ? [[name, body[field]]] : [])),
  ) as GenerateParams;
}

function maxTokens(body: JsonObject): GenerateParams["maxTokens"] {
  const { max_tokens: old, max_completion_tokens: current } = body;
  if (given(old) && given(current) && old !== current)
    throw badField("max_tokens", `${show(old)} and max_completion_tokens ${show(current)} differ; give one of them`);
  return (current ?? old) as GenerateParams["maxTokens"];
}

/** `logprobs: true` with `top_logprobs` alternatives, none if absent. */
function chatLogprobs(body: JsonObject): GenerateParams["logprobs"] {
  const wanted = flag(body, "logprobs");
  const { top_logprobs: top } = body;
  if (!given(top)) return wanted ? 0 : undefined;
  if (!wanted) throw badField("top_logprobs", "needs logprobs: true");
  return top as GenerateParams["logprobs"];
}

/** What `n` says, where it says something that the engine will accept. */
function numChoices({ n }: JsonObject): number {
  return Number.isInteger(n) && (n as number) > 0 && (n as number) <= MAX_CHOICES ? (n as number) : 1;
}

function delivery(body: JsonObject): Delivery {
  const stream = flag(body, "stream");
  const { stream_options: options } = body;
  const answer = { stream, includeUsage: false, routing: flag(body, "routing"), tokenIds: flag(body, "return_token_ids") };
  if (!given(options)) return answer;
  if (!isObject(options)) throw badField("stream_options", `${show(options)} is not accepted; give an object`);
  if (!stream) throw badField("stream_options", "needs stream: true");
  rejectUnknown(options, ["include_usage"], "stream_options.");
  return { ...answer, includeUsage: flag(options, "include_usage", "stream_options.") };
}

/** true or false; absent is false. */
function flag(body: JsonObject, name: string, field = ""): boolean {
  const value = body[name];
  if (!given(value)) return false;
  if (typeof value !== "boolean") throw badField(`${field}${name}`, `${show(value)} is not accepted; give true or false`);
  return value;
}

/** A value for a message: short, and found without walking through all of it. */
function show(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.length > 60 ? `${value.slice(0, 57)}…` : value);
  if (Array.isArray(value)) return "an array";
  return typeof value === "object" && value !== null ? "an object" : String(value);
}
