/**
 * What the benches' flags have in common: lists of numbers, shapes, random weights.
 * @module
 */

import { RANDOM_DTYPES, SHAPES } from "../engine/bench-model.js";
import { checkRanks, launched } from "../engine/bench-ranks.js";
import type { Flag, ParsedFlags } from "./flags.js";
import { parseNumber, UsageError } from "./flags.js";
import { note } from "./output.js";

/** Built-in sizes. */
export const SHAPE_NAMES = SHAPES;

export const SHAPE_FLAG: Flag = {
  name: "shape",
  kind: "text",
  value: "NAME",
  help: "sizes of flash, lite or mini (default: GPU flash, CPU mini)",
};
export const LAYERS_FLAG: Flag = { name: "layers", kind: "number", value: "N", help: "layers (default: as many as the model has)" };
export const HELD_FLAG: Flag = {
  ...{ name: "experts-held", kind: "number", value: "N" },
  help: "FFN experts that are stored in a layer; expert e is e mod N (default: all)",
};
export const RANDOM_FLAG: Flag = {
  name: "random-weights",
  kind: "flag",
  help: "a model of --shape's sizes, its weights made on the device",
};

/** Flags of a model with random weights, beside `--dtype`. */
export const RANDOM_FLAGS: readonly Flag[] = [RANDOM_FLAG, SHAPE_FLAG, LAYERS_FLAG, HELD_FLAG];

export function wholeNumber(name: string, text: string, min: number, max: number): number {
  const value = parseNumber(`--${name}`, text);
  if (!Number.isInteger(value) || value < min || value > max)
    throw new UsageError(`--${name}: ${value} is not a whole number from ${min} to ${max}`);
  return value;
}

/** The flag's whole number, or `absent`. */
export function numberOr<T>(flags: ParsedFlags, name: string, min: number, max: number, absent: T): number | T {
  const text = flags.text(name);
  return text === undefined ? absent : wholeNumber(name, text, min, max);
}

/** "1,16" as whole numbers. `absent`: what counts where the flag is not given; "" is none. */
export function numbers(flags: ParsedFlags, name: string, absent: string, min: number, max: number): number[] {
  const text = flags.text(name) ?? absent;
  if (text === "" && flags.text(name) === undefined) return [];
  return text.split(",").map((part) => wholeNumber(name, part.trim(), min, max));
}

/** The device that the flags name, checked as far as its name goes. */
export function deviceName(flags: ParsedFlags, absent: string): string {
  const device = flags.text("device") ?? absent;
  if (!/^(auto|cpu|cuda(:\d{1,4})?)$/.test(device))
    throw new UsageError(`--device: ${JSON.stringify(device)} is none of auto, cpu, cuda, cuda:N`);
  return device;
}

export function exchangeOf(flags: ParsedFlags): "auto" | "peer" | "nccl" {
  return oneOf(flags, "exchange", ["auto", "peer", "nccl"] as const, "auto");
}

/** The number of ranks; several have a GPU each, so that one GPU cannot be named. `least`: what makes sense. */
export function ranksOf(flags: ParsedFlags, device: string, absent: number, least: number): number {
  const ranks = checkRanks(flags.number("ranks") ?? absent, least);
  if (ranks > 1 && device.startsWith("cuda:"))
    throw new UsageError(`--device ${device} is one GPU, and each of ${ranks} ranks has its own; give auto, cuda or cpu`);
  return ranks;
}

/** Where a launcher has started several processes each measures by itself, and says so: they are no group. */
export function noteLauncher(): void {
  const found = launched();
  if (found === undefined) return;
  note(`${found.launcher} started ${found.processes} processes, and a bench starts its ranks itself, on its host: start it once`);
}

export function threadsOf(flags: ParsedFlags): number | "auto" {
  return flags.text("threads") === "auto" ? "auto" : numberOr(flags, "threads", 1, 1024, "auto" as const);
}

/** The flag's value, which must be one of `names`. */
export function oneOf<T extends string>(flags: ParsedFlags, name: string, names: readonly T[], absent: T): T {
  const text = flags.text(name);
  if (text === undefined) return absent;
  const found = names.find((candidate) => candidate === text);
  if (found === undefined) throw new UsageError(`--${name}: ${JSON.stringify(text)} is none of ${names.join(", ")}`);
  return found;
}

/** Shape, layers, dtype and experts of random weights. `device`: what "auto" has become. */
export function randomModel(flags: ParsedFlags, onGpu: boolean) {
  return {
    shape: oneOf(flags, "shape", SHAPE_NAMES, onGpu ? "flash" : "mini"),
    dtype: oneOf(flags, "dtype", RANDOM_DTYPES, "bfloat16"),
    expertsHeld: numberOr(flags, "experts-held", 1, 65536, undefined),
  };
}

/** The same where a checkpoint is measured unless `--random-weights` is given. */
export function randomSource(flags: ParsedFlags, onGpu: boolean) {
  if (!flags.on("random-weights")) {
    const given = ["shape", "layers", "experts-held"].find((name) => flags.text(name) !== undefined);
    if (given !== undefined) throw new UsageError(`--${given} needs --random-weights`);
    return undefined;
  }
  if (flags.text("model") !== undefined) throw new UsageError("--model and --random-weights exclude each other");
  return { ...randomModel(flags, onGpu), layers: numberOr(flags, "layers", 1, 1024, undefined) };
}

/** Whether a device's name means a GPU here: "auto" is one where there is one. */
export async function meansGpu(device: string): Promise<boolean> {
  if (device !== "auto") return device.startsWith("cuda");
  const { listDevices } = await import("../index.js");
  return (await listDevices()).length > 0;
}

/** A number in a column. */
export function cell(value: number, width: number, digits: number): string {
  return value.toFixed(digits).padStart(width);
}

/** Where a bench runs: "cuda (NVIDIA H100 80GB HBM3, compute capability 9.0)", "cpu (8 threads, avx512)". */
export function describeWhere({ device, gpu, threads, isa }: { device: string; gpu: string | null; threads: number; isa: string }): string {
  return gpu === null ? `${device} (${threads} threads, ${isa})` : `${device} (${gpu}, compute capability ${isa})`;
}
