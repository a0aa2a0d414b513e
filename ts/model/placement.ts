/**
 * What a device asks of a model: what its activations are, and where its weights live.
 * @module
 */

import { LongcatError } from "../errors.js";
import { bytesOf, DTYPES } from "../runtime/dtype.js";
import type { ActivationDType } from "./activations.js";
import type { Checkpoint } from "./checkpoint.js";
import { scaleName } from "./tensor-names.js";
import { isConverted, isNgramTable, MOST_STAGED_BYTES, type NgramPlace, type WeightDType } from "./weights.js";

/** What runs a model. */
export type DeviceKind = "cpu" | "cuda";

/** The parts of a checkpoint that sizes follow from. */
type Headers = Pick<Checkpoint, "config" | "specs" | "tensors">;

/**
 * float32 on the CPU. On a GPU float32 where the layers' matrices are (stored so, or by `dtype`), else bfloat16: docs/numerics.md, 1.
 */
export function activationDTypeOf(kind: DeviceKind, { specs, tensors }: Headers, dtype: WeightDType): ActivationDType {
  if (kind === "cpu" || dtype === "float32") return "float32";
  const isFloat32 = (name: string) => dtype === "auto" && DTYPES[tensors.get(name)!.entry.dtype] === "float32";
  return specs.every(({ name, quantisable }) => !quantisable || isFloat32(name)) ? "float32" : "bfloat16";
}

/** Whether any matrix is block FP8 when it is computed with. */
export function hasFp8Weights({ tensors }: Headers, dtype: WeightDType): boolean {
  return dtype === "auto" && [...tensors.values()].some(({ entry }) => DTYPES[entry.dtype] === "float8_e4m3");
}

/** The device's allocations begin at multiples of so many bytes. */
const GPU_ALIGNMENT = 256;

/** Stacks of experts in an FP8 layer, each a table of addresses: three of codes, three of scales. */
const STACKS_PER_LAYER = 6;

/** Bytes that weights take of a GPU's memory. */
export interface GpuWeightBytes {
  /** As stored, for good; n-gram tables not counted. */
  kept: number;
  /** n-gram tables. */
  ngram: number;
  /** Converted copies. */
  converted: number;
  /** Stored matrices on their way to being converted. */
  staged: number;
}

/** Sums the weights of a checkpoint as a GPU holds them, each aligned. */
export function gpuWeightBytes({ config, specs, tensors }: Headers, dtype: WeightDType): GpuWeightBytes {
  const bytes: GpuWeightBytes = { kept: 0, ngram: 0, converted: 0, staged: 0 };
  const replaced = new Set<string>();
  for (const { name, shape, quantisable } of specs) {
    if (!quantisable || !isConverted(DTYPES[tensors.get(name)!.entry.dtype]!, dtype)) continue;
    replaced.add(name).add(scaleName(name));
    bytes.converted += aligned(shape.reduce((product, n) => product * n, bytesOf(dtype)));
  }
  let largest = 0;
  for (const [name, { entry }] of tensors) {
    const size = aligned(entry.end - entry.begin);
    if (isNgramTable(name)) bytes.ngram += size;
    else if (!replaced.has(name)) bytes.kept += size;
    else {
      bytes.staged += size;
      largest = Math.max(largest, size);
    }
  }
  bytes.staged = Math.min(bytes.staged, MOST_STAGED_BYTES + largest);
  bytes.kept += config.numLayers * STACKS_PER_LAYER * aligned(8 * config.numExperts);
  return bytes;
}

function aligned(bytes: number): number {
  return Math.max(1, Math.ceil(bytes / GPU_ALIGNMENT)) * GPU_ALIGNMENT;
}

/** Bytes of n-gram tables, as stored. */
export function ngramTableBytes({ tensors }: Pick<Checkpoint, "tensors">): number {
  let bytes = 0;
  for (const [name, { entry }] of tensors) if (isNgramTable(name)) bytes += entry.end - entry.begin;
  return bytes;
}

/** "auto" puts n-gram tables on a GPU if they take no more than this share of what is free beside the rest. */
const NGRAM_SHARE = 1 / 3;

/**
 * Where n-gram tables live.
 *
 * @param freeBytes what the device has left beside all else; null: not known, as without a GPU.
 * @throws LongcatError OPTION_INVALID for "device" on the CPU.
 */
export function placeNgramTables(kind: DeviceKind, wanted: "auto" | NgramPlace, tableBytes: number, freeBytes: number | null): NgramPlace {
  if (kind === "cpu" && wanted === "device")
    throw new LongcatError(
      "OPTION_INVALID",
      'ngram: "device" needs a GPU, and this model runs on the CPU, where the tables stay mapped in host memory; give "auto" or "host"',
    );
  if (kind === "cpu") return "host";
  if (wanted !== "auto") return wanted;
  return freeBytes !== null && tableBytes <= NGRAM_SHARE * freeBytes ? "device" : "host";
}
