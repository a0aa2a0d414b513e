/**
 * How a model spends its experts on texts: the technical report's appendix on routing (Fig. 11, Table 8) for any checkpoint and any data.
 * @module
 */

import { absent, callback, integer, invalid, isPlain, record } from "../checks.js";
import { LongcatError } from "../errors.js";
import { routeTexts } from "../model/routing.js";
import { checkDirectory, type LoadedParts, loadParts } from "./load.js";
import { type EngineOptions, resolveOptions } from "./options.js";
import { encodePrompt, type TextTools } from "./prompt.js";
import { type FfnUse, type LayerRouting, RoutingTally } from "./routing-tally.js";
import type { EngineInfo, Prompt } from "./types.js";

/** Texts by the name of the data set that they belong to. */
export type RoutingData = Readonly<Record<string, Prompt | readonly Prompt[]>>;

/** Options of {@link Inspect.routing}: the engine's, but for those that change no routing. It runs in this process, on one device. */
export interface RoutingOptions extends Omit<EngineOptions, "parallel" | "speculative" | "prefixCache"> {
  /** So many tokens of each data set are given one by one: 0 … 1,000,000, default 0. */
  keepTokens?: number | null;
  /** Called while texts run, with tokens that are done and all. */
  onRouted?: ((doneTokens: number, totalTokens: number) => void) | null;
}

/** A token and what it chose. */
export interface RoutedToken {
  token: number;
  /** What it adds to the text: empty where it does not end a character, and without a tokenizer. Special tokens are written out. */
  text: string;
  /** Its own bytes; empty without a tokenizer, and of an id that the tokenizer does not have. */
  bytes: number[];
  special: boolean;
  /** FFN experts that it chose in each layer; the rest of top-k are zero experts. */
  ffnExperts: number[];
}

/** One data set. */
export interface DataRouting extends FfnUse {
  name: string;
  texts: number;
  /** What ran: texts longer than the context are cut, and each piece sees nothing of those before it. */
  pieces: number;
  tokens: number;
  layers: LayerRouting[];
  /** The first `keepTokens` tokens, piece by piece. */
  kept: RoutedToken[][];
}

/** A model's routing over some data. */
export interface RoutingAnalysis
  extends Pick<
    EngineInfo,
    "directory" | "modelType" | "numLayers" | "numExperts" | "numZeroExperts" | "topK" | "contextLength" | "device"
  > {
  /** FFN experts of a token if all experts, zero experts too, were chosen alike: K · N / (N + Z). */
  evenFfnExperts: number;
  /** In the order of the names. */
  data: DataRouting[];
}

const MOST_KEPT = 1_000_000;

/** Engine options that would change nothing here. */
const IDLE = ["parallel", "speculative", "prefixCache"] as const;

/**
 * Runs texts as prompts and says how many FFN experts their tokens chose, by data set and by layer, and how even the experts' load was.
 *
 * @param directory Absent: the bundled mini checkpoint.
 * @param data A checkpoint without a tokenizer takes `{ tokens }` only.
 * @throws LongcatError As `Engine.load` does; `PROMPT_INVALID` names data set and text; `ABORTED`.
 *
 * @example
 * const { data } = await inspect.routing("path/to/checkpoint", { english: "The cat sat.", sums: ["1 + 1 = 2", "9 + 4 = 13"] });
 * for (const { name, ffnExpertsPerToken } of data) console.log(name, ffnExpertsPerToken);
 */
export async function inspectRouting(
  directory: string | null | undefined,
  data: RoutingData,
  options?: RoutingOptions | null,
): Promise<RoutingAnalysis> {
  const folder = checkDirectory(directory);
  const { keepTokens, onRouted, ...rest } = record(options, "options");
  const idle = IDLE.find((name) => !absent(rest[name]));
  if (idle) throw new LongcatError("OPTION_INVALID", `${idle}: has no effect on routing, which is looked at in one process; leave it out`);
  const keep = absent(keepTokens) ? 0 : integer(keepTokens, "keepTokens", 0, MOST_KEPT);
  const report = absent(onRouted) ? () => undefined : (callback(onRouted, "onRouted") as NonNullable<RoutingOptions["onRouted"]>);
  const sets = checkData(data);
  const resolved = { ...resolveOptions({ ...rest, speculative: "off" }), prefixCache: false };
  const parts = await loadParts(folder, resolved);
  try {
    const encoded: EncodedSet[] = [];
    for (const set of sets) encoded.push(await encodeSet(set, parts, resolved.signal));
    const total = encoded.reduce((sum, { pieces }) => sum + lengthOf(pieces), 0);
    let done = 0;
    const routed: DataRouting[] = [];
    for (const set of encoded) {
      const count = (rows: number) => {
        throwIfAborted(resolved.signal);
        done += rows;
        report(done, total);
      };
      routed.push(await routeSet(set, parts, keep, count));
    }
    return { ...factsOf(parts.info), data: routed };
  } finally {
    await parts.close();
  }
}

