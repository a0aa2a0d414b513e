/**
 * The made corpus as files, to look at or to train something else on.
 * @module
 */

import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { integer, invalid } from "../checks.js";
import { CORPUS_PARTS, drawCorpus } from "../train/data/corpus/index.js";

/** How much. */
export interface CorpusFiles {
  /** Of each part. Default 1000. */
  documents?: number;
  /** Default 0. */
  seed?: number;
}

/** Writes PART.jsonl for each part to the new folder `output`; returns the paths. */
export function writeCorpus(output: string, { documents = 1000, seed = 0 }: CorpusFiles = {}): string[] {
  if (existsSync(output)) throw invalid("output", output, "a folder that is not there yet");
  integer(documents, "documents", 1, 1 << 24);
  integer(seed, "seed", 0, Number.MAX_SAFE_INTEGER);
  mkdirSync(output, { recursive: true });
  return CORPUS_PARTS.map((part) => {
    const path = join(output, `${part}.jsonl`);
    const lines = drawCorpus(part, { documents, digits: 2 }, seed).map((document) => `${JSON.stringify(document)}\n`);
    writeFileSync(path, lines.join(""));
    return path;
  });
}
