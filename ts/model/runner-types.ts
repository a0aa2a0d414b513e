/**
 * What the engine asks of a model: slots, blocks and steps. The engine knows sequences and texts; the runner knows tensors.
 *
 * A *slot* is one of `maxSequences` places for a running sequence: its block table row, its token history, its sampling state.
 * A *step* runs one batch: some sequences' next prompt chunks, and some others' decode tokens: each the newest token of its sequence and,
 * where the step verifies drafts, those that the draft head has put behind it. Drafts never travel to the host.
 * @module
 */

/** Most alternatives that a token's log-probabilities may list (native/ops/sample/params.h, kMaxLogprobs). */
export const MAX_LOGPROBS = 20;
/** Most entries of `logitBias`. */
export const MAX_LOGIT_BIAS = 4096;

/** Sampling state of a slot; set when a sequence takes it, and again whenever something changes. */
export interface SlotSampling {
  temperature: number;
  topP: number;
  /** 0: off. */
  topK: number;
  minP: number;
  repetitionPenalty: number;
  presencePenalty: number;
  frequencyPenalty: number;
  /** Already with the choice added: 0 … 2^53−1. */
  seed: number;
  /** −1: none; else how many alternatives to list (0 … MAX_LOGPROBS). */
  logprobs: number;
  /** Token id → addend; empty: none. At most MAX_LOGIT_BIAS. */
  logitBias: ReadonlyMap<number, number>;
  /** The prompt, for the repetition penalty; only read when repetitionPenalty ≠ 1. */
  promptTokens: readonly number[];
}

/** One sequence's part in a step. */
export interface StepSequence {
  slot: number;
  /**
   * Prompt chunk: first position of `tokens` in the sequence. Decode: position of the newest token as far as is known; the device knows it
   * exactly, and the two are the same where no step with drafts is under way.
   */
  position: number;
  /** Prompt chunk: its tokens. Decode: null, the one token that the device sampled last (or `forceNext` set). */
  tokens: readonly number[] | null;
  /** Whether the next token is to be sampled after the last of these (not for a chunk that is not the prompt's last). */
  sample: boolean;
  /** Prompt chunk that is not the prompt's last: the token that follows it. Read by the draft head alone. */
  following?: number;
  /**
   * Decode: how many drafts are verified behind the newest token, which makes `drafts + 1` rows (0 … maxDrafts, default 0). A step makes as
   * many drafts for the next one as any of its sequences asks for; the last chunk of a prompt may ask too. Drafts that nobody made are wrong
   * tokens, and are rejected like any others.
   */
  drafts?: number;
  /** Force this token instead of drawing (host-side processors, tests). */
  forceNext?: number;
  /** Ids that may be drawn: bit i of word i / 32. Not to be changed once it is given. Absent: all. */
  mask?: Int32Array;
  /** Ask for the log-probability of each prompt token given those before it: targets[i] follows tokens[i]; −1 for none. */
  scoreTargets?: readonly number[];
}

/** A token that a step has sampled. */
export interface DrawnToken {
  token: number;
  /** Of the model's own distribution; 0 unless asked for. */
  logprob: number;
  /** Alternatives by log-probability, as many as asked for. */
  top: { token: number; logprob: number }[];
}

/** What a step gives back for one sequence, in the order of the step's sequences. */
export interface StepResult {
  /**
   * The sampled tokens, in order: none where none was asked for; one; or after a decode with drafts one more than were accepted. None also
   * where the sequence had no place left for its newest token, which happens only behind steps whose results were not there at the launch.
   */
  drawn: DrawnToken[];
  /** For each of the sequence's tokens that this step ran (of a decode: the newest and the accepted drafts), FFN experts used in each layer: [tokens][layers]. */
  ffnExperts: Uint8Array[];
  /** scoreTargets' log-probabilities. */
  scores?: Float32Array;
}

/** Sizes that are fixed when the runner is made. */
export interface RunnerLimits {
  maxSequences: number;
  maxBatchTokens: number;
  /** Positions a sequence may have: the model's context, or what the cache holds if that is less. */
  contextLength: number;
  blockSize: number;
  numBlocks: number;
  vocabulary: number;
  numLayers: number;
  topK: number;
  /** Most drafts that a step verifies for a sequence; 0 without a draft head, or where none was asked for. */
  maxDrafts: number;
}

/** See ts/model/runner.ts for the implementation. */
export interface ModelRunner {
  readonly limits: RunnerLimits;
  /** Sets a slot's sampling state, and its counts: of the tokens that were generated already, if the sequence comes back to a slot. */
  setSampling(slot: number, sampling: SlotSampling, generated?: readonly number[]): void;
  /** Writes entries [first, first + blocks.length) of the slot's block table. */
  setBlocks(slot: number, first: number, blocks: readonly number[]): void;
  /** Ids that may ever be sampled (the tokenizer's); default: all below the vocabulary. */
  setAllowed(ids: Iterable<number>): void;
  /** Copies the latents of one block to another (n > 1 shares the prompt's blocks and forks the last, partly filled one). */
  copyBlock(from: number, to: number): void;
  /** Copies slot `from`'s token history [0, length) to slot `to`. */
  copyHistory(from: number, to: number, length: number): void;
  /**
   * Writes a slot's token history from its beginning: tokens whose latents are there without having been run in this slot. A decode goes on
   * from the last of them, which is then the newest token, still to be run.
   */
  setHistory(slot: number, tokens: readonly number[]): void;
  /** The latents of one block, as they are when all that is enqueued before is done. */
  readBlock(block: number): Promise<Uint8Array>;
  /** Puts back what `readBlock` gave, into any block. Copies the bytes now. */
  writeBlock(block: number, bytes: Uint8Array): void;
  /** Resolves when there is room for one block's latents, to set up one more slot with the calls above, or to launch a step: to be awaited before each. */
  room(): Promise<void>;
  /**
   * Enqueues a step and resolves with its results: prompt chunks, then decodes; at most maxBatchTokens tokens (with drafts: rows) and maxSequences
   * sequences. All is enqueued when the call returns (a step that is scored, or is cut in two, or has to be agreed on with other ranks, goes on by itself, and `room()` waits for it),
   * so that the next step may be launched before the results of this one are there: a decode row's token is then the one that the device
   * samples, and what is set after the launch is for later steps. A step that fails takes those with it that were launched before its failure was told.
   * `onOver` is told when the device was done (of a step that is cut, with each part), on performance.now()'s clock, before the promise resolves.
   *
   * @throws LongcatError INTERNAL for a step that breaks this, or without room.
   */
  launch(sequences: readonly StepSequence[], onOver?: (ms: number) => void): Promise<StepResult[]>;
  /** Awaits room, launches the step, awaits its results. */
  step(sequences: readonly StepSequence[]): Promise<StepResult[]>;
  close(): Promise<void>;
}
