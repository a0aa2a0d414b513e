/**
 * What tests need of checkpoints: copies that may be spoiled, and files taken apart. Copies are removed when the test file ends.
 */
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";
import { type ModelName, modelPath } from "./paths.js";
import { type FileTensor, readSafetensors, writeSafetensors } from "./safetensors.js";

export * from "./paths.js";
export * from "./safetensors.js";

/** JSON that tests take apart. */
// biome-ignore lint/suspicious/noExplicitAny: what tests do to JSON is wrong on purpose
export type Json = any;

const temporary: string[] = [];

afterAll(() => {
  for (const dir of temporary.splice(0)) rmSync(dir, { recursive: true, force: true });
});

/** An empty folder that is removed when the test file ends. */
export function temporaryFolder(): string {
  const dir = mkdtempSync(join(tmpdir(), "longcat-test-"));
  temporary.push(dir);
  return dir;
}

/** A writable copy of a checkpoint (goldens left out), removed when the test file ends. */
export function copyModel(name: ModelName): string {
  const dir = join(temporaryFolder(), name);
  cpSync(modelPath(name), dir, { recursive: true, filter: (from) => !from.includes("goldens.") });
  return dir;
}

/** The same, but its weights are links to the repository's: quick, for tests that change other files only. */
export function linkModel(name: ModelName): string {
  const from = modelPath(name);
  const dir = join(temporaryFolder(), name);
  cpSync(from, dir, { recursive: true, filter: (file) => !file.includes("goldens.") && !file.endsWith(".safetensors") });
  for (const file of readdirSync(from))
    if (file.endsWith(".safetensors") && !file.startsWith("goldens.")) symlinkSync(join(from, file), join(dir, file));
  return dir;
}

/** Reads, edits in place or by return, and writes a JSON file of a checkpoint. */
export function editJson(path: string, edit: (value: Json) => unknown): void {
  const value = existsSync(path) ? JSON.parse(readFileSync(path, "utf8")) : {};
  writeFileSync(path, JSON.stringify(edit(value) ?? value, null, 2));
}

/** The same for `dir`'s config.json. */
export function editConfig(dir: string, edit: (config: Json) => unknown): void {
  editJson(join(dir, "config.json"), edit);
}

/** Edits a copy's tensors: the map may be changed in place. */
export function editTensors(path: string, edit: (tensors: Map<string, FileTensor>) => unknown): void {
  const tensors = readSafetensors(path);
  edit(tensors);
  writeSafetensors(path, tensors);
}
