/**
 * Reads what a checkpoint folder says about text: tokenizer.json, tokenizer_config.json and the chat template.
 * Everything is checked here, so that the rest may trust it; each fault is an error that names the file.
 * @module
 */
import { readFile, stat } from "node:fs/promises";
import { isAbsolute, join, normalize, sep } from "node:path";
import { LongcatError } from "../errors.js";
import { BYTE_CHARACTERS } from "./byte-level.js";

/** A token outside the merges: special tokens, and others that must not be split. */
export interface AddedToken {
  id: number;
  content: string;
  special: boolean;
  lstrip: boolean;
  rstrip: boolean;
}

/** A checked tokenizer.json. */
export interface TokenizerFile {
  path: string;
  /** The document as it stands in the file, for the library. */
  json: Record<string, unknown>;
  vocab: Map<string, number>;
  merges: [string, string][];
  added: AddedToken[];
  /** Encoding neither drops nor rewrites a byte of the text. */
  lossless: boolean;
}

/** The part of tokenizer_config.json that matters here. */
export interface TokenizerConfig {
  path: string;
  json: Record<string, unknown>;
  /** `bos_token`, `eos_token`, `pad_token`, `unk_token`: their text. */
  named: Record<string, string>;
  eosTokens: string[];
}

const MAX_FILE_BYTES = 256 * 1024 * 1024;

function invalid(path: string, what: string, cause?: unknown): LongcatError {
  return new LongcatError("TOKENIZER_INVALID", `${path}: ${what}`, { cause });
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The text of a file, or null if there is none. Pipes, devices and folders are refused before they are opened. */
async function readTextFile(path: string): Promise<string | null> {
  try {
    const info = await stat(path);
    if (!info.isFile()) throw invalid(path, "is not a regular file");
    if (info.size > MAX_FILE_BYTES) throw invalid(path, `has ${info.size} bytes; at most ${MAX_FILE_BYTES} are read`);
    return await readFile(path, "utf8");
  } catch (error) {
    if (error instanceof LongcatError) throw error;
    const code = (error as NodeJS.ErrnoException).code;
    if (code === "ENOENT" || code === "ENOTDIR") return null;
    throw invalid(path, `cannot be read (${code ?? String(error)})`, error);
  }
}

function parseObject(path: string, text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    const pointer = text.startsWith("version https://git-lfs")
      ? "is a Git LFS pointer, not the file; fetch it with `git lfs pull`"
      : "is not JSON";
    throw invalid(path, `${pointer} (${(error as Error).message})`, error);
  }
  if (!isObject(value)) throw invalid(path, `must hold a JSON object, not ${Array.isArray(value) ? "an array" : typeof value}`);
  return value;
}

/** Reads and checks tokenizer.json; null if the folder has none. */
export async function readTokenizerFile(dir: string): Promise<TokenizerFile | null> {
  const path = join(dir, "tokenizer.json");
  const text = await readTextFile(path);
  if (text === null) return null;
  const json = parseObject(path, text);
  const model = json["model"];
  if (!isObject(model)) throw invalid(path, "has no `model`");
  if (model["type"] !== "BPE") throw invalid(path, `model type ${JSON.stringify(model["type"])} is not supported; "BPE" is`);
  for (const key of ["continuing_subword_prefix", "end_of_word_suffix", "continuing_subword_suffix"]) {
    if (model[key]) throw invalid(path, `model.${key} is not supported in a byte-level tokenizer`);
  }
  const decoder = json["decoder"];
  if (!isObject(decoder) || decoder["type"] !== "ByteLevel") {
    throw invalid(
      path,
      `decoder ${JSON.stringify(isObject(decoder) ? decoder["type"] : (decoder ?? null))} is not supported; "ByteLevel" is`,
    );
  }
  const vocab = readVocab(path, model["vocab"]);
  const merges = readMerges(path, model["merges"], vocab);
  const added = readAdded(path, json["added_tokens"]);
  if (json["normalizer"] && added.some((_, at) => (json["added_tokens"] as { normalized?: boolean }[])[at]?.normalized)) {
    throw invalid(path, "added tokens with `normalized: true` beside a normalizer are not supported");
  }
  return { path, json, vocab, merges, added, lossless: isLossless(json) };
}

function isId(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) < 2 ** 24;
}

function readVocab(path: string, value: unknown): Map<string, number> {
  if (!isObject(value)) throw invalid(path, "model.vocab must be an object of token → id");
  const vocab = new Map(Object.entries(value) as [string, number][]);
  for (const [token, id] of vocab) {
    if (!isId(id))
      throw invalid(path, `model.vocab[${JSON.stringify(token)}] is ${JSON.stringify(id)}; ids are integers from 0 to ${2 ** 24 - 1}`);
  }
  const missing = BYTE_CHARACTERS.findIndex((character) => !vocab.has(character));
  if (missing !== -1) throw invalid(path, `model.vocab has no token for byte ${missing}; a byte-level vocabulary holds all 256`);
  return vocab;
}

