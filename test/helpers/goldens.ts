/**
 * Comparing a runner with recorded values of an independent implementation, under the rules of docs/numerics.md, 6.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Runner } from "../../ts/model/runner.js";
import type { StepResult } from "../../ts/model/runner-types.js";
import { type Trace, trace } from "../../ts/model/trace.js";
import { readSafetensors, valuesOf } from "./safetensors.js";

/** A recorded case: greedy continuation and the gap between its two best logits at each step. */
export interface GoldenCase {
  prompt_ids: number[];
  greedy_ids: number[];
  margins: number[];
}

/** Recorded values of one prompt, row-major. */
export interface GoldenTrace {
  tokens: number[];
  logits: Float32Array;
  layers: { hidden: Float32Array; ids: Int32Array; weights: Float32Array; gap: Float32Array }[];
  draftLogits: Float32Array | null;
}

export function goldenCases(dir: string): GoldenCase[] {
  return (JSON.parse(readFileSync(join(dir, "goldens.json"), "utf8")) as { cases: GoldenCase[] }).cases;
}

/** The traces that goldens.safetensors holds, by case. */
export function goldenTraces(dir: string, sizes: { numLayers: number; vocabulary: number }): GoldenTrace[] {
  const tensors = readSafetensors(join(dir, "goldens.safetensors"));
  const floats = (name: string) => valuesOf(tensors.get(name)!) as Float32Array;
  const cases = goldenCases(dir);
  return cases.flatMap((golden, c) => {
    if (!tensors.has(`case${c}.logits`)) return [];
    const logits = floats(`case${c}.logits`);
    const layers = Array.from({ length: sizes.numLayers }, (_, l) => l)
      .filter((l) => tensors.has(`case${c}.layer${l}.topk_ids`))
      .map((l) => ({
        hidden: tensors.has(`case${c}.layer${l}.hidden`) ? floats(`case${c}.layer${l}.hidden`) : new Float32Array(0),
        ids: valuesOf(tensors.get(`case${c}.layer${l}.topk_ids`)!) as Int32Array,
        weights: floats(`case${c}.layer${l}.topk_weights`),
        gap: floats(`case${c}.layer${l}.topk_gap`),
      }));
    const draft = tensors.has(`case${c}.mtp_logits`) ? floats(`case${c}.mtp_logits`) : null;
    return [{ tokens: golden.prompt_ids.slice(0, logits.length / sizes.vocabulary), logits, layers, draftLogits: draft }];
  });
}

/** How far a trace is from a golden one, over the positions that may be compared. */
export interface Distance {
  positions: number;
  compared: number;
  maxLogit: number;
  meanLogit: number;
  maxHiddenRelative: number;
  maxWeight: number;
  maxDraftLogit: number;
  /** Routings that differ although the recorded gap exceeds 1e-5. */
  wrongRoutings: number;
}

/** Compares position by position, as long as all routed ids so far agree. */
export function distance(got: Trace, want: GoldenTrace): Distance {
  const T = want.tokens.length;
  const V = want.logits.length / T;
  const d: Distance = {
    ...{ positions: T, compared: 0, maxLogit: 0, meanLogit: 0, maxHiddenRelative: 0, maxWeight: 0, maxDraftLogit: 0, wrongRoutings: 0 },
  };
  let sum = 0;
  for (let t = 0; t < T; t++) {
    if (!compareRoutings(got, want, t, d)) break;
    d.compared++;
    for (let v = 0; v < V; v++) {
      const off = Math.abs(got.logits[t * V + v]! - want.logits[t * V + v]!);
      sum += off;
      d.maxLogit = Math.max(d.maxLogit, off);
    }
    if (want.draftLogits && got.draftLogits && t < T - 1) {
      for (let v = 0; v < V; v++) {
        d.maxDraftLogit = Math.max(d.maxDraftLogit, Math.abs(got.draftLogits[t * V + v]! - want.draftLogits[t * V + v]!));
      }
    }
  }
  d.meanLogit = sum / Math.max(d.compared * V, 1);
  return d;
}

