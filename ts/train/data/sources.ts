/**
 * The documents of a run's sources: read or made, filtered, without copies, in random order, some of them held out.
 * @module
 */

import { invalid } from "../../checks.js";
import { drawsOf, shuffled } from "../random.js";
import { type CorpusPart, drawCorpus } from "./corpus/index.js";
import { type Document, plainText } from "./document.js";
import { passes } from "./filter.js";
import { NearCopies } from "./minhash.js";
import type { DataOptions, SourceOptions } from "./options.js";
import { readJsonl, readText } from "./read.js";

/** The documents of a source. */
export interface SourceDocuments {
  train: Document[];
  heldOut: Document[];
}

/** Of each source. A copy is dropped wherever the first one stands, so that none is held out that another source has. */
export function readSources({ sources, deduplicate, heldOut }: DataOptions, seed: number): SourceDocuments[] {
  const seen = new Set<string>();
  const near = deduplicate === null ? null : new NearCopies(deduplicate);
  return sources.map((source, i) => {
    const documents = documentsOf(source, seed).filter((document) => {
      const whole = JSON.stringify(document);
      if (seen.has(whole)) return false;
      seen.add(whole);
      // What is made is alike by design: sums differ in their digits.
      return isMade(source) || !near?.isCopy(plainText(document));
    });
    if (documents.length < 2) throw invalid(`data.sources[${i}]`, source, "a source with at least two documents that pass and differ");
    const order = shuffled(documents.length, drawsOf(seed, SHUFFLES + i)).map((at) => documents[at]!);
    const count = Math.min(Math.ceil(heldOut * order.length), order.length - 1);
    return { heldOut: order.slice(0, count), train: order.slice(count) };
  });
}

function documentsOf(source: SourceOptions, seed: number): Document[] {
  if (isMade(source)) return drawCorpus(source.kind, source, seed);
  const documents = source.kind === "text" ? readText(source.path, source.separator) : readJsonl(source.path);
  return documents.filter((document) => passes(plainText(document), source.filter));
}

function isMade(source: SourceOptions): source is SourceOptions & { kind: CorpusPart } {
  return source.kind !== "text" && source.kind !== "jsonl";
}

/** Orders have random numbers of their own. */
const SHUFFLES = 2 ** 52;
