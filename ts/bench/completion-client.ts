/**
 * One streamed completion of any OpenAI-compatible server, with the times at which its pieces came.
 * @module
 */

import { Agent, type IncomingMessage, request } from "node:http";
import type { LoopbackTarget } from "./loopback.js";

/** What is asked: token ids in, `maxTokens` out. */
export interface CompletionRequest {
  model: string;
  prompt: readonly number[];
  maxTokens: number;
  /** Ask to run on over end tokens, so that answers have the length that was drawn (a field of vLLM's and ours). */
  ignoreEos: boolean;
}

/** What became of it. Times are milliseconds of `performance.now()`. */
export interface CompletionOutcome {
  /** 200 and a whole stream; "refused" is 429 or 503: the server said that it has no room. */
  outcome: "ok" | "refused" | "failed";
  sentMs: number;
  /** When each frame with text came. */
  frameMs: number[];
  endMs: number;
  promptTokens: number;
  cachedTokens: number;
  completionTokens: number;
  /** Of what was not ok. */
  error?: string;
}

/** Longest line of a stream and longest error that is read. */
const MAX_TEXT = 1 << 20;

interface Frame {
  choices?: { text?: string }[];
  usage?: { prompt_tokens?: number; completion_tokens?: number; prompt_tokens_details?: { cached_tokens?: number } | null } | null;
  error?: { message?: string };
}

/** The server answered 401: it wants a key, or another one. */
export class KeyWanted extends Error {}

/** Connections to one server, kept open between requests. */
export class CompletionClient {
  readonly #target: LoopbackTarget;
  readonly #headers: Record<string, string>;
  readonly #agent = new Agent({ keepAlive: true });

  constructor(target: LoopbackTarget, apiKey?: string) {
    this.#target = target;
    this.#headers = { "content-type": "application/json", ...(apiKey !== undefined && { authorization: `Bearer ${apiKey}` }) };
  }

  /** The first model that the server names. */
  async model(): Promise<string> {
    const response = await this.#send("GET", "/v1/models", undefined, AbortSignal.timeout(10_000));
    const text = await readAll(response);
    if (response.statusCode === 401) throw new KeyWanted(`/v1/models answered 401: ${text.slice(0, 200)}`);
    if (response.statusCode !== 200) throw new Error(`/v1/models answered ${response.statusCode}: ${text.slice(0, 200)}`);
    const id = (JSON.parse(text) as { data?: { id?: unknown }[] }).data?.[0]?.id;
    if (typeof id !== "string") throw new Error("/v1/models names no model");
    return id;
  }

  /** Never throws: what goes wrong is the outcome. */
  async complete(asked: CompletionRequest, signal: AbortSignal): Promise<CompletionOutcome> {
    const outcome: CompletionOutcome = {
      ...{
        outcome: "failed",
        sentMs: performance.now(),
        frameMs: [],
        endMs: 0,
        promptTokens: 0,
        cachedTokens: 0,
        completionTokens: 0,
      },
    };
    const { model, prompt, maxTokens, ignoreEos } = asked;
    const body = JSON.stringify({
      ...{ model, prompt, max_tokens: maxTokens, temperature: 0, stream: true, stream_options: { include_usage: true } },
      ...(ignoreEos && { ignore_eos: true }),
    });
    try {
      const response = await this.#send("POST", "/v1/completions", body, signal);
      if (response.statusCode === 200) await readStream(response, outcome);
      else {
        outcome.outcome = response.statusCode === 429 || response.statusCode === 503 ? "refused" : "failed";
        outcome.error = `${response.statusCode}: ${(await readAll(response)).slice(0, 300)}`;
      }
    } catch (error) {
      outcome.outcome = "failed";
      outcome.error = (error as Error).message;
    }
    outcome.endMs = performance.now();
    return outcome;
  }

  close(): void {
    this.#agent.destroy();
  }

  #send(method: string, path: string, body: string | undefined, signal: AbortSignal): Promise<IncomingMessage> {
    const { address, port, prefix, url } = this.#target;
    return new Promise((resolve, reject) => {
      const sent = request(
        {
          ...{ host: address, port, method, path: prefix + path, agent: this.#agent, signal },
          headers: { ...this.#headers, host: new URL(url).host, ...(body !== undefined && { "content-length": Buffer.byteLength(body) }) },
        },
        resolve,
      );
      sent.on("error", reject);
      sent.end(body);
    });
  }
}

async function readAll(response: IncomingMessage): Promise<string> {
  let text = "";
  for await (const piece of response.setEncoding("utf8") as AsyncIterable<string>) if (text.length < MAX_TEXT) text += piece;
  return text;
}

/** Takes in a stream; ok only if it ends as a stream should. */
async function readStream(response: IncomingMessage, outcome: CompletionOutcome): Promise<void> {
  let [rest, done] = ["", false];
  for await (const piece of response.setEncoding("utf8") as AsyncIterable<string>) {
    const now = performance.now();
    const lines = (rest + piece).split("\n");
    rest = lines.pop() ?? "";
    if (rest.length > MAX_TEXT) throw new Error(`a line of the stream has more than ${MAX_TEXT} characters`);
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") done = true;
      else takeFrame(JSON.parse(data) as Frame, outcome, now);
    }
  }
  if (!done) throw new Error("the stream ended without [DONE]");
  outcome.outcome = "ok";
}

function takeFrame({ choices, usage, error }: Frame, outcome: CompletionOutcome, now: number): void {
  if (error !== undefined) throw new Error(`in mid-stream: ${error.message}`);
  if ((choices?.[0]?.text ?? "") !== "") outcome.frameMs.push(now);
  if (!usage) return;
  outcome.promptTokens = usage.prompt_tokens ?? 0;
  outcome.completionTokens = usage.completion_tokens ?? 0;
  outcome.cachedTokens = usage.prompt_tokens_details?.cached_tokens ?? 0;
}
