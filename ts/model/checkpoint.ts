/**
 * A checkpoint folder, opened: config read, files mapped, every tensor that the model needs found with the right shape and type,
 * and nothing else there that could matter. No weight is read.
 * @module
 */

import { basename, join } from "node:path";

import { LongcatError } from "../errors.js";
import type { NativeMappedFile, NativeTensorEntry } from "../runtime/binding.js";
import { DTYPES } from "../runtime/dtype.js";
import { openSafetensors } from "../runtime/files.js";
import { type ModelConfig, parseConfig } from "./config.js";
import { cut } from "./fields.js";
import { findShards, invalidFile, readJson, requireModelFolder, type Shards } from "./files.js";
import { type GenerationConfig, readGenerationConfig } from "./generation-config.js";
import { classifyExtra, expertOf, type ExtraKind, modelTensors, scaleName, scaleShape, type TensorSpec } from "./tensor-names.js";

/** Where a tensor's bytes are. */
export interface StoredTensor {
  file: NativeMappedFile;
  entry: NativeTensorEntry;
}

/** How to open. */
export interface OpenCheckpointOptions {
  /** Accept tensors that the model does not know (they are not used). */
  allowUnknownTensors?: boolean;
  onWarning?: ((message: string) => void) | undefined;
}

/** An open checkpoint. */
export interface Checkpoint {
  readonly dir: string;
  readonly config: ModelConfig;
  readonly generationConfig: GenerationConfig;
  /** Every tensor of the model by its name in ts/model/tensor-names.ts, block scales included. With tied embeddings no lm_head. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** The tensors as the table wants them, in its order. */
  readonly specs: readonly TensorSpec[];
  /** Whether the draft head is there, whole. */
  readonly hasMtp: boolean;
  /** Bytes of `tensors`. */
  readonly bytes: number;
  readonly files: readonly NativeMappedFile[];
  /** What was assumed or ignored, one sentence each, as told to `onWarning`. */
  readonly warnings: readonly string[];
  /** Unmaps the files; tensors that a device made of them stay valid. */
  close(): void;
}

/**
 * Opens a checkpoint folder.
 *
 * @throws LongcatError CHECKPOINT_INVALID (a file or tensor is missing, broken or unknown), CHECKPOINT_UNSUPPORTED (a feature that
 * changes the result and is not built), CONFIG_INVALID (config.json or generation_config.json holds wrong values)
 */
export async function openCheckpoint(dir: string, options: OpenCheckpointOptions = {}): Promise<Checkpoint> {
  requireModelFolder(dir);
  const warnings: string[] = [];
  const warn = (message: string): void => {
    warnings.push(message);
    options.onWarning?.(message);
  };
  const configPath = join(dir, "config.json");
  const json = readJson(configPath, "CONFIG_INVALID");
  if (json === undefined) invalidFile(dir, "has no config.json");
  const config = parseConfig(json, configPath, warn);
  const generationConfig = readGenerationConfig(dir, config.vocabSize, warn);
  const shards = findShards(dir);
  const files: NativeMappedFile[] = [];
  const close = (): void => {
    for (const file of files) file.close();
  };
  try {
    for (const path of shards.files) {
      files.push(openSafetensors(path));
      await new Promise((resolve) => setImmediate(resolve)); // a large header takes milliseconds: let others have a turn
    }
    const matcher = new Matcher(dir, config, collect(shards, files));
    matcher.match();
    matcher.judgeExtras(options.allowUnknownTensors ?? false, warn);
    const { tensors, specs, hasMtp } = matcher;
    if (!hasMtp && config.numNextnPredictLayers > 0) {
      warn(
        `config.json promises a draft head (num_nextn_predict_layers is ${config.numNextnPredictLayers}), but its tensors are not there; no drafts are made`,
      );
    }
    return { dir, config, generationConfig, tensors, specs, hasMtp, bytes: bytesOf(tensors), files, warnings, close };
  } catch (error) {
    close();
    throw error;
  }
}

/** What is asked of a checkpoint's draft head. */
export interface DraftDemand {
  /** Most drafts that a step verifies of a sequence. Default 0. */
  maxDrafts?: number | undefined;
  /** They are demanded: a checkpoint without a draft head is refused. Default: it makes none. */
  needsDrafts?: boolean;
}

/**
 * The checkpoint as it is used with so many drafts: where none are, no draft head is counted or loaded.
 *
 * @throws LongcatError `OPTION_INVALID` for drafts that it cannot make
 */
