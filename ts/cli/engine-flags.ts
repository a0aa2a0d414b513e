/**
 * Flags that say which checkpoint to load and how: shared by every command that runs a model.
 * @module
 */

import { MOST_DRAFTS } from "../engine/options.js";
import { Engine, type EngineOptions, type ParallelEngineOptions } from "../index.js";
import { type Flag, type ParsedFlags, parseNumber, UsageError } from "./flags.js";
import { interruptible, TERMINATED } from "./interrupt.js";
import { note } from "./output.js";
import { ProgressBar } from "./progress.js";

const MODEL_FLAG: Flag = { name: "model", kind: "text", value: "DIR", help: "checkpoint folder (default: the bundled mini)" };

export const SPECULATIVE_FLAG: Flag = {
  ...{ name: "speculative", kind: "text", value: "S" },
  help: `drafts of the draft head: auto (as many as pay), off, or 1 to ${MOST_DRAFTS}`,
};

export const EXCHANGE_FLAG: Flag = {
  ...{ name: "exchange", kind: "text", value: "X" },
  help: "how rows travel between ranks: auto, peer (memory that they share) or nccl",
};
export const DISPATCH_FLAG: Flag = {
  ...{ name: "dispatch-dtype", kind: "text", value: "T" },
  help: "what rows travel to experts as: auto (what activations are) or fp8",
};
export const PARALLEL_FLAGS: readonly Flag[] = [
  { name: "ranks", kind: "number", value: "R", help: "expert parallelism: number of ranks, each with a device of its own (default 1)" },
  ...[EXCHANGE_FLAG, DISPATCH_FLAG],
];
const TIMEOUT_FLAGS: readonly Flag[] = [
  { name: "join-timeout", kind: "number", value: "S", help: "seconds for ranks to connect (default: 60, on several hosts 600)" },
  { name: "rank-timeout", kind: "number", value: "S", help: "seconds to wait for a rank in a step (default: 30, on CPUs 300)" },
];

export const ENGINE_FLAGS: readonly Flag[] = [
  MODEL_FLAG,
  { name: "device", kind: "text", value: "D", help: "auto (the first GPU, else the CPU), cpu, cuda or cuda:N" },
  { name: "dtype", kind: "text", value: "T", help: "weights: auto (as stored), bfloat16 or float32" },
  { name: "threads", kind: "text", value: "N", help: "CPU threads, or auto: what affinity and container quota allow" },
  ...[...PARALLEL_FLAGS, ...TIMEOUT_FLAGS, SPECULATIVE_FLAG],
  { name: "no-batch-invariant", kind: "flag", help: "permit results that depend on the batch" },
  { name: "no-prefix-cache", kind: "flag", help: "do not reuse cached prompts" },
  { name: "cache-bytes", kind: "text", value: "B", help: "memory of the latent cache in bytes, of each rank, or auto" },
  { name: "cache-dtype", kind: "text", value: "T", help: "what the latent cache holds: auto (what activations are) or fp8" },
  { name: "max-sequences", kind: "number", value: "N", help: "most sequences that run at once, on each rank" },
  { name: "max-batch-tokens", kind: "number", value: "N", help: "most tokens in one step, of each rank" },
  { name: "allow-unknown-tensors", kind: "flag", help: "load a checkpoint that holds tensors unknown to this version" },
  { name: "debug", kind: "text", value: "D", help: "off, sync (check after each operation) or poison" },
  { name: "ngram", kind: "text", value: "N", help: "n-gram tables: auto, host or device" },
  { name: "fp8-activations", kind: "flag", help: "GPU, FP8 weights: quantise the inputs of their products too" },
];

/** Flags of the benches, which say themselves how many drafts there are, and look at a model in one process. */
export const BENCH_ENGINE_FLAGS = ENGINE_FLAGS.filter((flag) => ![...PARALLEL_FLAGS, ...TIMEOUT_FLAGS, SPECULATIVE_FLAG].includes(flag));

/** A number, or the word "auto". */
function autoOrNumber(flags: ParsedFlags, name: string): "auto" | number | undefined {
  const text = flags.text(name);
  if (text === undefined || text === "auto") return text;
  return parseNumber(`--${name}`, text);
}

