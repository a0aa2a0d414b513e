/**
 * `/v1/chat/completions`: answers and frames as OpenAI writes them, reasoning as `reasoning_content`.
 * @module
 */

import type { Chunk, FinishReason, ToolCall } from "../index.js";
import type { Call, ServedEngine } from "./call.js";
import { CHAT_FIELD_NAMES, chatRequest, checkModel, type GenerationRequest } from "./fields.js";
import { admitted, type Extras, extraPieces, extrasOf, type Finished, type FinishedChoice, finish } from "./generation.js";
import { type AnswerHead, answerHead, arrayPieces, chatLogprob, openObject, routingOf, usageOf } from "./wire.js";

export async function chatCompletions(call: Call, served: ServedEngine): Promise<void> {
  call.fieldNames = CHAT_FIELD_NAMES;
  const body = await call.body();
  checkModel(body, served.model);
  const request = chatRequest(body);
  const head = answerHead("chatcmpl", served.model);
  await admitted(call, served, request.numChoices, async () => {
    if (request.stream) return stream(call, served, request, head);
    return call.sendPieces(answerPieces(await finish(call, served, request), head, extrasOf(request, served.info)));
  });
}

async function stream(call: Call, served: ServedEngine, request: GenerationRequest, head: AnswerHead): Promise<void> {
  const events = call.events();
  const frames = new ChatFrames(head, extrasOf(request, served.info));
  const { usage } = await finish(call, served, request, (chunk) => {
    for (const frame of frames.of(chunk)) events.send(frame);
  });
  if (request.includeUsage) events.send(frames.usage(usageOf(usage)));
  await events.done();
  call.cutIfUnread();
}

/** Chunks of the engine as frames: the role first, then what each adds, the reason of the end last and alone. */
export class ChatFrames {
  readonly #start: string;
  readonly #extras: Extras;
  readonly #begun = new Set<number>();

  constructor({ id, created, model }: AnswerHead, extras: Extras) {
    this.#start = openObject({ id, object: "chat.completion.chunk", created, model });
    this.#extras = extras;
  }

  /** The frames of a chunk. */
  of(chunk: Chunk): string[] {
    const { index, tokens, logprobs, finishReason } = chunk;
    const { topK, ...wanted } = this.#extras;
    const frames: string[] = [];
    if (!this.#begun.has(index)) {
      this.#begun.add(index);
      frames.push(this.#frame({ index, delta: { role: "assistant", content: "" }, finish_reason: null }));
    }
    const delta = deltaOf(chunk);
    const routing = wanted.routing ? chunk.routing : undefined;
    const withIds = wanted.tokenIds && tokens.length > 0;
    if (delta !== undefined || logprobs !== undefined || routing !== undefined || withIds)
      frames.push(
        this.#frame({
          index,
          delta: delta ?? {},
          ...(logprobs !== undefined && { logprobs: { content: logprobs.map(chatLogprob), refusal: null } }),
          ...(routing !== undefined && { routing: routingOf(routing.ffnExperts, topK) }),
          ...(withIds && { token_ids: tokens }),
          finish_reason: null,
        }),
      );
    if (finishReason !== undefined) frames.push(this.#frame({ index, delta: {}, finish_reason: finishReason }));
    return frames;
  }

  /** The frame of a stream whose usage was asked for. */
  usage(usage: object): string {
    return `${this.#start},"choices":[],"usage":${JSON.stringify(usage)}}`;
  }

  #frame(choice: object): string {
    return `${this.#start},"choices":[${JSON.stringify(choice)}]}`;
  }
}

/** What a chunk adds to a message; undefined if nothing. */
function deltaOf({ text, reasoning, toolCallDelta }: Chunk): object | undefined {
  if (text === "" && reasoning === undefined && toolCallDelta === undefined) return undefined;
  return {
    ...(reasoning !== undefined && { reasoning_content: reasoning }),
    ...(text !== "" && { content: text }),
    ...(toolCallDelta !== undefined && { tool_calls: [toolCallFrame(toolCallDelta)] }),
  };
}

function toolCallFrame({ index, id, name, arguments: text }: NonNullable<Chunk["toolCallDelta"]>): object {
  if (id === undefined) return { index, function: { arguments: text ?? "" } };
  return { index, id, type: "function", function: { name, arguments: text ?? "" } };
}

function* answerPieces({ choices, usage }: Finished, head: AnswerHead, extras: Extras): Generator<string> {
  const { id, created, model } = head;
  yield `${openObject({ id, object: "chat.completion", created, model })},"choices":[`;
  for (const [index, choice] of choices.entries()) {
    if (index > 0) yield ",";
    yield* choicePieces(index, choice, extras);
  }
  yield `],"usage":${JSON.stringify(usageOf(usage))}}`;
}

function* choicePieces(index: number, choice: FinishedChoice, extras: Extras): Generator<string> {
  const finish_reason: FinishReason = choice.finishReason;
  yield `${openObject({ index, message: messageOf(choice), finish_reason })},"logprobs":`;
  if (choice.logprobs === undefined) yield "null";
  else {
    yield '{"content":';
    yield* arrayPieces(choice.logprobs, chatLogprob);
    yield ',"refusal":null}';
  }
  yield* extraPieces(choice, extras);
  yield "}";
}

function messageOf({ text, reasoning, toolCalls }: FinishedChoice): object {
  return {
    role: "assistant",
    content: text === "" && toolCalls !== undefined ? null : text,
    refusal: null,
    ...(reasoning !== undefined && reasoning !== "" && { reasoning_content: reasoning }),
    ...(toolCalls !== undefined && { tool_calls: toolCalls.map(toolCall) }),
  };
}

function toolCall({ id, name, arguments: text }: ToolCall): object {
  return { id, type: "function", function: { name, arguments: text } };
}
