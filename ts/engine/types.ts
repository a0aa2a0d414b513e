/**
 * What goes into a generation and what comes out: the public shapes.
 * @module
 */

import type { ChatPrompt, ToolCall, ToolCallDelta } from "../text/index.js";
import type { SpeculationStats } from "./draft-policy.js";

export type { ChatPrompt, SpeculationStats };

/** Token ids, taken as they are. */
export interface TokenPrompt {
  tokens: readonly number[] | Int32Array | Uint32Array;
}

/** A string is raw text: nothing is put around it, and special tokens written in it are plain text unless `parseSpecial` is set. */
export type Prompt = string | ChatPrompt | TokenPrompt;

/**
 * Why a generation ended: an end token or stop string; the limit or the context's end; a tool call that the model finished; an abort
 * (partial results only). In one step stop wins over length.
 */
export type FinishReason = "stop" | "length" | "tool_calls" | "abort";

/** Counts of tokens. */
export interface Usage {
  /** The whole prompt, counted once however many choices there are. */
  promptTokens: number;
  /** Prompt tokens that were found in the prefix cache. */
  cachedTokens: number;
  /** Generated tokens, end tokens and tokens behind a stop cut included; of all choices. */
  completionTokens: number;
}

/** How long it took, by the ends of steps: a token is there when the device is done with the step that draws it. */
export interface Timings {
  /** Milliseconds from the call to the first generated token (with none: to the end of the prompt). */
  ttftMs: number;
  /** Tokens of all steps that drew some but the first, over the time they took; 0 where there was one such step, or none. */
  tokensPerSecond: number;
  /**
   * What became of the draft head's tokens. Absent, not zeros, where no step verified any: with speculation off or without a draft head, in an
   * answer of one or two tokens, and with `"auto"` where drafts do not pay.
   */
  drafts?: DraftUse;
}

/** Drafts of one choice: how many steps verified, how many of these were accepted, and their share. */
export interface DraftUse {
  verified: number;
  accepted: number;
  /** accepted ÷ verified, 0 … 1. */
  share: number;
}

/** What the router did, averaged over layers and over the prompt (cached tokens included) and all generated tokens but the last. */
export interface Routing {
  /** FFN experts used by a token in a layer; the rest of top-k are zero experts. */
  ffnExpertsPerToken: number;
  /** Share of picks that were zero experts, 0 … 1. */
  zeroExpertShare: number;
}

/** A token and its log-probability in the model's own distribution: before temperature, penalties and masks. −∞ is written as −9999. */
export interface TokenAlternative {
  /** The token's id. */
  token: number;
  /** Its bytes, part of a UTF-8 text; empty without a tokenizer. */
  bytes: number[];
  logprob: number;
}

/** A generated token's log-probability; `top` are the `logprobs` most likely tokens, first the likeliest. */
export interface TokenLogprob extends TokenAlternative {
  top: TokenAlternative[];
}

/** One finished answer. */
export interface Choice {
  /** The visible answer: without end token, stop string, reasoning and tool calls. Empty without a tokenizer. */
  text: string;
  /** All generated ids: end token and tokens behind a stop cut included. */
  tokens: number[];
  finishReason: FinishReason;
  usage: Usage;
  timings: Timings;
  routing: Routing;
  /** Finished calls in order of appearance; absent if there are none. */
  toolCalls?: ToolCall[];
  /** What the model thought before its answer; absent if it did not. */
  reasoning?: string;
  /** One entry a token; only with `logprobs`. */
  logprobs?: TokenLogprob[];
}

/** The result of a generation: its first choice, and with `n` > 1 all `choices`. `usage` then counts all of them; `timings`, drafts among them, stay those of the first. */
export interface GenerateResult extends Choice {
  choices?: Choice[];
}

/**
 * What a drawn token added to one choice; a step with accepted drafts gives a chunk for each. The chunks of a choice, joined, equal its result;
 * for tool calls see `toolCallDelta`.
 */