export function forDrafts(checkpoint: Checkpoint, { maxDrafts = 0, needsDrafts = false }: DraftDemand): Checkpoint {
  if (needsDrafts && !checkpoint.hasMtp)
    throw new LongcatError(
      "OPTION_INVALID",
      `speculative: { drafts: ${maxDrafts} } needs a draft head, and the checkpoint has none (no tensors model.mtp.*); give "auto" or "off"`,
    );
  return maxDrafts > 0 || !checkpoint.hasMtp ? checkpoint : withoutDraftHead(checkpoint);
}

function withoutDraftHead(checkpoint: Checkpoint): Checkpoint {
  return { ...only(checkpoint, (name) => !name.startsWith("model.mtp.")), hasMtp: false };
}

/** FFN experts [first, first + count) of every layer: those that a rank holds. */
export interface ExpertRange {
  first: number;
  count: number;
}

/** The checkpoint as a rank uses it: what is counted and loaded of the experts are those that it holds. */
export function forExperts(checkpoint: Checkpoint, { first, count }: ExpertRange): Checkpoint {
  return only(checkpoint, (name) => {
    const expert = expertOf(name);
    return expert === undefined || (expert >= first && expert < first + count);
  });
}

/** The checkpoint with the tensors whose names are chosen. */
function only(checkpoint: Checkpoint, isUsed: (name: string) => boolean): Checkpoint {
  const tensors = new Map([...checkpoint.tensors].filter(([name]) => isUsed(name)));
  const specs = checkpoint.specs.filter(({ name }) => isUsed(name));
  return { ...checkpoint, tensors, specs, bytes: bytesOf(tensors) };
}

function bytesOf(tensors: ReadonlyMap<string, StoredTensor>): number {
  let bytes = 0;
  for (const { entry } of tensors.values()) bytes += entry.end - entry.begin;
  return bytes;
}

/** Tensors by their stored names. An index decides where each is; what it does not list does not exist. */
function collect(shards: Shards, files: readonly NativeMappedFile[]): Map<string, StoredTensor> {
  const stored = new Map<string, StoredTensor>();
  for (const [i, file] of files.entries()) {
    for (const entry of file.entries) {
      if (!shards.places || shards.places.get(entry.name) === shards.files[i]) stored.set(entry.name, { file, entry });
    }
  }
  for (const [name, path] of shards.places ?? []) {
    if (!stored.has(name))
      invalidFile(shards.source, `tensor "${cut(name, 80)}" is said to be in ${cut(basename(path), 80)}, which does not hold it`);
  }
  return stored;
}

/** Counting missing tensors ends here: a config may ask for any number of them. */
const MAX_MISSING = 10_000;

/** Matches what is stored with what the model needs. */
class Matcher {
  readonly tensors = new Map<string, StoredTensor>();
  readonly specs: TensorSpec[] = [];
  hasMtp = false;
  readonly #dir: string;
  readonly #config: ModelConfig;
  /** What nothing has asked for yet. */
  readonly #rest: Map<string, StoredTensor>;
  readonly #stacks = new Map<string, TensorSpec & { dtype: number }>();

  constructor(dir: string, config: ModelConfig, stored: ReadonlyMap<string, StoredTensor>) {
    this.#dir = dir;
    this.#config = config;
    this.#rest = new Map(stored);
  }

  /** Finds every tensor of the table; the draft head's may all be absent. */
  match(): void {
    const missing: string[] = [];
    const missingMtp: string[] = [];
    for (const spec of modelTensors(this.#config)) {
      if (this.#take(spec)) {
        if (spec.part === "mtp") this.hasMtp = true;
      } else if (spec.part === "mtp") {
        missingMtp.push(spec.name);
      } else if (!spec.optional && missing.push(spec.name) >= MAX_MISSING) {
        break;
      }
    }
    if (missing.length > 0) this.#lacks(missing, "that config.json calls for");
    if (this.hasMtp && missingMtp.length > 0) this.#lacks(missingMtp, "of the draft head, of which other parts are there");
  }

  #lacks(names: readonly string[], which: string): never {
    const others = names.length - 1;
    const more = others === 0 ? "" : ` and ${names.length >= MAX_MISSING ? "very many" : others} other${others > 1 ? "s" : ""}`;
    invalidFile(this.#dir, `tensor "${cut(names[0]!, 80)}"${more} ${which} ${others === 0 ? "is" : "are"} missing`);
  }

  #take(spec: TensorSpec): boolean {
    const name = [spec.name, ...spec.aliases].find((n) => this.#rest.has(n));
    if (name === undefined) return false;
    const tensor = this.#rest.get(name)!;
    this.#rest.delete(name);
    this.#checkShape(tensor, spec.shape);
    this.#checkDtype(tensor, spec, name);
    this.#checkStack(tensor, spec);
    this.tensors.set(spec.name, tensor);
    this.specs.push(spec);
    return true;
  }

  #fail(
    { file, entry }: StoredTensor,
    problem: string,
    code: "CHECKPOINT_INVALID" | "CHECKPOINT_UNSUPPORTED" = "CHECKPOINT_INVALID",
  ): never {
    throw new LongcatError(code, `${cut(file.path, 80)}: tensor "${cut(entry.name, 80)}" ${problem}`);
  }

