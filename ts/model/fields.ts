/**
 * Reads keys of a JSON object that somebody else wrote: each value checked, each failure naming file, key, value and what is accepted.
 * null counts as absent, as Python writes it.
 * @module
 */

import { LongcatError, type LongcatErrorCode } from "../errors.js";

/** A value as it may stand in a message: JSON, cut where it is long. */
export function shown(value: unknown): string {
  let text: string | undefined;
  try {
    text = typeof value === "number" || value === undefined ? String(value) : JSON.stringify(value);
  } catch {
    text = typeof value;
  }
  return cut(text ?? typeof value, 60);
}

/** A name or path as it may stand in a message: control characters replaced, the middle left out where it is long. */
export function cut(text: string, limit = 100): string {
  const clean = text.replace(/[\u0000-\u001f\u007f]/g, "?");
  if (clean.length <= limit) return clean;
  // Through UTF-8, so that half a surrogate pair cannot be left.
  return Buffer.from(`${clean.slice(0, limit / 2)}…${clean.slice(clean.length - limit / 2)}`).toString();
}

/** Whether `value` is a JSON object. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A value together with the key that gave it: of several spellings, the one that was there. */
export interface Found {
  key: string;
  value: unknown;
}

/** Bounds of a number, both included. */
export interface Range {
  min?: number;
  max?: number;
}

const MAX_SIZE = 2 ** 31 - 1;

/** One JSON object under reading; remembers which keys were asked for. */
export class Fields {
  readonly #object: Record<string, unknown>;
  readonly #file: string;
  readonly #prefix: string;
  readonly #used = new Set<string>();

  /** `prefix` stands before keys in messages: "rope_scaling.". */
  constructor(object: unknown, file: string, prefix = "") {
    if (!isObject(object)) {
      throw new LongcatError(
        "CONFIG_INVALID",
        `${cut(file, 80)}: ${prefix ? prefix.slice(0, -1) : "the file"} is ${shown(object)}; a JSON object is wanted`,
      );
    }
    this.#object = object;
    this.#file = file;
    this.#prefix = prefix;
  }

  /** Throws an error that begins with file and key. */
  fail(key: string, problem: string, code: LongcatErrorCode = "CONFIG_INVALID"): never {
    throw new LongcatError(code, `${cut(this.#file, 80)}: ${this.#prefix}${cut(key, 60)} ${problem}`);
  }

  /** The raw value, undefined where absent or null. */
  get(key: string): unknown {
    this.#used.add(key);
    return Object.hasOwn(this.#object, key) ? (this.#object[key] ?? undefined) : undefined;
  }

  /** The value under any of several spellings of one thing; two unequal ones are a conflict. */
  find(...keys: string[]): Found | undefined {
    let found: Found | undefined;
    for (const key of keys) {
      const value = this.get(key);
      if (value === undefined) continue;
      if (found && JSON.stringify(found.value) !== JSON.stringify(value)) {
        this.fail(found.key, `is ${shown(found.value)} but ${this.#prefix}${key} is ${shown(value)}: they mean the same, so one must go`);
      }
      found ??= { key, value };
    }
    return found;
  }

  /** A size: an integer from `min` (1) to `max` (2^31 − 1). */
  size(keys: string | string[], range: Range = {}): number {
    const names = [keys].flat();
    const value = this.optionalSize(names, range);
    if (value === undefined) this.fail(names[0]!, `is missing${names.length > 1 ? ` (also looked for ${names.slice(1).join(", ")})` : ""}`);
    return value;
  }

  optionalSize(keys: string | string[], { min = 1, max = MAX_SIZE }: Range = {}): number | undefined {
    const found = this.find(...[keys].flat());
    if (!found) return undefined;
    if (typeof found.value !== "number" || !Number.isInteger(found.value) || found.value < min || found.value > max) {
      this.fail(found.key, `is ${shown(found.value)}; an integer from ${min} to ${max} is wanted`);
    }
    return found.value;
  }

  /** A finite number; integers count. */
  optionalNumber(key: string, { min = -Infinity, max = Infinity, above = -Infinity }: Range & { above?: number } = {}): number | undefined {
    const value = this.get(key);
    if (value === undefined) return undefined;
    if (typeof value !== "number" || !Number.isFinite(value) || value < min || value > max || value <= above) {
      const low = above > -Infinity ? ` above ${above}` : min > -Infinity ? ` from ${min}` : "";
      this.fail(key, `is ${shown(value)}; a finite number${low}${max < Infinity ? ` up to ${max}` : ""} is wanted`);
    }
    return value;
  }

  boolean(key: string, fallback: boolean): boolean {
    const value = this.get(key);
    if (value === undefined) return fallback;
    if (typeof value !== "boolean") this.fail(key, `is ${shown(value)}; true or false is wanted`);
    return value;
  }

  optionalString(key: string): string | undefined {
    const value = this.get(key);
    if (value === undefined) return undefined;
    if (typeof value !== "string") this.fail(key, `is ${shown(value)}; a string is wanted`);
    return value;
  }

  /** A list of strings; absent: empty. */
  strings(key: string): string[] {
    const value = this.get(key);
    if (value === undefined) return [];
    if (!Array.isArray(value) || !value.every((v): v is string => typeof v === "string")) {
      this.fail(key, `is ${shown(value)}; a list of strings is wanted`);
    }
    return value;
  }

  /** Token ids below `vocabulary`: a number, or a list that may be empty; absent: empty. */
  tokenIds(key: string, vocabulary: number): number[] {
    const value = this.get(key);
    if (value === undefined) return [];
    const ids: unknown[] = Array.isArray(value) ? value : [value];
    for (const id of ids) {
      if (typeof id !== "number" || !Number.isInteger(id) || id < 0 || id >= vocabulary) {
        this.fail(key, `is ${shown(value)}; a token id, or a list of them, from 0 to ${vocabulary - 1} is wanted`);
      }
    }
    return [...new Set(ids as number[])];
  }

  /** A nested object, or undefined. */
  object(key: string): Fields | undefined {
    const value = this.get(key);
    return value === undefined ? undefined : new Fields(value, this.#file, `${this.#prefix}${key}.`);
  }

  /** Refuses any value but those given: what the engine does is `accepted`, and absence means it. */
  only(key: string, accepted: readonly unknown[], what: string): void {
    const value = this.get(key);
    if (value === undefined || accepted.includes(value)) return;
    this.fail(
      key,
      `is ${shown(value)}: ${what} not supported; accepted: ${accepted.map(shown).join(", ")} or no such key`,
      "CHECKPOINT_UNSUPPORTED",
    );
  }

  /** Keys that nobody asked for. */
  unused(): string[] {
    return Object.keys(this.#object).filter((key) => !this.#used.has(key));
  }
}
