/**
 * Documents from files.
 * @module
 */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { invalid } from "../../checks.js";
import { LongcatError } from "../../errors.js";
import { kindOf } from "../../model/files.js";
import { type Document, parseDocument } from "./document.js";

/** What stands between two documents of a text file, where the run says nothing else: an empty line. */
export const SEPARATOR = "\n\n";

/** Pieces of text files. Pieces without a letter or sign are none. */
export function readText(path: string, separator: string): Document[] {
  return filesAt(path, ".txt").flatMap((file) =>
    contentOf(file)
      .split(separator)
      .map((text) => ({ text: text.trim() }))
      .filter(({ text }) => text !== ""),
  );
}

/** Lines of JSONL files. */
export function readJsonl(path: string): Document[] {
  return filesAt(path, ".jsonl").flatMap((file) =>
    contentOf(file)
      .split("\n")
      .flatMap((line, i) => (line.trim() === "" ? [] : [parseLine(line, `${file}:${i + 1}`)])),
  );
}

function parseLine(line: string, where: string): Document {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (cause) {
    throw new LongcatError("OPTION_INVALID", `${where}: ${(cause as Error).message}`, { cause });
  }
  return parseDocument(value, where);
}

/** A file, or all of this ending in a folder, by name: an order that no file system changes. */
function filesAt(path: string, ending: string): string[] {
  const kind = kindOf(path);
  if (kind === "file") return [path];
  const names = kind === "folder" ? readdirSync(path).filter((name) => name.endsWith(ending)) : [];
  if (names.length === 0) throw invalid("data.sources.path", path, `a file, or a folder with files *${ending}`);
  return names.sort().map((name) => join(path, name));
}

function contentOf(file: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(readFileSync(file)).replaceAll("\r\n", "\n");
  } catch (cause) {
    throw new LongcatError("OPTION_INVALID", `${file}: cannot be read as UTF-8 text: ${(cause as Error).message}`, { cause });
  }
}