  #checkShape(tensor: StoredTensor, shape: readonly number[]): void {
    const { shape: own } = tensor.entry;
    if (own.length === shape.length && own.every((n, i) => n === shape[i])) return;
    this.#fail(tensor, `has shape ${cut(`[${own.join(", ")}]`, 60)}; config.json wants [${shape.join(", ")}]`);
  }

  #checkDtype(tensor: StoredTensor, spec: TensorSpec, name: string): void {
    const { dtype, storedDtype } = tensor.entry;
    const known = DTYPES[dtype];
    if (known === "float32" || known === "bfloat16") return;
    if (known !== "float8_e4m3") {
      this.#fail(
        tensor,
        `is ${storedDtype}: not supported; accepted: F32, BF16${spec.quantisable ? ", F8_E4M3 with block scales" : ""}`,
        "CHECKPOINT_UNSUPPORTED",
      );
    }
    if (!spec.quantisable) this.#fail(tensor, "is F8_E4M3; this tensor must be F32 or BF16", "CHECKPOINT_UNSUPPORTED");
    if (!this.#config.quantization) this.#fail(tensor, "is F8_E4M3, but config.json has no quantization_config");
    if (spec.module && this.#config.disableQuantModules.includes(spec.module)) {
      this.#fail(tensor, `is F8_E4M3, but disable_quant_module lists ${spec.module}`);
    }
    const scale = this.#rest.get(scaleName(name));
    if (!scale) this.#fail(tensor, `is F8_E4M3 without its block scales "${cut(scaleName(name), 60)}"`);
    this.#rest.delete(scaleName(name));
    this.#checkShape(scale, scaleShape(spec.shape));
    if (DTYPES[scale.entry.dtype] !== "float32") this.#fail(scale, `is ${scale.entry.storedDtype}; block scales must be F32`);
    this.tensors.set(scaleName(spec.name), scale);
  }

  #checkStack(tensor: StoredTensor, spec: TensorSpec): void {
    if (spec.stack === null) return;
    const { dtype } = tensor.entry;
    const first = this.#stacks.get(spec.stack);
    if (!first) this.#stacks.set(spec.stack, { ...spec, dtype });
    else if (first.dtype !== dtype) {
      this.#fail(tensor, `is ${DTYPES[dtype]}, but "${cut(first.name, 80)}" is ${DTYPES[first.dtype]}; they must share one type`);
    }
  }

  /** Harmless extras: one warning. Others: refused by name, unless unknown ones are allowed. */
  judgeExtras(allowUnknown: boolean, warn: (message: string) => void): void {
    const groups = new Map<ExtraKind, StoredTensor[]>();
    for (const [name, tensor] of this.#rest) {
      const weight = name.endsWith("_scale_inv") ? this.tensors.get(name.slice(0, -"_scale_inv".length)) : undefined;
      if (weight) this.#fail(tensor, `holds block scales, but its weight is ${weight.entry.storedDtype}`);
      const kind = classifyExtra(name, this.#config);
      if (kind === "sparse attention")
        this.#fail(tensor, "belongs to sparse attention (an indexer), which is not supported", "CHECKPOINT_UNSUPPORTED");
      const group = groups.get(kind);
      if (group) group.push(tensor);
      else groups.set(kind, [tensor]);
    }
    const unknown = groups.get("unknown");
    if (unknown && !allowUnknown) {
      const others = unknown.length > 1 ? ` (and ${unknown.length - 1} more)` : "";
      this.#fail(unknown[0]!, `is not known${others}: the checkpoint may be of another model; allowUnknownTensors: true ignores it`);
    }
    const told = [...groups].map(([kind, list]) => `${kind} (${list.length}, as ${cut(list[0]!.entry.name, 60)})`);
    if (told.length > 0) warn(`tensors that the model does not use are ignored: ${told.join("; ")}`);
  }
}
