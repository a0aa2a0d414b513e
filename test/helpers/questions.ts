/**
 * The bundled checkpoint's recorded cases as prompts, and questions whose greedy answers are certain (margins above 6).
 */
import type { Chunk, Prompt, TokenLogprob } from "../../ts/engine/types.js";
import type { GenerateParams } from "../../ts/sampling/parameters.js";
import { type GoldenCase, goldenCases } from "./goldens.js";
import { ROOT } from "./paths.js";

/** A recorded case with what made its prompt. */
export interface MiniCase extends GoldenCase {
  messages?: unknown;
  tools?: unknown;
  enable_thinking?: boolean;
  prompt?: string;
}

export const GOLDENS = goldenCases(`${ROOT}/test/fixtures/mini`) as MiniCase[];
export const golden = (index: number): MiniCase => GOLDENS[index] as MiniCase;

/** One user message. */
export const user = (content: string) => ({ messages: [{ role: "user" as const, content }] });
/** 16 prompt tokens; "136". */
export const SUM = user("Compute 56 + 80.");
/** 17 prompt tokens; "coin, pear, shell.", seven tokens with the end token. */
export const SORT = user("Sort these words: coin, shell, pear.");
/** 24 prompt tokens; reasons, then "1783". */
export const THINK = { ...user("What is 879 + 904?"), enableThinking: true };
export const GREEDY: GenerateParams = { temperature: 0 };

/** A golden case as a prompt. */
export function promptOf({ messages, tools, enable_thinking, prompt }: MiniCase): Prompt {
  if (prompt !== undefined) return prompt;
  return { messages, ...(tools !== undefined && { tools }), ...(enable_thinking && { enableThinking: true }) } as Prompt;
}

/** A prompt of `length` ids that exist, different for each seed. */
export const ids = (length: number, seed = 0) => ({
  tokens: Array.from({ length }, (_, i) => 12 + ((i * 7919 + seed * 104729) % 300)),
});

/** What two runs must have alike to be the same bits. */
export const bits = (entries: TokenLogprob[] | undefined) =>
  entries?.map(({ token, logprob, top }) => [token, logprob, ...top.map((t) => t.logprob)]);

export async function collect(stream: AsyncIterable<Chunk>): Promise<Chunk[]> {
  const chunks: Chunk[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}