/** One position's routing and hidden states in every layer; false where a tie fell the other way. */
function compareRoutings(got: Trace, want: GoldenTrace, t: number, d: Distance): boolean {
  const T = want.tokens.length;
  for (const [l, layer] of want.layers.entries()) {
    const K = layer.ids.length / T;
    const routing = got.routing[l]!;
    for (let k = 0; k < K; k++) {
      if (routing.ids[t * K + k] !== layer.ids[t * K + k]) {
        if (layer.gap[t]! > 1e-5) d.wrongRoutings++;
        return false;
      }
      d.maxWeight = Math.max(d.maxWeight, Math.abs(routing.weights[t * K + k]! - layer.weights[t * K + k]!));
    }
    const D = layer.hidden.length / T;
    let off = 0;
    let norm = 0;
    for (let i = t * D; i < (t + 1) * D; i++) {
      off += (got.hidden[l]![i]! - layer.hidden[i]!) ** 2;
      norm += layer.hidden[i]! ** 2;
    }
    if (D > 0) d.maxHiddenRelative = Math.max(d.maxHiddenRelative, Math.sqrt(off / norm));
  }
  return true;
}

/** Traces of all recorded prompts against the recording, worst distances together. */
export async function worstDistance(runner: Runner, dir: string): Promise<Distance> {
  const goldens = goldenTraces(dir, { numLayers: runner.limits.numLayers, vocabulary: runner.limits.vocabulary });
  const all: Distance[] = [];
  for (const golden of goldens) all.push(distance(await trace(runner, golden.tokens), golden));
  const max = (key: keyof Distance) => Math.max(...all.map((d) => d[key]));
  const total = (key: keyof Distance) => all.reduce((sum, d) => sum + d[key], 0);
  return {
    ...{ positions: total("positions"), compared: total("compared"), wrongRoutings: total("wrongRoutings") },
    ...{ maxLogit: max("maxLogit"), meanLogit: max("meanLogit"), maxHiddenRelative: max("maxHiddenRelative") },
    ...{ maxWeight: max("maxWeight"), maxDraftLogit: max("maxDraftLogit") },
  };
}

/** How far logits are from the recorded ones, over every position, whatever the routing. */
export async function logitNoise(runner: Runner, dir: string): Promise<{ positions: number; max: number; mean: number }> {
  const { numLayers, vocabulary } = runner.limits;
  let [positions, max, sum] = [0, 0, 0];
  for (const { tokens, logits } of goldenTraces(dir, { numLayers, vocabulary })) {
    const got = (await trace(runner, tokens)).logits;
    positions += tokens.length;
    logits.forEach((want, i) => {
      const off = Math.abs(got[i]! - want);
      sum += off;
      // Not Math.max: NaN must be the answer if one is met.
      if (!(off <= max)) max = off;
    });
  }
  return { positions, max, mean: sum / (positions * vocabulary) };
}

/** Greedy tokens of one prompt, step by step, in a slot and blocks of its own; `cut`: the prompt's chunk lengths. */
export async function greedy(
  runner: Runner,
  prompt: readonly number[],
  count: number,
  options: { slot?: number; firstBlock?: number; chunk?: number; logprobs?: number } = {},
): Promise<StepResult[]> {
  const { slot = 0, firstBlock = 0, chunk = runner.limits.maxBatchTokens, logprobs = -1 } = options;
  takeSlot(runner, slot, firstBlock, prompt.length + count, logprobs);
  const results: StepResult[] = [];
  for (let at = 0; at < prompt.length; at += chunk) {
    const tokens = prompt.slice(at, at + chunk);
    const last = at + tokens.length === prompt.length;
    const [result] = await runner.step([{ slot, position: at, tokens, sample: last }]);
    if (last) results.push(result!);
  }
  while (results.length < count) {
    const position = prompt.length + results.length - 1;
    const [result] = await runner.step([{ slot, position, tokens: null, sample: true }]);
    results.push(result!);
  }
  return results;
}

/** Gives a slot consecutive blocks for `length` tokens, and greedy sampling. */
export function takeSlot(runner: Runner, slot: number, firstBlock: number, length: number, logprobs = -1): void {
  const count = Math.ceil(length / runner.limits.blockSize);
  runner.setBlocks(
    slot,
    0,
    Array.from({ length: count }, (_, i) => firstBlock + i),
  );
  runner.setSampling(slot, {
    ...{ temperature: 0, topP: 1, topK: 0, minP: 0, repetitionPenalty: 1, presencePenalty: 0, frequencyPenalty: 0 },
    ...{ seed: 0, logprobs, logitBias: new Map(), promptTokens: [] },
  });
}

/** How many greedy tokens must agree: those before the first step whose margin is under `bound`. */
export function comparable(golden: GoldenCase, bound = 1e-3): number {
  const at = golden.margins.findIndex((margin) => margin < bound);
  return at < 0 ? golden.greedy_ids.length : at;
}