export interface Chunk {
  /** Which of the n choices. */
  index: number;
  text: string;
  tokens: number[];
  reasoning?: string;
  /**
   * A piece of a tool call; a step that adds several pieces gives several chunks. The first of each `index` has `id` and `name`, all may
   * have more of `arguments`. A call is announced before it is whole: one that breaks afterwards, or that the answer's end cuts off, has
   * deltas, yet it is neither in `toolCalls` nor text.
   */
  toolCallDelta?: ToolCallDelta;
  /** In the choice's last chunk only: the calls that are whole, as the result has them; absent if there are none. */
  toolCalls?: ToolCall[];
  /** One entry for each of `tokens`; only with `logprobs`. */
  logprobs?: TokenLogprob[];
  /** In the choice's last chunk only. */
  finishReason?: FinishReason;
  /** In the last chunk of all. */
  usage?: Usage;
  /** `ffnExperts[token][layer]`: FFN experts used by the step that drew the token (by the token before it, that is). */
  routing?: { ffnExperts: number[][] };
}

/** Log-probabilities of a given text. */
export interface ScoreResult {
  tokens: number[];
  /** log p of each token given those before it; the first is null. −∞ is written as −9999. */
  logprobs: (number | null)[];
  routing: Routing;
}

/** What an engine is: its model, its device, its limits, and which options are in force. */
export interface EngineInfo {
  /** The checkpoint's folder. */
  directory: string;
  modelType: string;
  /** Layers, each with two attentions and two dense networks. */
  numLayers: number;
  vocabularySize: number;
  /** FFN and zero experts in each layer, and how many a token picks. */
  numExperts: number;
  numZeroExperts: number;
  topK: number;
  /** Positions a sequence may have: the model's context, or what the cache holds if that is less. */
  contextLength: number;
  /** "cpu" | "cuda" */
  device: string;
  /** CPU threads (1 on a GPU), and instruction set: "plain" | "avx2" | "avx512"; of a GPU its compute capability. */
  threads: number;
  isa: string;
  /** Of a step; with several ranks, of each rank's part of it. */
  maxBatchTokens: number;
  /** Sequences that run at once, and cache blocks: of all ranks. */
  maxSequences: number;
  cache: { blockSize: number; numBlocks: number };
  hasTokenizer: boolean;
  hasChatTemplate: boolean;
  /** Ids that end a generation: the union of config.json, generation_config.json and the tokenizer. */
  endTokens: number[];
  /** Sampling values that hold where a call gives none. */
  defaults: { temperature: number; topP: number; topK: number; minP: number; repetitionPenalty: number };
  /** What the layers' matrices are: "as stored", or what `dtype` made of them. */
  dtype: string;
  /** What they are multiplied with: "float32" on the CPU; on a GPU "float32" or "bfloat16". */
  activations: "float32" | "bfloat16";
  /** What the latent cache holds: what `activations` says, or "fp8". */
  cacheDType: "float32" | "bfloat16" | "fp8";
  /** Whether inputs of products with FP8 weights are quantised as well. */
  fp8Activations: boolean;
  batchInvariant: boolean;
  /** Which latents are reused: none; those that prompts made; those that decoding made too. */
  prefixCache: "off" | "on" | "all";
  /** Whether drafts are verified: never, as many as pay at the moment, or so many in each step. */
  speculative: "off" | "auto" | { drafts: number };
  /** Ranks; which of them this process has or begins with (0 leads); and how rows travel between them, "none" where there is one. */
  parallel: { expert: number; rank: number; exchange: "none" | "peer" | "nccl" };
  ngram: "none" | "host" | "device";
}

/** What an engine is doing now. */
export interface EngineStats {
  runningSequences: number;
  /** Those that have not started, and those that gave way and come back. */
  waitingSequences: number;
  /** Cache blocks that sequences own; that nobody owns but the prefix cache could reuse; and all there are. */
  blocksInUse: number;
  cachedBlocks: number;
  numBlocks: number;
  /** Since the engine was loaded: steps, prompt tokens that they ran (cached ones are not), and generated tokens. */
  steps: number;
  promptTokens: number;
  generatedTokens: number;
  /** Tokens of all prompts that were looked for in the prefix cache, and how many of them were found. */
  prefixQueryTokens: number;
  prefixHitTokens: number;
  /** Times that a running sequence gave way to older ones, its latents moved to host memory, for want of cache blocks. */
  preemptions: number;
  /** Time in which a step was under way; and time between two steps although there was work, in which the device had none. */
  stepSeconds: number;
  idleSeconds: number;
  /** Speculative decoding: what it does now, and what it did. */
  speculation: SpeculationStats;
  /** With several ranks: the same of each, by rank; all above are then their sums, but for `speculation`'s present, which is what most draft. */
  ranks?: EngineStats[];
}
