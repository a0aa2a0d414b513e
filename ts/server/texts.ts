/**
 * Routes about the model, texts and tokens, which generate nothing: `/v1/models`, `/v1/score`, `/tokenize`, `/detokenize`.
 * @module
 */

import type { Call, ServedEngine } from "./call.js";
import { badField } from "./errors.js";
import {
  CHAT_FIELD_NAMES,
  CHAT_PROMPT_FIELDS,
  chatPrompt,
  checkModel,
  given,
  onePrompt,
  PROMPT_FIELD_NAMES,
  rejectUnknown,
} from "./fields.js";
import { admitted } from "./generation.js";
import { arrayPieces } from "./wire.js";

/** What `/v1/models` says of the model; more than OpenAI does, as vLLM's `max_model_len`. */
function modelOf({ model, info }: ServedEngine, created: number): object {
  const { contextLength, numLayers, numExperts, numZeroExperts, topK } = info;
  return {
    id: model,
    object: "model",
    created,
    owned_by: "longcat-node",
    max_model_len: contextLength,
    num_layers: numLayers,
    num_experts: numExperts,
    num_zero_experts: numZeroExperts,
    experts_per_token: topK,
  };
}

const CREATED = Math.floor(Date.now() / 1000);

export function models(call: Call, served: ServedEngine): void {
  call.sendJson({ object: "list", data: [modelOf(served, CREATED)] });
}

/** `/v1/models/NAME`: the model, if that is its id. */
export function oneModel(call: Call, served: ServedEngine): void {
  const [, name = ""] = /^\/v1\/models\/([^?]*)/.exec(call.request.url ?? "") ?? [];
  checkModel({ model: decoded(name) }, served.model);
  call.sendJson(modelOf(served, CREATED));
}

/** The text of a path; one that is not written as it should be stays as it is, and names nothing. */
function decoded(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch {
    return path;
  }
}

/** `/v1/score {prompt}` → `{tokens, logprobs}`. */
export async function score(call: Call, served: ServedEngine): Promise<void> {
  call.fieldNames = PROMPT_FIELD_NAMES;
  const body = await call.body();
  rejectUnknown(body, ["model", "prompt", "parse_special"]);
  checkModel(body, served.model);
  const prompt = onePrompt(body["prompt"]);
  const options = { parseSpecial: body["parse_special"] as boolean | null, signal: call.signal };
  await admitted(call, served, 1, async () => {
    const { tokens, logprobs } = await served.engine.score(prompt as string, options);
    await call.sendPieces(scorePieces(tokens, logprobs));
  });
}

function* scorePieces(tokens: readonly number[], logprobs: readonly (number | null)[]): Generator<string> {
  yield '{"tokens":';
  yield* arrayPieces(tokens, (token) => token);
  yield ',"logprobs":';
  yield* arrayPieces(logprobs, (logprob) => logprob);
  yield "}";
}

/** `/tokenize {prompt}` or `{messages, tools?}` → `{tokens, count}`: the ids that generation would run. */
export async function tokenize(call: Call, served: ServedEngine): Promise<void> {
  call.fieldNames = PROMPT_FIELD_NAMES;
  const body = await call.body();
  rejectUnknown(body, ["model", "prompt", "parse_special", ...CHAT_PROMPT_FIELDS]);
  checkModel(body, served.model);
  if (given(body["messages"]) && given(body["prompt"])) throw badField("prompt", "messages are given too; give one of them");
  const isChat = CHAT_PROMPT_FIELDS.some((name) => given(body[name]));
  if (isChat && given(body["prompt"])) throw badField("prompt", `does not go together with ${CHAT_PROMPT_FIELDS.join(", ")}`);
  if (isChat) call.fieldNames = CHAT_FIELD_NAMES;
  const prompt = isChat ? chatPrompt(body) : onePrompt(body["prompt"]);
  await admitted(call, served, 1, async () => {
    const tokens = await served.engine.tokenize(prompt, { parseSpecial: body["parse_special"] as boolean | null });
    call.sendJson({ tokens, count: tokens.length });
  });
}

/** `/detokenize {tokens}` → `{prompt}`. */
export async function detokenize(call: Call, served: ServedEngine): Promise<void> {
  const body = await call.body();
  rejectUnknown(body, ["model", "tokens"]);
  checkModel(body, served.model);
  const { tokens } = body;
  if (!Array.isArray(tokens))
    throw badField(
      "tokens",
      `${given(tokens) ? "this value is not accepted" : "is missing"}; give an array of token ids`,
      "prompt_invalid",
    );
  if (tokens.length > served.info.contextLength)
    throw badField("tokens", `has ${tokens.length} ids; the context has ${served.info.contextLength}`, "context_length_exceeded");
  call.sendJson({ prompt: served.engine.detokenize(tokens as number[]) });
}
