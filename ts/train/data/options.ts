/**
 * What a run says of its texts, checked.
 * @module
 */

import { absent, integer, invalid, number, oneOf, record, rejectUnknownFields } from "../../checks.js";
import { CORPUS_PARTS, type CorpusPart } from "./corpus/index.js";
import { type FilterOptions, LENGTH_BOUNDS, SHARE_BOUNDS } from "./filter.js";
import { SEPARATOR } from "./read.js";

/** Where documents come from. */
export type SourceOptions = { weight: number } & (
  | { kind: "text"; path: string; separator: string; filter: FilterOptions }
  | { kind: "jsonl"; path: string; filter: FilterOptions }
  | { kind: CorpusPart; documents: number; digits: number }
);

/** All that there is to train on. */
export interface DataOptions {
  sources: SourceOptions[];
  /** A folder with tokenizer.json and tokenizer_config.json; null: one is trained. */
  tokenizer: string | null;
  /** Tokens of a row. */
  length: number;
  /** Whether documents of a row are apart for attention, or one stream of tokens. */
  packing: "documents" | "stream";
  /** What counts of chats: what the assistant says, or the prompts too. */
  learn: "answers" | "all";
  /** Similarity from which on a document of a file is a copy of an earlier one; null: only the same text is. */
  deduplicate: number | null;
  /** Share of each source's documents that are not trained on. */
  heldOut: number;
}

const MOST = Number.MAX_SAFE_INTEGER;

/**
 * Reads a run's `data`.
 *
 * @throws LongcatError OPTION_INVALID
 */
export function parseData(value: unknown): DataOptions {
  const data = record(value, "data");
  rejectUnknownFields(data, ["sources", "tokenizer", "length", "packing", "learn", "deduplicate", "heldOut"], "data");
  const sources = data["sources"];
  if (!Array.isArray(sources) || sources.length === 0) throw invalid("data.sources", sources, "an array of at least one source");
  return {
    sources: sources.map((source, i) => parseSource(source, `data.sources[${i}]`)),
    tokenizer: absent(data["tokenizer"]) ? null : path(data["tokenizer"], "data.tokenizer"),
    length: integer(data["length"], "data.length", 2, 1 << 20),
    packing: absent(data["packing"]) ? "documents" : oneOf(data["packing"], "data.packing", ["documents", "stream"]),
    learn: absent(data["learn"]) ? "answers" : oneOf(data["learn"], "data.learn", ["answers", "all"]),
    deduplicate: absent(data["deduplicate"]) ? null : positiveShare(data["deduplicate"], "data.deduplicate"),
    heldOut: absent(data["heldOut"]) ? 0.02 : positiveShare(data["heldOut"], "data.heldOut"),
  };
}

function parseSource(value: unknown, field: string): SourceOptions {
  const source = record(value, field);
  const kind = oneOf(source["kind"], `${field}.kind`, ["text", "jsonl", ...CORPUS_PARTS]);
  const known = (...names: string[]) => rejectUnknownFields(source, ["kind", "weight", ...names], field);
  const weight = absent(source["weight"])
    ? 1
    : number(source["weight"], `${field}.weight`, { min: 0, max: 1e6, openMin: true, accepted: "a number above 0" });
  if (kind !== "text" && kind !== "jsonl") {
    known("documents", ...(kind === "sums" ? ["digits"] : []));
    const documents = integer(source["documents"], `${field}.documents`, 2, 1 << 24);
    return { kind, weight, documents, digits: absent(source["digits"]) ? 2 : integer(source["digits"], `${field}.digits`, 1, 15) };
  }
  known("path", "filter", ...(kind === "text" ? ["separator"] : []));
  const from = { weight, path: path(source["path"], `${field}.path`), filter: parseFilter(source["filter"], `${field}.filter`) };
  if (kind === "jsonl") return { kind, ...from };
  const separator = absent(source["separator"])
    ? SEPARATOR
    : text(source["separator"], `${field}.separator`, "a text of at least a character");
  return { kind, ...from, separator };
}

function parseFilter(value: unknown, field: string): FilterOptions {
  const filter = record(value, field);
  rejectUnknownFields(filter, [...LENGTH_BOUNDS, ...SHARE_BOUNDS], field);
  const given = (name: string) => !absent(filter[name]);
  return Object.fromEntries([
    ...LENGTH_BOUNDS.filter(given).map((name) => [name, integer(filter[name], `${field}.${name}`, 0, MOST)]),
    ...SHARE_BOUNDS.filter(given).map((name) => [name, number(filter[name], `${field}.${name}`, { min: 0, max: 1, accepted: SHARE })]),
  ]) as FilterOptions;
}

const SHARE = "a number from 0 to 1";

function positiveShare(value: unknown, field: string): number {
  return number(value, field, { min: 0, max: 1, openMin: true, accepted: "a number above 0, up to 1" });
}

function path(value: unknown, field: string): string {
  return text(value, field, "a path");
}

function text(value: unknown, field: string, accepted: string): string {
  if (typeof value !== "string" || value === "") throw invalid(field, value, accepted);
  return value;
}