function readMerges(path: string, value: unknown, vocab: ReadonlyMap<string, number>): [string, string][] {
  if (!Array.isArray(value)) throw invalid(path, "model.merges must be an array");
  return value.map((merge: unknown, rank) => {
    const pair = typeof merge === "string" ? merge.split(" ", 2) : merge;
    if (!Array.isArray(pair) || pair.length !== 2 || pair.some((part) => typeof part !== "string")) {
      throw invalid(path, `model.merges[${rank}] must be a pair of tokens`);
    }
    const [left, right] = pair as [string, string];
    for (const token of [left, right, left + right]) {
      if (!vocab.has(token))
        throw invalid(path, `model.merges[${rank}] needs the token ${JSON.stringify(token)}, which model.vocab does not have`);
    }
    return [left, right];
  });
}

function readAdded(path: string, value: unknown): AddedToken[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) throw invalid(path, "added_tokens must be an array");
  return value.map((token: unknown, at) => {
    if (!isObject(token) || typeof token["content"] !== "string" || token["content"] === "" || !isId(token["id"])) {
      throw invalid(path, `added_tokens[${at}] must have an id and a content`);
    }
    return {
      id: token["id"],
      content: token["content"],
      special: token["special"] === true,
      lstrip: token["lstrip"] === true,
      rstrip: token["rstrip"] === true,
    };
  });
}

function isLossless(json: Record<string, unknown>): boolean {
  if (json["normalizer"]) return false;
  const keeps = (step: unknown): boolean => {
    if (step === null || step === undefined) return true;
    if (!isObject(step)) return false;
    if (step["type"] === "Sequence") return Array.isArray(step["pretokenizers"]) && step["pretokenizers"].every(keeps);
    if (step["type"] === "ByteLevel") return true;
    return step["type"] === "Split" && step["invert"] !== true && step["behavior"] !== "Removed";
  };
  return keeps(json["pre_tokenizer"]);
}

const NAMED_TOKENS = ["bos_token", "eos_token", "pad_token", "unk_token"] as const;

/** Reads tokenizer_config.json; an empty one if the folder has none. */
export async function readTokenizerConfig(dir: string): Promise<TokenizerConfig> {
  const path = join(dir, "tokenizer_config.json");
  const text = await readTextFile(path);
  const json = text === null ? {} : parseObject(path, text);
  const named: Record<string, string> = {};
  for (const key of NAMED_TOKENS) {
    const token = tokenText(json[key]);
    if (token !== undefined) named[key] = token;
    else if (json[key] != null && !Array.isArray(json[key])) {
      throw invalid(path, `${key} must be a string, an object with a content, or null`);
    }
  }
  const eos = json["eos_token"];
  const eosTokens = (Array.isArray(eos) ? eos : [eos]).map(tokenText).filter((token) => token !== undefined);
  return { path, json, named, eosTokens };
}

function tokenText(value: unknown): string | undefined {
  if (typeof value === "string") return value;
  if (isObject(value) && typeof value["content"] === "string") return value["content"];
  return undefined;
}

/** The chat templates of a folder by name (`default`, `tool_use`, …), each with the file that it came from. */
export async function readChatTemplates(dir: string, config: TokenizerConfig): Promise<Map<string, { path: string; source: string }>> {
  const templates = new Map<string, { path: string; source: string }>();
  const value = config.json["chat_template"];
  if (typeof value === "string") {
    templates.set("default", await resolveTemplate(dir, config.path, value));
  } else if (Array.isArray(value)) {
    for (const [at, entry] of value.entries()) {
      if (!isObject(entry) || typeof entry["name"] !== "string" || typeof entry["template"] !== "string") {
        throw invalid(config.path, `chat_template[${at}] must be {name, template}`);
      }
      templates.set(entry["name"], await resolveTemplate(dir, config.path, entry["template"]));
    }
  } else if (value !== undefined && value !== null) {
    throw invalid(config.path, "chat_template must be a string or a list of {name, template}");
  }
  const path = join(dir, "chat_template.jinja");
  const file = await readTextFile(path);
  if (file !== null) templates.set("default", { path, source: file });
  return templates;
}

/** A template is Jinja text; a value without any Jinja in it is the name of a file in the folder. */
async function resolveTemplate(dir: string, configPath: string, value: string): Promise<{ path: string; source: string }> {
  if (value.includes("{{") || value.includes("{%")) return { path: configPath, source: value };
  const plain = normalize(value);
  if (value === "" || value.includes("\0") || isAbsolute(value) || plain === "." || plain.split(sep)[0] === "..") {
    throw new LongcatError(
      "CHECKPOINT_INVALID",
      `${configPath}: chat_template names the file ${JSON.stringify(value)}, which is not inside the checkpoint folder`,
    );
  }
  const path = join(dir, plain);
  const source = await readTextFile(path);
  if (source === null) throw invalid(configPath, `chat_template names the file ${JSON.stringify(value)}, which is not there`);
  return { path, source };
}
