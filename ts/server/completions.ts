/**
 * `/v1/completions`: raw text or token ids, one or many at once.
 * @module
 */

import type { Chunk } from "../index.js";
import type { Call, ServedEngine } from "./call.js";
import { checkModel, completionRequest, type GenerationRequest, PROMPT_FIELD_NAMES } from "./fields.js";
import { admitted, type Extras, extraPieces, extrasOf, type Finished, type FinishedChoice, finish } from "./generation.js";
import {
  type AnswerHead,
  alternatives,
  answerHead,
  arrayPieces,
  completionLogprobs,
  openObject,
  routingOf,
  TextOffsets,
  tokenText,
  usageOf,
} from "./wire.js";

export async function completions(call: Call, served: ServedEngine): Promise<void> {
  call.fieldNames = PROMPT_FIELD_NAMES;
  const body = await call.body();
  checkModel(body, served.model);
  const request = completionRequest(body);
  const head = answerHead("cmpl", served.model);
  await admitted(call, served, request.numChoices, async () => {
    if (request.stream) return stream(call, served, request, head);
    return call.sendPieces(answerPieces(await finish(call, served, request), head, extrasOf(request, served.info)));
  });
}

async function stream(call: Call, served: ServedEngine, request: GenerationRequest, head: AnswerHead): Promise<void> {
  const events = call.events();
  const frames = new CompletionFrames(head, extrasOf(request, served.info));
  const { usage } = await finish(call, served, request, (chunk) => {
    const frame = frames.of(chunk);
    if (frame !== undefined) events.send(frame);
  });
  if (request.includeUsage) events.send(frames.usage(usageOf(usage)));
  await events.done();
  call.cutIfUnread();
}

/** Chunks of the engine as frames. */
class CompletionFrames {
  readonly #start: string;
  readonly #extras: Extras;
  readonly #offsets = new Map<number, TextOffsets>();

  constructor({ id, created, model }: AnswerHead, extras: Extras) {
    this.#start = openObject({ id, object: "text_completion", created, model });
    this.#extras = extras;
  }

  /** The frame of a chunk; undefined if it adds nothing. */
  of({ index, text, tokens, logprobs, routing, finishReason }: Chunk): string | undefined {
    const { topK, ...wanted } = this.#extras;
    const counts = wanted.routing ? routing : undefined;
    const withIds = wanted.tokenIds && tokens.length > 0;
    if (text === "" && logprobs === undefined && counts === undefined && !withIds && finishReason === undefined) return undefined;
    // Written by hand: a frame a token and stream is what most of a server's time goes to.
    const listed = logprobs === undefined ? "null" : JSON.stringify(completionLogprobs(logprobs, this.#offsetsOf(index)));
    const counted = counts === undefined ? "" : `,"routing":${JSON.stringify(routingOf(counts.ffnExperts, topK))}`;
    const ids = withIds ? `,"token_ids":[${tokens.join(",")}]` : "";
    const reason = finishReason === undefined ? "null" : `"${finishReason}"`;
    const choice = `{"index":${index},"text":${JSON.stringify(text)},"logprobs":${listed}${counted}${ids},"finish_reason":${reason}}`;
    return `${this.#start},"choices":[${choice}]}`;
  }

  usage(usage: object): string {
    return `${this.#start},"choices":[],"usage":${JSON.stringify(usage)}}`;
  }

  #offsetsOf(index: number): TextOffsets {
    const offsets = this.#offsets.get(index) ?? new TextOffsets();
    this.#offsets.set(index, offsets);
    return offsets;
  }
}

function* answerPieces({ choices, usage }: Finished, { id, created, model }: AnswerHead, extras: Extras): Generator<string> {
  yield `${openObject({ id, object: "text_completion", created, model })},"choices":[`;
  for (const [index, choice] of choices.entries()) {
    if (index > 0) yield ",";
    yield* choicePieces(index, choice, extras);
  }
  yield `],"usage":${JSON.stringify(usageOf(usage))}}`;
}

function* choicePieces(index: number, choice: FinishedChoice, extras: Extras): Generator<string> {
  const { text, finishReason, logprobs } = choice;
  yield `${openObject({ index, text, finish_reason: finishReason })},"logprobs":`;
  if (logprobs === undefined) yield "null";
  else {
    const offsets = new TextOffsets();
    yield '{"tokens":';
    yield* arrayPieces(logprobs, tokenText);
    yield ',"token_logprobs":';
    yield* arrayPieces(logprobs, ({ logprob }) => logprob);
    yield ',"top_logprobs":';
    yield* arrayPieces(logprobs, (entry) => (entry.top.length > 0 ? alternatives(entry) : null));
    yield ',"text_offset":';
    yield* arrayPieces(logprobs, (entry) => offsets.next(entry));
    yield "}";
  }
  yield* extraPieces(choice, extras);
  yield "}";
}
