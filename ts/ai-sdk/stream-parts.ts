/**
 * A stream of chunks as the AI SDK's stream of parts: thoughts, text and tool calls, each opened, fed and closed.
 * @module
 */

import type { JSONObject, LanguageModelV3StreamPart, SharedV3Warning } from "@ai-sdk/provider";
import type { Chunk, FinishReason, TokenLogprob, ToolCall, ToolCallDelta, Usage } from "../index.js";
import { sdkFinishReason, sdkUsage } from "./result.js";

/** What is open now: at most one thing at a time. */
type Open = { kind: "reasoning" | "text"; id: string } | { kind: "call"; id: string; index: number };

/** What a stream is told beyond its chunks. */
export interface StreamSettings {
  warnings: SharedV3Warning[];
  modelId: string;
  /** Each chunk is passed on as it is, too. */
  raw: boolean;
}

/** Makes the parts of one answer, in order. */
export class StreamParts {
  readonly #settings: StreamSettings;
  readonly #ffnExperts: number[][] = [];
  readonly #logprobs: TokenLogprob[] = [];
  #open: Open | undefined;
  #opened = 0;
  #finishReason: FinishReason = "abort";
  #usage: Usage = { promptTokens: 0, cachedTokens: 0, completionTokens: 0 };

  constructor(settings: StreamSettings) {
    this.#settings = settings;
  }

  start(): LanguageModelV3StreamPart[] {
    const { warnings, modelId } = this.#settings;
    return [
      { type: "stream-start", warnings },
      { type: "response-metadata", modelId, timestamp: new Date() },
    ];
  }

  of(chunk: Chunk): LanguageModelV3StreamPart[] {
    this.#ffnExperts.push(...(chunk.routing?.ffnExperts ?? []));
    this.#logprobs.push(...(chunk.logprobs ?? []));
    this.#finishReason = chunk.finishReason ?? this.#finishReason;
    this.#usage = chunk.usage ?? this.#usage;
    return [
      ...(this.#settings.raw ? [{ type: "raw" as const, rawValue: chunk }] : []),
      ...this.#written("reasoning", chunk.reasoning ?? ""),
      ...this.#written("text", chunk.text),
      ...(chunk.toolCallDelta === undefined ? [] : this.#called(chunk.toolCallDelta)),
      ...(chunk.toolCalls === undefined ? [] : [...this.#close(), ...chunk.toolCalls.map(wholeCall)]),
    ];
  }

  end(): LanguageModelV3StreamPart[] {
    const longcat = { ffnExperts: this.#ffnExperts, ...(this.#logprobs.length > 0 && { logprobs: this.#logprobs }) };
    return [
      ...this.#close(),
      {
        type: "finish",
        finishReason: sdkFinishReason(this.#finishReason),
        usage: sdkUsage(this.#usage),
        providerMetadata: { longcat: longcat as unknown as JSONObject },
      },
    ];
  }

  #written(kind: "reasoning" | "text", delta: string): LanguageModelV3StreamPart[] {
    if (delta === "") return [];
    const parts: LanguageModelV3StreamPart[] = [];
    if (this.#open?.kind !== kind) {
      parts.push(...this.#close());
      this.#open = { kind, id: String(this.#opened++) };
      parts.push({ type: `${kind}-start`, id: this.#open.id });
    }
    return [...parts, { type: `${kind}-delta`, id: this.#open.id, delta }];
  }

  #called({ index, id = "", name = "", arguments: delta = "" }: ToolCallDelta): LanguageModelV3StreamPart[] {
    const parts: LanguageModelV3StreamPart[] = [];
    let open = this.#open;
    if (open?.kind !== "call" || open.index !== index) {
      parts.push(...this.#close());
      open = { kind: "call", index, id };
      this.#open = open;
      parts.push({ type: "tool-input-start", id, toolName: name });
    }
    return delta === "" ? parts : [...parts, { type: "tool-input-delta", id: open.id, delta }];
  }

  /** A call is known to be whole at the answer's end alone: until then it has only had its pieces. */
  #close(): LanguageModelV3StreamPart[] {
    const open = this.#open;
    this.#open = undefined;
    if (open === undefined) return [];
    return [open.kind === "call" ? { type: "tool-input-end", id: open.id } : { type: `${open.kind}-end`, id: open.id }];
  }
}

function wholeCall({ id, name, arguments: input }: ToolCall): LanguageModelV3StreamPart {
  return { type: "tool-call", toolCallId: id, toolName: name, input };
}
