/**
 * Which ids' logits a slot's penalties and biases change, as the `sample` operation reads them (native/ops/sample/params.h): a list of
 * these ids alone, so that a step looks at no others.
 * @module
 */
import { MAX_LOGIT_BIAS, type SlotSampling } from "./runner-types.js";

/** Bit of a count: the id occurs in the prompt. The lower bits say how often it was generated. */
export const IN_PROMPT = 1 << 30;
/** Numbers of an adjustment: id, count, and the bits of its bias, a float32. */
export const ADJUSTMENT_WORDS = 3;

/** Most adjustments of a slot: a sequence's tokens and biases. */
export function maxAdjustments({ vocabulary, contextLength }: { vocabulary: number; contextLength: number }): number {
  return Math.min(vocabulary, contextLength + MAX_LOGIT_BIAS);
}

/**
 * The adjustments of a slot whose sequence has drawn `generated` so far, by ascending id: [n, 3]. Undefined where nothing reads them:
 * without penalties and biases.
 */
export function adjustmentsOf(sampling: SlotSampling, generated: readonly number[], vocabulary: number): Int32Array | undefined {
  const { repetitionPenalty, presencePenalty, frequencyPenalty, logitBias, promptTokens } = sampling;
  const isPenalised = repetitionPenalty !== 1 || presencePenalty !== 0 || frequencyPenalty !== 0;
  if (!isPenalised && logitBias.size === 0) return undefined;
  const counts = new Int32Array(vocabulary);
  if (repetitionPenalty !== 1) for (const id of promptTokens) counts[id] = IN_PROMPT;
  if (isPenalised) for (const id of generated) counts[id]! += 1;
  const isBiased = new Uint8Array(vocabulary);
  for (const id of logitBias.keys()) isBiased[id] = 1;
  const ids: number[] = [];
  for (let id = 0; id < vocabulary; id++) if (counts[id] !== 0 || isBiased[id] !== 0) ids.push(id);
  const words = new Int32Array(ids.length * ADJUSTMENT_WORDS);
  const biases = new Float32Array(words.buffer);
  for (const [i, id] of ids.entries()) {
    words[i * ADJUSTMENT_WORDS] = id;
    words[i * ADJUSTMENT_WORDS + 1] = counts[id]!;
    biases[i * ADJUSTMENT_WORDS + 2] = logitBias.get(id) ?? 0;
  }
  return words;
}