/** A data set as it was given, and as it runs. */
interface GivenSet {
  name: string;
  prompts: readonly Prompt[];
}
interface EncodedSet {
  name: string;
  texts: number;
  pieces: (readonly number[])[];
}

function checkData(data: unknown): GivenSet[] {
  if (!isPlain(data)) throw invalid("data", data, "texts by the name of their data set", "PROMPT_INVALID");
  const sets = Object.entries(data).map(([name, given]) => ({ name, prompts: (Array.isArray(given) ? given : [given]) as Prompt[] }));
  if (sets.length === 0) throw new LongcatError("PROMPT_INVALID", "data: there is no data set; give at least one text");
  const empty = sets.find(({ prompts }) => prompts.length === 0);
  if (empty) throw new LongcatError("PROMPT_INVALID", `data[${JSON.stringify(empty.name)}]: there is no text in it`);
  return sets;
}

/** Texts as ids, cut where they are longer than the context. */
async function encodeSet({ name, prompts }: GivenSet, { text, info }: LoadedParts, signal: AbortSignal | undefined): Promise<EncodedSet> {
  const anyLength = Number.MAX_SAFE_INTEGER;
  const limits = { vocabulary: info.vocabularySize, modelContext: anyLength, contextLength: anyLength };
  const pieces: (readonly number[])[] = [];
  for (const [i, prompt] of prompts.entries()) {
    throwIfAborted(signal);
    const { ids } = await encodePrompt(prompt, { parseSpecial: false }, limits, text).catch((cause: unknown) => {
      if (!(cause instanceof LongcatError)) throw cause;
      throw new LongcatError(cause.code, `data[${JSON.stringify(name)}][${i}]: ${cause.message}`, { cause });
    });
    for (let first = 0; first < ids.length; first += info.contextLength) pieces.push(ids.slice(first, first + info.contextLength));
  }
  return { name, texts: prompts.length, pieces };
}

/** Runs one data set. `count` is told of tokens that are done. */
async function routeSet(
  { name, texts, pieces }: EncodedSet,
  { runner, info, text }: LoadedParts,
  keep: number,
  count: (rows: number) => void,
): Promise<DataRouting> {
  const tally = new RoutingTally(info);
  const kept: number[][] = [];
  for await (const rows of routeTexts(runner, pieces)) {
    const counts = tally.add(rows);
    kept.push(...counts.slice(0, keep - kept.length));
    count(rows.rows);
  }
  return {
    ...{ name, texts, pieces: pieces.length, tokens: tally.tokens },
    ...{ ...tally.use(), layers: tally.layers(), kept: tokensOf(pieces, kept, text) },
  };
}

/** The tokens of the first pieces, as many as `counts` says something of. */
function tokensOf(pieces: readonly (readonly number[])[], counts: readonly number[][], text: TextTools | undefined): RoutedToken[][] {
  const known = new Set(text?.allowedIds);
  const kept: RoutedToken[][] = [];
  let next = 0;
  for (const piece of pieces) {
    if (next === counts.length) break;
    const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
    const tokens = piece.slice(0, counts.length - next).map((token) => {
      const bytes = text && known.has(token) ? text.tokenBytes(token) : new Uint8Array(0);
      const special = text?.isSpecial(token) ?? false;
      return { token, text: utf8.decode(bytes, { stream: true }), bytes: [...bytes], special, ffnExperts: counts[next++]! };
    });
    kept.push(tokens);
  }
  return kept;
}

function factsOf(info: EngineInfo): Omit<RoutingAnalysis, "data"> {
  const { directory, modelType, numLayers, numExperts, numZeroExperts, topK, contextLength, device } = info;
  const evenFfnExperts = (topK * numExperts) / (numExperts + numZeroExperts);
  return { directory, modelType, numLayers, numExperts, numZeroExperts, topK, contextLength, device, evenFfnExperts };
}

function lengthOf(pieces: readonly (readonly number[])[]): number {
  return pieces.reduce((sum, { length }) => sum + length, 0);
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new LongcatError("ABORTED", "the inspection was aborted", { cause: signal.reason });
}
