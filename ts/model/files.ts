/**
 * Files of a checkpoint folder: JSON read with care, and which safetensors files hold which tensors.
 * @module
 */

import { readdirSync, readFileSync, statSync } from "node:fs";
import { isAbsolute, join, normalize } from "node:path";

import { LongcatError, type LongcatErrorCode } from "../errors.js";
import { cut, isObject, shown } from "./fields.js";

const MAX_JSON_BYTES = 256 * 2 ** 20;

/** Throws CHECKPOINT_INVALID naming a file of the checkpoint. */
export function invalidFile(path: string, problem: string, code: LongcatErrorCode = "CHECKPOINT_INVALID"): never {
  throw new LongcatError(code, `${cut(path)}: ${problem}`);
}

/** What may stand at a path. */
export type PathKind = "absent" | "file" | "folder" | "a device, FIFO or socket" | "out of reach (permissions, or links in a circle)";

/** What stands at a path: links followed, nothing opened. Never throws. */
export function kindOf(path: string): PathKind {
  try {
    const stat = statSync(path, { throwIfNoEntry: false });
    return !stat ? "absent" : stat.isFile() ? "file" : stat.isDirectory() ? "folder" : "a device, FIFO or socket";
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ENOTDIR" ? "absent" : "out of reach (permissions, or links in a circle)";
  }
}

/** The same in a sentence: "is a folder". */
function shownKind(kind: PathKind): string {
  return `is ${kind === "file" || kind === "folder" ? `a ${kind}` : kind === "absent" ? "not there" : kind}`;
}

/** The folder of a model, checked to be one. */
export function requireModelFolder(dir: string): void {
  if (typeof dir !== "string" || dir === "" || dir.includes("\0")) {
    throw new LongcatError("CHECKPOINT_INVALID", `the model folder is ${shown(dir)}; a path to a folder with config.json is wanted`);
  }
  const kind = kindOf(dir);
  if (kind !== "folder") invalidFile(dir, `${shownKind(kind)}; the folder that holds config.json and safetensors files is wanted`);
}

/** Parsed content of a JSON file, or undefined if there is none. Devices, FIFOs and folders are refused unopened. */
export function readJson(path: string, code: LongcatErrorCode): unknown {
  const kind = kindOf(path);
  if (kind === "absent") return undefined;
  if (kind !== "file") invalidFile(path, `${shownKind(kind)}, not a file`, code);
  const { size } = statSync(path);
  if (size > MAX_JSON_BYTES) invalidFile(path, `has ${size} bytes; at most ${MAX_JSON_BYTES} are read`, code);
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    invalidFile(path, `cannot be read: ${(error as Error).message}`, code);
  }
  if (text.startsWith("version https://git-lfs")) {
    invalidFile(path, `is a Git LFS pointer; fetch the file with "git lfs pull" in the model's folder`, code);
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    invalidFile(path, size === 0 ? "is empty (0 bytes)" : `is not JSON: ${cut((error as Error).message, 80)}`, code);
  }
}

/** Which files hold the weights. */
export interface Shards {
  /** Paths of all files, each once. */
  files: string[];
  /** Tensor name → path, where an index decides; null: the one file holds them all. */
  places: Map<string, string> | null;
  /** The index, or the one file: for messages. */
  source: string;
}

export const INDEX_NAME = "model.safetensors.index.json";
export const SINGLE_NAME = "model.safetensors";

/** Reads the index, which decides tensor by tensor; without one, model.safetensors. Every file is seen to be there. */
export function findShards(dir: string): Shards {
  const source = join(dir, INDEX_NAME);
  const index = readJson(source, "CHECKPOINT_INVALID");
  if (index === undefined) {
    const single = join(dir, SINGLE_NAME);
    if (kindOf(single) === "absent") invalidFile(dir, `has neither ${SINGLE_NAME} nor ${INDEX_NAME}${otherWeights(dir)}`);
    return { files: [single], places: null, source: single };
  }
  const map = isObject(index) ? index.weight_map : undefined;
  if (!isObject(map)) invalidFile(source, `weight_map is ${shown(map)}; an object from tensor names to file names is wanted`);
  const names = new Map<unknown, string>();
  const places = new Map<string, string>();
  for (const [tensor, name] of Object.entries(map)) {
    let path = names.get(name);
    if (path === undefined) names.set(name, (path = shardPath(dir, source, tensor, name)));
    places.set(tensor, path);
  }
  return { files: [...new Set(names.values())], places, source };
}

/** A file name of an index as a path: it must stay in the folder, links may lead elsewhere (as in a hub's cache). */
function shardPath(dir: string, source: string, tensor: string, name: unknown): string {
  const refuse = (problem: string): never => invalidFile(source, `the file of tensor "${cut(tensor, 60)}" is ${shown(name)}, ${problem}`);
  if (typeof name !== "string" || name === "" || name.includes("\0")) return refuse("not a file name");
  if (isAbsolute(name) || name.split("/").includes("..")) return refuse("which leaves the model's folder");
  if (normalize(name) === "." || name.endsWith("/")) return refuse("which is not a file");
  const path = join(dir, name);
  const kind = kindOf(path);
  if (kind === "absent") return refuse("and it is not there; download it again");
  if (kind !== "file") return refuse(`which ${shownKind(kind)}`);
  return path;
}

/** What else a folder without safetensors holds, as a hint. */
function otherWeights(dir: string): string {
  const others = listed(dir).filter((name) => /\.(safetensors|bin|gguf|pt|pth)$/.test(name));
  return others.length === 0
    ? ""
    : `; there is ${others
        .slice(0, 2)
        .map((name) => cut(name, 40))
        .join(", ")}${others.length > 2 ? ", …" : ""}`;
}

function listed(dir: string): string[] {
  try {
    return readdirSync(dir);
  } catch {
    return [];
  }
}
