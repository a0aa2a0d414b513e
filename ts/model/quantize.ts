/**
 * `longcat quantize`: a block-FP8 copy of a checkpoint (docs/numerics.md, 7). Tensor by tensor: the largest one is what it needs in memory.
 * @module
 */

import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  realpathSync,
  renameSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname, join, resolve } from "node:path";

import { LongcatError } from "../errors.js";
import { quantizeFp8 } from "../runtime/files.js";
import { type Checkpoint, openCheckpoint, type StoredTensor } from "./checkpoint.js";
import { cut } from "./fields.js";
import { INDEX_NAME, kindOf, SINGLE_NAME } from "./files.js";
import { byAlignment, type PlannedTensor, SafetensorsWriter } from "./safetensors-writer.js";
import { FP8_BLOCK, scaleName, scaleShape, type TensorSpec } from "./tensor-names.js";

/** How to quantise. */
export interface QuantizeOptions {
  /** Tensors written so far, of how many. */
  onProgress?: (done: number, total: number) => void;
  onWarning?: (message: string) => void;
  /** Accept tensors that the model does not know; they are not copied. */
  allowUnknownTensors?: boolean;
  /** Stops between two tensors; nothing is left behind. */
  signal?: AbortSignal;
  /** Weights a file may hold before the next begins. Default 5 GB, as hubs have it. */
  maxFileBytes?: number;
}

const COPY_CHUNK_BYTES = 8 * 2 ** 20;
/** Small files that belong to a checkpoint and say nothing of weights. */
const COMPANIONS =
  /^(tokenizer|special_tokens_map|added_tokens|vocab|merges|chat_template|generation_config|README|LICENSE|NOTICE)|\.jinja$/;

/** A tensor of the model and what becomes of it: two planned tensors if quantised, else one. */
interface Job {
  source: StoredTensor;
  planned: PlannedTensor[];
  quantised: boolean;
}

/**
 * Writes the block-FP8 copy of checkpoint `input` to the new folder `output`: one file, or shards of `maxFileBytes` with an index.
 * The folder appears under its name when it is whole; on failure nothing is left.
 *
 * @throws LongcatError OPTION_INVALID (output exists and is not empty), CHECKPOINT_UNSUPPORTED (quantised already), and what opening throws
 */
export async function quantizeCheckpoint(input: string, output: string, options: QuantizeOptions = {}): Promise<void> {
  const target = requireNewFolder(input, output);
  const checkpoint = await openCheckpoint(input, options);
  const partial = `${target}.partial-${process.pid}`;
  try {
    if (checkpoint.config.quantization) {
      throw new LongcatError(
        "CHECKPOINT_UNSUPPORTED",
        `${cut(input)} is quantised already (quantization_config in config.json); a float32 or bfloat16 checkpoint is wanted`,
      );
    }
    makeFolder(partial);
    await writeWeights(checkpoint, partial, options);
    writeConfig(input, partial);
    for (const name of readdirSync(input)) {
      if (COMPANIONS.test(name) && kindOf(join(input, name)) === "file") copyFileSync(join(input, name), join(partial, name));
    }
    if (existsSync(target)) rmdirSync(target);
    renameSync(partial, target);
  } catch (error) {
    if (kindOf(partial) === "folder") rmSync(partial, { recursive: true, force: true });
    if (error instanceof LongcatError) throw error;
    if (options.signal?.aborted) throw new LongcatError("ABORTED", "quantising was stopped; nothing was written", { cause: error });
    throw new LongcatError("OPTION_INVALID", `cannot write ${cut(output)}: ${cut(String((error as Error).message), 120)}`, {
      cause: error,
    });
  } finally {
    checkpoint.close();
  }
}

/** Makes a folder and those above it, one at a time: Node's own recursion does not end where none can be made (below /proc). */
function makeFolder(path: string): void {
  const above = dirname(path);
  if (!existsSync(above)) makeFolder(above);
  mkdirSync(path);
}

/** The absolute path of a folder that is not there, or is empty. */
function requireNewFolder(input: string, output: string): string {
  const wanted = "a new or empty folder is wanted";
  if (typeof output !== "string" || output === "" || output.includes("\0"))
    throw new LongcatError("OPTION_INVALID", `the output folder is no path; ${wanted}`);
  const kind = kindOf(output);
  if (kind === "absent") return resolve(output);
  if (kind !== "folder") throw new LongcatError("OPTION_INVALID", `${cut(output)} is there and is no folder; ${wanted}`);
  const target = realpathSync(output);
  if (kindOf(input) === "folder" && realpathSync(input) === target)
    throw new LongcatError("OPTION_INVALID", `${cut(output)} is the checkpoint itself; ${wanted}`);
  if (readdirSync(output).length > 0) throw new LongcatError("OPTION_INVALID", `${cut(output)} is not empty; ${wanted}`);
  return target;
}