/** Of a flag's seconds. */
function milliseconds(flags: ParsedFlags, name: string): number | undefined {
  const seconds = flags.number(name);
  return seconds && Math.round(seconds * 1000);
}

/** What the flags say of ranks; undefined: nothing. */
export function parallelOptions(flags: ParsedFlags): EngineOptions["parallel"] {
  const given = {
    expert: flags.number("ranks"),
    exchange: flags.text("exchange") as ParallelEngineOptions["exchange"],
    dispatchDType: flags.text("dispatch-dtype") as ParallelEngineOptions["dispatchDType"],
    joinTimeoutMs: milliseconds(flags, "join-timeout"),
    timeoutMs: milliseconds(flags, "rank-timeout"),
  };
  return Object.values(given).every((value) => value === undefined) ? undefined : given;
}

export function speculative(flags: ParsedFlags): EngineOptions["speculative"] {
  const text = flags.text("speculative");
  if (text === undefined || text === "auto" || text === "off") return text;
  const drafts = Number(text);
  if (!/^[1-9]\d*$/.test(text) || drafts > MOST_DRAFTS)
    throw new UsageError(`--speculative: ${JSON.stringify(text)} is not auto, off or a number of drafts from 1 to ${MOST_DRAFTS}`);
  return { drafts };
}

/** Every option that has a flag. One without its line below does not compile. */
type FlagOptions = { [K in keyof Required<Omit<EngineOptions, "signal" | "onProgress" | "onWarning">>]: EngineOptions[K] | undefined };

/** The engine's options as the flags give them; what was not given stays absent. Values are the engine's to check. */
export function engineOptions(flags: ParsedFlags): FlagOptions {
  return {
    device: flags.text("device") as EngineOptions["device"],
    dtype: flags.text("dtype") as EngineOptions["dtype"],
    threads: autoOrNumber(flags, "threads"),
    parallel: parallelOptions(flags),
    speculative: speculative(flags),
    batchInvariant: flags.on("no-batch-invariant") ? false : undefined,
    prefixCache: flags.on("no-prefix-cache") ? false : undefined,
    cacheBytes: autoOrNumber(flags, "cache-bytes"),
    cacheDType: flags.text("cache-dtype") as EngineOptions["cacheDType"],
    maxSequences: flags.number("max-sequences"),
    maxBatchTokens: flags.number("max-batch-tokens"),
    allowUnknownTensors: flags.on("allow-unknown-tensors") ? true : undefined,
    debug: flags.text("debug") as EngineOptions["debug"],
    ngram: flags.text("ngram") as EngineOptions["ngram"],
    fp8Activations: flags.on("fp8-activations") ? true : undefined,
  };
}

/** Loads the checkpoint with a progress bar and warnings on standard error. */
export async function loadEngine(flags: ParsedFlags, signal?: AbortSignal): Promise<Engine> {
  const options = engineOptions(flags);
  const bar = new ProgressBar("Loading");
  try {
    return await Engine.load(flags.text("model"), {
      ...options,
      signal,
      onProgress: ({ doneBytes, totalBytes }) => bar.update(totalBytes === 0 ? 1 : doneBytes / totalBytes),
      onWarning: (message) => {
        bar.end();
        note(`warning: ${message}`);
      },
    });
  } finally {
    bar.end();
  }
}

/**
 * Runs a command whose engine answers its calls. In a process that a launcher started beside that of rank 0 works for rank 0 instead, until that ends:
 * no prompt is read, no request answered, nothing printed.
 */
export async function leading(flags: ParsedFlags, run: () => Promise<number | undefined>): Promise<number | undefined> {
  if (!Engine.wouldFollow(engineOptions(flags))) return run();
  const engine = await interruptible((signal) => loadEngine(flags, signal));
  try {
    const { rank, expert } = engine.info.parallel;
    note(`rank ${rank} of ${expert} works for rank 0 until that ends`);
    outlastTermination();
    await interruptible(() => engine.ended);
  } finally {
    await engine.close();
  }
  return undefined;
}

/** Who ends all processes of a group at once ends rank 0 too, which may have answers under way, and then ends this one. A second signal ends it now. */
function outlastTermination(): void {
  process.once("SIGTERM", () => {
    note("rank 0 ends this process when its answers under way have ended; a second signal exits at once");
    process.once("SIGTERM", () => process.exit(TERMINATED));
  });
}
