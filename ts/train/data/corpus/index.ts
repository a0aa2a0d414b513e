/**
 * A corpus made from random numbers: what a small model can learn without any download, in the forms that the bundled model was taught.
 * @module
 */

import { drawsOf } from "../../random.js";
import type { Document } from "../document.js";
import { drawReasoning } from "./reasoning.js";
import { drawRecall } from "./recall.js";
import { drawStory } from "./stories.js";
import { drawSum } from "./sums.js";
import { drawToolUse } from "./tools.js";

/** The parts of the corpus. */
export const CORPUS_PARTS = ["stories", "sums", "recall", "tools", "reasoning"] as const;

export type CorpusPart = (typeof CORPUS_PARTS)[number];

/** How much of a part, and how hard. */
export interface CorpusOptions {
  documents: number;
  /** Of the numbers in `sums`, at most. */
  digits: number;
}

/** The part's documents: the first ones are the same whatever `documents` says. */
export function drawCorpus(part: CorpusPart, { documents, digits }: CorpusOptions, seed: number): Document[] {
  // Each part has random numbers of its own.
  const first = (1 + CORPUS_PARTS.indexOf(part)) * 2 ** 44;
  return Array.from({ length: documents }, (_, i) => drawDocument(part, digits, drawsOf(seed, first + i)));
}

function drawDocument(part: CorpusPart, digits: number, random: () => number): Document {
  switch (part) {
    case "stories":
      return drawStory(random);
    case "sums":
      return drawSum(random, digits);
    case "recall":
      return drawRecall(random);
    case "tools":
      return drawToolUse(random);
    case "reasoning":
      return drawReasoning(random);
  }
}
