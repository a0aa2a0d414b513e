/** Groups of CPU ranks for tests: small, one thread each. Their processes run what is built in dist. */
import { afterEach } from "vitest";
import { type EngineOptions, resolveOptions } from "../../ts/engine/options.js";
import type { Chunk, GenerateResult } from "../../ts/engine/types.js";
import { type GroupOptions, type RankGroup, type RemoteCall, startGroup } from "../../ts/parallel/group.js";
import { type ModelName, modelPath } from "../helpers/paths.js";

export const SMALL: EngineOptions = { device: "cpu", threads: 1, maxBatchTokens: 128, maxSequences: 8, cacheBytes: 16e6 };

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
): Promise<RankGroup> {
  const resolved = resolveOptions({ ...SMALL, ...options, parallel: { expert: ranks, ...options.parallel } });
  const started = await startGroup({ directory: modelPath(model), options: resolved, ...more });
  open.push(started);
  return started;
}

/** An answer that takes a while, on a rank; `started` resolves with its first piece. */
export function longAnswer(
  on: RankGroup,
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
