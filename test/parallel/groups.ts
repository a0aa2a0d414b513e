/** Groups of CPU ranks for tests: small, one thread each. Their processes run what is built in dist. */
import { afterEach } from "vitest";
import { type EngineOptions, resolveOptions } from "../../ts/engine/options.js";
import { encodePrompt, vocabularyFacts } from "../../ts/engine/prompt.js";
import { loadTextTools } from "../../ts/engine/text-tools.js";
import type { Chunk, GenerateResult, Prompt } from "../../ts/engine/types.js";
import { type GroupOptions, type RankFacts, type RankGroup, type RemoteCall, startGroup } from "../../ts/parallel/group.js";
import { type GenerateParams, resolveParameters } from "../../ts/sampling/parameters.js";
import { type ModelName, modelPath } from "../helpers/paths.js";

export const SMALL: EngineOptions = { device: "cpu", threads: 1, maxBatchTokens: 128, maxSequences: 8, cacheBytes: 16e6 };

/** A group that takes prompts and parameters as an engine does. */
export interface PromptGroup extends Omit<RankGroup, "generate"> {
  generate(rank: number, prompt: Prompt, params: GenerateParams, onChunk: (chunk: Chunk) => void): RemoteCall<GenerateResult>;
}

let open: RankGroup[] = [];
afterEach(async () => {
  await Promise.all(open.map((group) => group.close()));
  open = [];
});

/** Starts so many ranks over a model; they end with the test. */
export async function group(
  ranks: number,
  model: ModelName = "mini",
  options: EngineOptions = {},
  more: Partial<GroupOptions> = {},
): Promise<PromptGroup> {
  const resolved = resolveOptions({ ...SMALL, ...options, parallel: { expert: ranks, ...options.parallel } });
  const started = await startGroup({ directory: modelPath(model), options: resolved, ...more });
  open.push(started);
  return takesPrompts(started, modelPath(model));
}

async function takesPrompts(group: RankGroup, directory: string): Promise<PromptGroup> {
  const { info, modelContext, limits, defaults } = group.ranks[0] as RankFacts;
  const text = await loadTextTools(directory, info.vocabularySize);
  const facts = vocabularyFacts(info.vocabularySize, text);
  return {
    ...{ ranks: group.ranks, lost: group.lost },
    ...{ score: group.score.bind(group), stats: group.stats.bind(group), close: group.close.bind(group) },
    generate(rank, prompt, params, onChunk) {
      const { signal: _, responseFormat, ...parameters } = resolveParameters(params, facts, defaults);
      const read = { ...parameters, ...(responseFormat && { responseFormat }) };
      const call = encodePrompt(prompt, read, { ...limits, modelContext }, text).then((encoded) =>
        group.generate(rank, encoded, parameters, onChunk),
      );
      const done = call.then(({ done }) => done);
      done.catch(() => undefined);
      return { done, abort: (message, cause) => void call.then((sent) => sent.abort(message, cause)) };
    },
  };
}

/** An answer that takes a while, on a rank; `started` resolves with its first piece. */
export function longAnswer(
  on: PromptGroup,
  rank: number,
  maxTokens = 400,
): RemoteCall<GenerateResult> & { started: Promise<Chunk>; chunks: Chunk[] } {
  const chunks: Chunk[] = [];
  let begin!: (chunk: Chunk) => void;
  const started = new Promise<Chunk>((resolve) => {
    begin = resolve;
  });
  const call = on.generate(rank, "Once upon a time", { maxTokens, temperature: 0, ignoreEos: true }, (chunk) => {
    chunks.push(chunk);
    begin(chunk);
  });
  return { ...call, started, chunks };
}