/** config.json with what readers of block FP8 look for. */
function writeConfig(input: string, folder: string): void {
  const config = JSON.parse(readFileSync(join(input, "config.json"), "utf8")) as Record<string, unknown>;
  config.quantization_config = {
    quant_method: "fp8",
    fmt: "e4m3",
    activation_scheme: "dynamic",
    weight_block_size: [FP8_BLOCK, FP8_BLOCK],
  };
  writeFileSync(join(folder, "config.json"), JSON.stringify(config, null, 2));
}

async function writeWeights(checkpoint: Checkpoint, folder: string, options: QuantizeOptions): Promise<void> {
  const jobs = checkpoint.specs.map((spec) => plan(checkpoint, spec)).sort((a, b) => byAlignment(a.planned[0]!, b.planned[0]!));
  const shards = split(jobs, options.maxFileBytes ?? 5e9);
  const weightMap: Record<string, string> = {};
  let totalBytes = 0;
  let done = 0;
  for (const [i, shard] of shards.entries()) {
    const number = (n: number) => String(n).padStart(5, "0");
    const name = shards.length === 1 ? SINGLE_NAME : `model-${number(i + 1)}-of-${number(shards.length)}.safetensors`;
    const planned = shard.flatMap((job) => job.planned);
    for (const tensor of planned) {
      weightMap[tensor.name] = name;
      totalBytes += tensor.bytes;
    }
    const writer = new SafetensorsWriter(join(folder, name), planned);
    try {
      for (const job of shard) {
        options.signal?.throwIfAborted();
        writeJob(job, writer);
        options.onProgress?.(++done, jobs.length);
        await new Promise((turn) => setImmediate(turn));
      }
    } finally {
      writer.close();
    }
  }
  if (shards.length > 1)
    writeFileSync(join(folder, INDEX_NAME), JSON.stringify({ metadata: { total_size: totalBytes }, weight_map: weightMap }, null, 2));
}

function plan(checkpoint: Checkpoint, spec: TensorSpec): Job {
  const source = checkpoint.tensors.get(spec.name)!;
  const { entry } = source;
  const shape = [...spec.shape];
  const quantised = spec.quantisable && !(spec.module && checkpoint.config.disableQuantModules.includes(spec.module));
  if (!quantised)
    return { source, quantised, planned: [{ name: spec.name, dtype: entry.storedDtype, shape, bytes: entry.end - entry.begin }] };
  const scales = scaleShape(shape);
  return {
    ...{ source, quantised },
    planned: [
      { name: spec.name, dtype: "F8_E4M3", shape, bytes: shape[0]! * shape[1]! },
      { name: scaleName(spec.name), dtype: "F32", shape: scales, bytes: 4 * scales[0]! * scales[1]! },
    ],
  };
}

/** Consecutive jobs into files of at most `limit` bytes, a larger tensor alone. */
function split(jobs: readonly Job[], limit: number): Job[][] {
  const shards: Job[][] = [];
  let filled = Infinity;
  for (const job of jobs) {
    const bytes = job.planned.reduce((sum, tensor) => sum + tensor.bytes, 0);
    if (filled + bytes > limit) {
      shards.push([]);
      filled = 0;
    }
    shards.at(-1)!.push(job);
    filled += bytes;
  }
  return shards;
}

function writeJob({ source, planned, quantised }: Job, writer: SafetensorsWriter): void {
  const { file, entry } = source;
  const [weight, scales] = planned;
  if (quantised) {
    const { data, scale } = quantizeFp8(file, entry);
    writer.write(weight!.name, data);
    writer.write(scales!.name, scale);
    return;
  }
  const fd = openSync(file.path, "r");
  try {
    const chunk = Buffer.allocUnsafe(Math.min(COPY_CHUNK_BYTES, entry.end - entry.begin));
    for (let at = entry.begin; at < entry.end; ) {
      const read = readSync(fd, chunk, 0, Math.min(chunk.byteLength, entry.end - at), at);
      if (read === 0) throw new LongcatError("CHECKPOINT_INVALID", `${cut(file.path)} was cut short while it was read`);
      writer.write(weight!.name, chunk.subarray(0, read), at - entry.begin);
      at += read;
    }
  } finally {
    closeSync(fd);
  }
}
