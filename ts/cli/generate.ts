/**
 * `longcat generate`: continues a text or answers chat messages, streaming to standard output.
 * @module
 */

import type { Chunk, Engine, EngineStats, GenerateParams, GenerateResult, Prompt } from "../index.js";
import { type Command, JSON_FLAG } from "./command.js";
import { ENGINE_FLAGS, leading, loadEngine } from "./engine-flags.js";
import { type ParsedFlags, UsageError } from "./flags.js";
import { interruptible } from "./interrupt.js";
import { note, print, printJson, styled } from "./output.js";
import { generateParams, PARAMETER_FLAGS } from "./parameter-flags.js";
import { PROMPT_FLAGS, readPrompt } from "./prompt-flags.js";
import { ReplyWriter } from "./reply-writer.js";

export const generateCommand: Command = {
  usage: ["generate PROMPT [flags]", "generate - < FILE", "generate --messages FILE.json", "generate --tokens 1,2,3"],
  about:
    "Generates text and streams it to standard output; reasoning goes to standard error, and so do figures where that is a terminal. PROMPT is\n" +
    'raw text: special tokens in it are plain text unless --parse-special; one that begins with "-" goes behind --. A checkpoint without a\n' +
    "tokenizer takes --tokens and gives token ids. With --json nothing is streamed and the whole result is one JSON document.",
  flags: [...PROMPT_FLAGS, ...PARAMETER_FLAGS, ...ENGINE_FLAGS, JSON_FLAG],
  maxPositionals: 1,
  run: (flags) =>
    leading(flags, async () => {
      const params = generateParams(flags);
      if (params.logprobs !== undefined && !flags.on("json")) throw new UsageError("--logprobs needs --json: a text has no place for them");
      const prompt = await readPrompt(flags);
      await interruptible(async (signal) => {
        const engine = await loadEngine(flags, signal);
        try {
          await generate(engine, prompt, { ...params, signal }, flags);
        } finally {
          await engine.close();
        }
      });
      return undefined;
    }),
};

async function generate(engine: Engine, prompt: Prompt, params: GenerateParams, flags: ParsedFlags): Promise<void> {
  if (flags.on("json")) return printJson(await engine.generate(prompt, params));
  const { hasTokenizer } = engine.info;
  const start = performance.now();
  if ((params.n ?? 1) !== 1) await printChoices(await engine.generate(prompt, params), hasTokenizer);
  else await streamReply(engine, prompt, params);
  if (process.stderr.isTTY) note(styled(process.stderr, "dim", figures(engine.stats, (performance.now() - start) / 1000)));
  if (!hasTokenizer) note("this checkpoint has no tokenizer: these are the generated token ids");
}

async function streamReply(engine: Engine, prompt: Prompt, params: GenerateParams): Promise<void> {
  const writer = engine.info.hasTokenizer ? new ReplyWriter() : new IdWriter();
  try {
    for await (const chunk of engine.stream(prompt, params)) await writer.write(chunk);
  } finally {
    await writer.end();
  }
}

/** What an engine did in all, which is one call: tokens, their speed, and what became of drafts. */
export function figures({ generatedTokens, speculation }: Pick<EngineStats, "generatedTokens" | "speculation">, seconds: number): string {
  const { draftTokens, acceptedTokens } = speculation;
  const drafts = draftTokens > 0 ? `, ${acceptedTokens} of ${draftTokens} drafts accepted` : "";
  return `${generatedTokens} tokens, ${(generatedTokens / seconds).toFixed(0)} tokens/s${drafts}`;
}

/** Several choices: one after another, each under its number. */
async function printChoices(result: GenerateResult, hasTokenizer: boolean): Promise<void> {
  for (const [index, choice] of (result.choices ?? [result]).entries()) {
    const writer = hasTokenizer ? new ReplyWriter() : new IdWriter();
    await print(`[${index}] `);
    await writer.write(choice);
    for (const [i, call] of (choice.toolCalls ?? []).entries())
      await writer.write({ text: "", tokens: [], toolCallDelta: { index: i, ...call } });
    await writer.end();
    const nothing = hasTokenizer ? choice.text === "" && choice.toolCalls === undefined : choice.tokens.length === 0;
    if (nothing) await print("\n");
  }
}

/** A reply without text: its token ids on one line. */
class IdWriter {
  #separator = "";

  async write({ tokens }: Pick<Chunk, "tokens">): Promise<void> {
    if (tokens.length === 0) return;
    await print(this.#separator + tokens.join(" "));
    this.#separator = " ";
  }

  async end(): Promise<void> {
    if (this.#separator !== "") await print("\n");
  }
}
