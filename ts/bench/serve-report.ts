/**
 * What a load showed: throughput, latencies, goodput.
 * @module
 */

import type { Measured } from "./serve-load.js";

/** Percentiles of a list of milliseconds; null where the list is empty. */
export interface Latency {
  count: number;
  mean: number | null;
  p50: number | null;
  p95: number | null;
  p99: number | null;
  max: number | null;
}

/** A request is good if its first text comes within `ttftMs` and its later tokens, on average, within `tpotMs` each. */
export interface GoodputLimits {
  ttftMs: number;
  tpotMs: number;
}

export interface LoadReport {
  requests: number;
  ok: number;
  refused: number;
  failed: number;
  /** The first few errors, told apart by their text. */
  errors: string[];
  wallS: number;
  requestsPerSecond: number;
  promptTokensPerSecond: number;
  outputTokensPerSecond: number;
  /** Share of the prompts' tokens that the server found in its prefix cache. */
  cachedShare: number;
  /** From sending to the first frame with text. */
  ttftMs: Latency;
  /** Between two frames with text, over all requests. */
  interTokenMs: Latency;
  /** Of each request: time after its first frame over its tokens after the first. */
  tpotMs: Latency;
  endToEndMs: Latency;
  limits: GoodputLimits;
  /** Good requests a second, and their share of all that arrived. */
  goodputPerSecond: number;
  goodShare: number;
  /** How late requests were sent. If this is large the load's own process was the bottleneck. */
  lateMs: Latency;
}

const MAX_ERRORS = 5;

/** The value below which a share of a sorted list lies: the nearest rank. */
export function percentile(sorted: readonly number[], share: number): number | null {
  if (sorted.length === 0) return null;
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(share * sorted.length) - 1))] as number;
}

export function latency(values: readonly number[]): Latency {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number) => percentile(sorted, share);
  const mean = sorted.length === 0 ? null : sorted.reduce((sum, value) => sum + value, 0) / sorted.length;
  return { count: sorted.length, mean, p50: at(0.5), p95: at(0.95), p99: at(0.99), max: at(1) };
}

/** Milliseconds to the first frame; undefined where none came. */
export const ttftOf = ({ frameMs, sentMs }: Measured): number | undefined => (frameMs[0] === undefined ? undefined : frameMs[0] - sentMs);

/** Milliseconds between frames. */
export const gapsOf = ({ frameMs }: Measured): number[] => frameMs.slice(1).map((at, i) => at - (frameMs[i] as number));

/** Milliseconds a token after the first; undefined where there was one token at most. */
export function tpotOf({ frameMs, completionTokens }: Measured): number | undefined {
  if (completionTokens < 2 || frameMs.length < 2) return undefined;
  return ((frameMs.at(-1) as number) - (frameMs[0] as number)) / (completionTokens - 1);
}

export function reportLoad(requests: readonly Measured[], wallS: number, limits: GoodputLimits): LoadReport {
  const ok = requests.filter(({ outcome }) => outcome === "ok");
  const sum = (value: (request: Measured) => number) => ok.reduce((total, request) => total + value(request), 0);
  const present = (value: (request: Measured) => number | undefined) => ok.map(value).filter((one) => one !== undefined);
  const promptTokens = sum((request) => request.promptTokens);
  const good = ok.filter((request) => (ttftOf(request) ?? 0) <= limits.ttftMs && (tpotOf(request) ?? 0) <= limits.tpotMs);
  return {
    requests: requests.length,
    ok: ok.length,
    refused: requests.filter(({ outcome }) => outcome === "refused").length,
    failed: requests.filter(({ outcome }) => outcome === "failed").length,
    errors: [...new Set(requests.flatMap(({ error }) => error ?? []))].slice(0, MAX_ERRORS),
    wallS,
    requestsPerSecond: ok.length / wallS,
    promptTokensPerSecond: promptTokens / wallS,
    outputTokensPerSecond: sum((request) => request.completionTokens) / wallS,
    cachedShare: promptTokens === 0 ? 0 : sum((request) => request.cachedTokens) / promptTokens,
    ttftMs: latency(present(ttftOf)),
    interTokenMs: latency(ok.flatMap(gapsOf)),
    tpotMs: latency(present(tpotOf)),
    endToEndMs: latency(ok.map(({ endMs, sentMs }) => endMs - sentMs)),
    limits,
    goodputPerSecond: good.length / wallS,
    goodShare: requests.length === 0 ? 0 : good.length / requests.length,
    lateMs: latency(requests.map(({ lateMs }) => lateMs)),
  };
}
