/**
 * An open-loop load: requests are sent when they arrive, whether or not the server has answered the ones before.
 * @module
 */

import { setMaxListeners } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import type { CompletionClient, CompletionOutcome } from "./completion-client.js";
import { exponential, type Lengths, seededRandom } from "./random.js";

/** What the load is. */
export interface LoadPlan {
  /** Requests a second, on average. */
  rate: number;
  /** Seconds in which requests arrive; those under way are waited for. */
  durationS: number;
  promptTokens: Lengths;
  outputTokens: Lengths;
  /** Tokens that all prompts begin with, in front of the drawn ones. */
  sharedPrefix: number;
  seed: number;
  model: string;
  ignoreEos: boolean;
  /** Seconds after which a request counts as failed. */
  timeoutS: number;
}

/** One request that was drawn: when it arrives (seconds from the start), what it asks. */
export interface Arrival {
  atS: number;
  prompt: number[];
  outputTokens: number;
}

/** What became of one request; its arrival beside it. */
export interface Measured extends CompletionOutcome {
  atS: number;
  /** How late it was sent, in milliseconds: the load's own fault. */
  lateMs: number;
  /** The length that was asked for. */
  askedTokens: number;
}

/** Token ids of prompts: low ones, which every tokenizer has as ordinary tokens. */
const [FIRST_ID, NUM_IDS] = [100, 900];

/** All requests of a load, drawn before it begins. The same plan gives the same requests. */
export function drawArrivals(
  plan: Pick<LoadPlan, "rate" | "durationS" | "promptTokens" | "outputTokens" | "sharedPrefix" | "seed">,
): Arrival[] {
  const random = seededRandom(plan.seed);
  const ids = (count: number) => Array.from({ length: count }, () => FIRST_ID + Math.floor(random() * NUM_IDS));
  const prefix = ids(plan.sharedPrefix);
  const arrivals: Arrival[] = [];
  for (let atS = exponential(plan.rate, random); atS < plan.durationS; atS += exponential(plan.rate, random)) {
    const prompt = [...prefix, ...ids(plan.promptTokens.draw(random))];
    arrivals.push({ atS, prompt, outputTokens: plan.outputTokens.draw(random) });
  }
  return arrivals;
}

/** Sends a load and waits for every request to end. */
export async function runLoad(
  client: CompletionClient,
  plan: LoadPlan,
  signal: AbortSignal,
): Promise<{ requests: Measured[]; wallS: number }> {
  setMaxListeners(0, signal); // each request under way listens: that is no leak
  const under: Promise<Measured>[] = [];
  const startMs = performance.now();
  for (const arrival of drawArrivals(plan)) {
    const waitMs = startMs + 1000 * arrival.atS - performance.now();
    if (waitMs > 0) await sleep(waitMs, undefined, { signal });
    under.push(send(client, plan, arrival, startMs, signal));
  }
  const requests = await Promise.all(under);
  return { requests, wallS: (performance.now() - startMs) / 1000 };
}

async function send(client: CompletionClient, plan: LoadPlan, arrival: Arrival, startMs: number, signal: AbortSignal): Promise<Measured> {
  const { atS, prompt, outputTokens } = arrival;
  const ended = new AbortController();
  const end = () => ended.abort();
  const timer = setTimeout(end, 1000 * plan.timeoutS);
  signal.addEventListener("abort", end, { once: true });
  const asked = { model: plan.model, prompt, maxTokens: outputTokens, ignoreEos: plan.ignoreEos };
  const outcome = await client.complete(asked, ended.signal);
  clearTimeout(timer);
  signal.removeEventListener("abort", end);
  return { ...outcome, atS, lateMs: outcome.sentMs - startMs - 1000 * atS, askedTokens: outputTokens };
}
