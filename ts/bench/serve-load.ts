/**
 * A load. Open loop: requests are sent when they arrive, whether or not the server has answered the ones before. Closed loop: so many at a time.
 * @module
 */

import { setMaxListeners } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import type { CompletionClient, CompletionOutcome } from "./completion-client.js";
import { exponential, type Lengths, seededRandom } from "./random.js";

/** What the load is. */
export interface LoadPlan {
  /** Requests a second, on average; not used with `concurrency`. */
  rate: number;
  /** So many requests at a time, each sent when one before it has ended: a closed loop. Absent: open loop. */
  concurrency?: number;
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

/** What requests are drawn from. */
type Drawn = Pick<LoadPlan, "rate" | "durationS" | "promptTokens" | "outputTokens" | "sharedPrefix" | "seed">;

/** All requests of an open loop, drawn before it begins. The same plan gives the same requests. */
export function drawArrivals(plan: Drawn): Arrival[] {
  const random = seededRandom(plan.seed);
  const draw = requestMaker(plan, random);
  const arrivals: Arrival[] = [];
  for (let atS = exponential(plan.rate, random); atS < plan.durationS; atS += exponential(plan.rate, random))
    arrivals.push({ atS, ...draw() });
  return arrivals;
}

/** Draws one request after the other, all behind one prefix. */
function requestMaker({ promptTokens, outputTokens, sharedPrefix }: Drawn, random: () => number): () => Omit<Arrival, "atS"> {
  const ids = (count: number) => Array.from({ length: count }, () => FIRST_ID + Math.floor(random() * NUM_IDS));
  const prefix = ids(sharedPrefix);
  return () => ({ prompt: [...prefix, ...ids(promptTokens.draw(random))], outputTokens: outputTokens.draw(random) });
}

/** Sends a load and waits for every request to end. */
export async function runLoad(
  client: CompletionClient,
  plan: LoadPlan,
  signal: AbortSignal,
): Promise<{ requests: Measured[]; wallS: number }> {
  setMaxListeners(0, signal); // each request under way listens: that is no leak
  const startMs = performance.now();
  const requests = await (plan.concurrency === undefined ? openLoop : closedLoop)(client, plan, startMs, signal);
  return { requests, wallS: (performance.now() - startMs) / 1000 };
}

type Loop = (client: CompletionClient, plan: LoadPlan, startMs: number, signal: AbortSignal) => Promise<Measured[]>;

const openLoop: Loop = async (client, plan, startMs, signal) => {
  const under: Promise<Measured>[] = [];
  for (const arrival of drawArrivals(plan)) {
    const waitMs = startMs + 1000 * arrival.atS - performance.now();
    if (waitMs > 0) await sleep(waitMs, undefined, { signal });
    under.push(send(client, plan, arrival, startMs, signal));
  }
  return Promise.all(under);
};

const closedLoop: Loop = async (client, plan, startMs, signal) => {
  const draw = requestMaker(plan, seededRandom(plan.seed));
  const requests: Measured[] = [];
  const nowS = () => (performance.now() - startMs) / 1000;
  const worker = async () => {
    while (nowS() < plan.durationS && !signal.aborted) requests.push(await send(client, plan, { atS: nowS(), ...draw() }, startMs, signal));
  };
  await Promise.all(Array.from({ length: plan.concurrency ?? 1 }, worker));
  return requests;
};

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
  // A timer may come a fraction of a millisecond early: that is not late.
  return { ...outcome, atS, lateMs: Math.max(0, outcome.sentMs - startMs - 1000 * atS), askedTokens: outputTokens };
}
