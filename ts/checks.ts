/**
 * Checks of what users hand in: one function a kind of value. Each throws a LongcatError that names the field, the value and what would
 * be accepted. `null` and `undefined` mean absent; nothing is coerced from another type.
 * @module
 */

import { LongcatError, type LongcatErrorCode } from "./errors.js";

/** A value as a message shows it: short, on one line, strings quoted. */
export function show(value: unknown): string {
  if (typeof value === "number") return Object.is(value, -0) ? "-0" : String(value);
  if (typeof value === "bigint") return `${value}n`;
  if (typeof value === "function") return "a function";
  let text: string | undefined;
  try {
    text =
      typeof value === "object" && value !== null && !Array.isArray(value) && !isPlain(value)
        ? describe(value)
        : JSON.stringify(value, beginnings());
  } catch {
    text = undefined;
  }
  text ??= String(value);
  return text.length > 80 ? `${text.slice(0, 77)}…` : text;
}

/** A replacer for JSON.stringify that keeps the beginning of whatever is long: no message needs more, and a caller's value may be huge. */
function beginnings(): (key: string, value: unknown) => unknown {
  const most = 100;
  let room = 1000;
  return (_, value) => {
    room -= 1;
    if (room < 0) return undefined;
    if (typeof value === "string" || Array.isArray(value)) return value.slice(0, most);
    if (!isPlain(value)) return value;
    const first: Record<string, unknown> = {};
    let count = 0;
    for (const key in value) {
      if (++count > most) break;
      if (Object.hasOwn(value, key)) Object.defineProperty(first, key, { value: value[key], enumerable: true });
    }
    return first;
  };
}

function describe(value: object): string {
  return `a ${value.constructor?.name ?? "object"}`;
}

/** A record made by `{}` or JSON.parse, not an array, Map, Date or class instance. */
export function isPlain(value: unknown): value is Record<string, unknown> {
  if (typeof value !== "object" || value === null) return false;
  const prototype = Object.getPrototypeOf(value) as object | null;
  return prototype === null || prototype === Object.prototype || Object.getPrototypeOf(prototype) === null;
}

/** Absent, as the public API means it everywhere: not given, `undefined` or `null`. */
export function absent(value: unknown): value is null | undefined {
  return value === undefined || value === null;
}

/** The error of a field: `<field>: <value> is not accepted; give <accepted>`. */
export function invalid(field: string, value: unknown, accepted: string, code: LongcatErrorCode = "OPTION_INVALID"): LongcatError {
  return new LongcatError(code, `${field}: ${show(value)} is not accepted; give ${accepted}`);
}

/** Throws for the first own key of `input` that is not in `names`, with the nearest known name. */
export function rejectUnknown(
  input: Record<string, unknown>,
  names: readonly string[],
  what: string,
  code: LongcatErrorCode = "OPTION_INVALID",
): void {
  const key = Object.keys(input).find((one) => !names.includes(one));
  if (key !== undefined) throw new LongcatError(code, `unknown ${what} ${show(key)}: ${hint(key, names)}`);
}

/** The same for the fields of `field`, whose path the error then begins with. */
export function rejectUnknownFields(input: Record<string, unknown>, names: readonly string[], field: string): void {
  const key = Object.keys(input).find((one) => !names.includes(one));
  if (key !== undefined) throw new LongcatError("OPTION_INVALID", `${field}.${key.slice(0, 100)}: is not known; ${hint(key, names)}`);
}

function hint(key: string, names: readonly string[]): string {
  const near = nearest(key, names);
  return near === undefined ? `known are ${names.join(", ")}` : `did you mean ${near}?`;
}

/** An options record: absent gives {}, anything but a plain record is refused. */
export function record(value: unknown, field: string, code: LongcatErrorCode = "OPTION_INVALID"): Record<string, unknown> {
  if (absent(value)) return {};
  if (!isPlain(value)) throw invalid(field, value, "an object", code);
  return value;
}

/** The known name closest to `key` by edit distance, ignoring case, `_` and `-`; undefined if none is near. */
export function nearest(key: string, names: readonly string[]): string | undefined {
  const plain = (name: string): string => name.toLowerCase().replace(/[_-]/g, "");
  const wanted = plain(key.slice(0, 64));
  let best: string | undefined;
  let bestDistance = Math.max(1, Math.floor(wanted.length / 3)) + 1;
  for (const name of names) {
    const distance = editDistance(wanted, plain(name));
    if (distance < bestDistance) [best, bestDistance] = [name, distance];
  }
  return best;
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] as number) + 1, (next[j - 1] as number) + 1));
    }
    row = next;
  }
  return row[b.length] as number;
}

/** A finite number within [min, max] (`openMin`: above min). −0 becomes 0. */
export function number(value: unknown, field: string, range: { min: number; max: number; openMin?: boolean; accepted: string }): number {
  const inside =
    typeof value === "number" && Number.isFinite(value) && value <= range.max && (range.openMin ? value > range.min : value >= range.min);
  if (!inside) throw invalid(field, value, range.accepted);
  return value === 0 ? 0 : value;
}

/** A whole number within [min, max]. */
export function integer(value: unknown, field: string, min: number, max: number, note = ""): number {
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < min || value > max)
    throw invalid(field, value, `a whole number ${range(min, max)}${note}`);
  return value === 0 ? 0 : value;
}

function range(min: number, max: number): string {
  return max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`;
}

export function boolean(value: unknown, field: string): boolean {
  if (typeof value !== "boolean") throw invalid(field, value, "true or false");
  return value;
}

/** One of some strings. */
export function oneOf<T extends string>(value: unknown, field: string, values: readonly T[]): T {
  if (typeof value !== "string" || !(values as readonly string[]).includes(value))
    throw invalid(field, value, values.map((v) => JSON.stringify(v)).join(" or "));
  return value as T;
}

export function callback(value: unknown, field: string): (...args: never[]) => void {
  if (typeof value !== "function") throw invalid(field, value, "a function");
  return value as (...args: never[]) => void;
}

/** An AbortSignal, of this realm or another. */
export function abortSignal(value: unknown, field: string): AbortSignal {
  const like = value as Partial<AbortSignal> | null;
  if (typeof like !== "object" || typeof like?.aborted !== "boolean" || typeof like.addEventListener !== "function")
    throw invalid(field, value, "an AbortSignal");
  return value as AbortSignal;
}
