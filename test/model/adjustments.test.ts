/** Lists of adjustments: which ids a slot's penalties and biases change. */
import { describe, expect, test } from "vitest";
import { ADJUSTMENT_WORDS, adjustmentsOf, IN_PROMPT, maxAdjustments } from "../../ts/model/adjustments.js";
import type { SlotSampling } from "../../ts/model/runner-types.js";

const PLAIN: SlotSampling = {
  ...{ temperature: 1, topP: 1, topK: 0, minP: 0, repetitionPenalty: 1, presencePenalty: 0, frequencyPenalty: 0 },
  ...{ seed: 0, logprobs: -1, logitBias: new Map(), promptTokens: [70, 3, 70] },
};

/** [id, count, bias] of each. */
function entries(sampling: Partial<SlotSampling>, generated: readonly number[] = []): number[][] | undefined {
  const words = adjustmentsOf({ ...PLAIN, ...sampling }, generated, 100);
  if (!words) return undefined;
  const biases = new Float32Array(words.buffer);
  return Array.from({ length: words.length / ADJUSTMENT_WORDS }, (_, i) => {
    const at = i * ADJUSTMENT_WORDS;
    return [words[at] as number, words[at + 1] as number, biases[at + 2] as number];
  });
}

describe("adjustments", () => {
  test("without penalties and biases there are none to read", () => {
    expect(entries({}, [1, 2])).toBeUndefined();
  });

  test("the repetition penalty counts prompt and output, the others the output alone; ids ascend", () => {
    expect(entries({ repetitionPenalty: 1.2 }, [5, 70, 5])).toEqual([
      [3, IN_PROMPT, 0],
      [5, 2, 0],
      [70, IN_PROMPT + 1, 0],
    ]);
    for (const penalty of [{ presencePenalty: 1 }, { frequencyPenalty: -1 }])
      expect(entries(penalty, [5, 70, 5])).toEqual([
        [5, 2, 0],
        [70, 1, 0],
      ]);
    expect(entries({ presencePenalty: 1 })).toEqual([]);
  });

  test("biases stand beside counts, which they do not turn on", () => {
    const logitBias = new Map([
      [99, -100],
      [5, 0.5],
      [0, 0],
    ]);
    expect(entries({ logitBias }, [5, 6])).toEqual([
      [0, 0, 0],
      [5, 0, 0.5],
      [99, 0, -100],
    ]);
    expect(entries({ logitBias, frequencyPenalty: 1 }, [5, 6])).toEqual([
      [0, 0, 0],
      [5, 1, 0.5],
      [6, 1, 0],
      [99, 0, -100],
    ]);
  });

  test("a slot has room for a whole context and all biases, and never for more than the vocabulary", () => {
    expect(maxAdjustments({ vocabulary: 131_072, contextLength: 8192 })).toBe(12_288);
    expect(maxAdjustments({ vocabulary: 2048, contextLength: 8192 })).toBe(2048);
  });
});
