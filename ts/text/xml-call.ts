/**
 * Reads one tool call in the form of keys and values between tags, while its text arrives:
 *
 * ```
 * NAME
 * <longcat_arg_key>k</longcat_arg_key>
 * <longcat_arg_value>v</longcat_arg_value>
 * ```
 *
 * and writes its arguments as JSON. A value has the type that the tool's schema gives it, else it is a string.
 * @module
 */
import { KEY_CLOSE, KEY_OPEN, type Marker, VALUE_CLOSE, VALUE_OPEN } from "./markers.js";
import type { CallReader } from "./tool-call-parser.js";
import type { Tool } from "./types.js";

type State = "name" | "between" | "key" | "after key" | "value" | "broken";

const NAME = /^\s*[\w.:-]{0,128}\s*$/;

export class XmlCallReader implements CallReader {
  name: string | undefined;
  readonly #tools: readonly Tool[];
  #state: State = "name";
  #text = "";
  /** What the value being read may be besides a string; null: only a string. */
  #types: Set<string> | null = null;
  #json = "";
  #pairs = 0;
  #taken = 0;
  /** The first half of a surrogate pair whose second half is still to come. */
  #half = "";

  constructor(tools: readonly Tool[]) {
    this.#tools = tools;
  }

  get broken(): boolean {
    return this.#state === "broken";
  }

  /** Inside a value every tag but its own end is part of it. */
  get takesTags(): boolean {
    return this.#state === "value";
  }

  push(text: string): void {
    switch (this.#state) {
      case "name":
        this.#text += text;
        if (!NAME.test(this.#text)) this.#state = "broken";
        break;
      case "between":
      case "after key":
        if (text.trim() !== "") this.#state = "broken";
        break;
      case "key":
        this.#text += text;
        break;
      case "value":
        if (this.#types === null) this.#json += this.#escape(text);
        else this.#text += text;
        break;
      case "broken":
        break;
    }
  }

  tag(marker: Marker): void {
    if (marker === KEY_OPEN && this.#state === "name") this.#beginPairs();
    if (marker === KEY_OPEN && this.#state === "between") this.#become("key");
    else if (marker === KEY_CLOSE && this.#state === "key") this.#finishKey();
    else if (marker === VALUE_OPEN && this.#state === "after key") this.#become("value");
    else if (marker === VALUE_CLOSE && this.#state === "value") this.#finishValue();
    else this.#state = "broken";
  }

  /** Whether a tag ends the value, rather than being part of it. */
  ends(marker: Marker): boolean {
    return marker === VALUE_CLOSE;
  }

  takeArguments(): string {
    const piece = this.#json.slice(this.#taken);
    this.#taken = this.#json.length;
    return piece;
  }

  close(): string | null {
    if (this.#state === "name") {
      this.#beginPairs();
      // Without a pair only a tool's own name tells a call from a word of prose.
      if (this.#tools.length > 0 && this.#tool() === undefined) this.#state = "broken";
    }
    if (this.#state !== "between") return null;
    this.#json += "}";
    return this.#json;
  }

  #become(state: State): void {
    this.#state = state;
    this.#text = "";
  }

  #beginPairs(): void {
    const name = this.#text.trim();
    if (name === "") {
      this.#state = "broken";
      return;
    }
    this.name = name;
    this.#json = "{";
    this.#state = "between";
  }

  #finishKey(): void {
    const key = this.#text.trim();
    this.#types = otherTypes(this.#property(key));
    this.#json += `${this.#pairs++ > 0 ? ", " : ""}${JSON.stringify(key)}: ${this.#types === null ? '"' : ""}`;
    this.#become("after key");
  }

  #finishValue(): void {
    this.#json += this.#types === null ? `${this.#flushHalf()}"` : typedValue(this.#text, this.#types);
    this.#become("between");
  }

  /** A piece of a string as JSON writes it, without the quotes. */
  #escape(text: string): string {
    const all = this.#half + text;
    const halved = /[\ud800-\udbff]$/.test(all);
    this.#half = halved ? all.slice(-1) : "";
    return JSON.stringify(halved ? all.slice(0, -1) : all).slice(1, -1);
  }

  #flushHalf(): string {
    const half = this.#half;
    this.#half = "";
    return JSON.stringify(half).slice(1, -1);
  }

  #tool(): Tool | undefined {
    return this.#tools.find((tool) => tool.function.name === this.name);
  }

  #property(key: string): unknown {
    const properties = this.#tool()?.function.parameters?.["properties"];
    return typeof properties === "object" && properties !== null && Object.hasOwn(properties, key)
      ? (properties as Record<string, unknown>)[key]
      : undefined;
  }
}

/** The types besides string that a schema allows; null if it allows, or says, nothing else. */
function otherTypes(schema: unknown): Set<string> | null {
  const types = new Set(namedTypes(schema));
  types.delete("string");
  return types.size > 0 ? types : null;
}

/** The types that a schema names for a value; none: it does not say. */
export function namedTypes(schema: unknown): string[] {
  if (typeof schema !== "object" || schema === null) return [];
  const { type, anyOf, oneOf, enum: values, const: value } = schema as Record<string, unknown>;
  if (typeof type === "string") return [type];
  if (Array.isArray(type)) return type.filter((one) => typeof one === "string");
  const choices = [anyOf, oneOf].filter(Array.isArray).flat();
  if (choices.length > 0) return choices.flatMap(namedTypes);
  if (Array.isArray(values)) return values.flatMap(typesOf);
  return value === undefined ? [] : typesOf(value);
}

/** The names of a value's types in JSON schema. */
function typesOf(value: unknown): string[] {
  if (value === null) return ["null"];
  if (Array.isArray(value)) return ["array"];
  if (typeof value === "number") return Number.isInteger(value) ? ["integer", "number"] : ["number"];
  return [typeof value];
}

/** The text of a value as written if it is JSON of one of the types, else as a string. */
function typedValue(text: string, types: ReadonlySet<string>): string {
  try {
    if (typesOf(JSON.parse(text)).some((type) => types.has(type))) return text.trim();
  } catch {
    // not JSON: a string
  }
  return JSON.stringify(text);
}
