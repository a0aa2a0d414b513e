/**
 * Reads one tool call in the JSON form, `{"name": …, "arguments": {…}}`, while its text arrives.
 * @module
 */
import type { CallReader } from "./tool-call-parser.js";

type State = "start" | "first key" | "key start" | "key" | "colon" | "value start" | "value" | "after value" | "done" | "broken";

const SPACE = " \t\r\n";

/** One call; each character is looked at once. */
export class JsonCallReader implements CallReader {
  /** The name, once it is read. */
  name: string | undefined;
  #state: State = "start";
  #key = "";
  /** The key or value being read, as written. */
  #text = "";
  #depth = 0;
  #inString = false;
  #escaped = false;
  /** The arguments as written, as far as they are read; undefined before they begin. */
  #arguments: string | undefined;
  #argumentsSeen = false;
  /** The value being read is an object of arguments, which comes out while it is read; others have to be whole first. */
  #streams = false;
  #taken = 0;

  get broken(): boolean {
    return this.#state === "broken";
  }

  /** Tags inside a string are part of it. */
  get takesTags(): boolean {
    return this.#inString;
  }

  push(text: string): void {
    for (let at = 0; at < text.length; at++) this.#step(text[at] as string);
    if (this.#streams && this.#state === "value") this.#arguments = this.#text;
  }

  tag(): void {
    this.#state = "broken";
  }

  takeArguments(): string {
    const known = this.#arguments ?? "";
    const piece = known.slice(this.#taken);
    this.#taken = known.length;
    return piece;
  }

  close(): string | null {
    if (this.#state !== "done" || this.name === undefined) return null;
    this.#arguments ??= "{}";
    return this.#arguments;
  }

  #step(character: string): void {
    const space = SPACE.includes(character);
    switch (this.#state) {
      case "start":
        if (!space) this.#state = character === "{" ? "first key" : "broken";
        break;
      case "first key":
      case "key start":
        if (space) break;
        if (character === '"') this.#begin("key", character);
        else this.#state = character === "}" && this.#state === "first key" ? "done" : "broken";
        break;
      case "key":
      case "value":
        this.#extend(character);
        break;
      case "colon":
        if (!space) this.#state = character === ":" ? "value start" : "broken";
        break;
      case "value start":
        if (!space) this.#begin("value", character);
        break;
      case "after value":
        if (!space) this.#state = character === "," ? "key start" : character === "}" ? "done" : "broken";
        break;
      case "done":
        if (!space) this.#state = "broken";
        break;
      case "broken":
        break;
    }
  }

  #begin(state: "key" | "value", character: string): void {
    this.#state = state;
    this.#text = character;
    this.#inString = character === '"';
    this.#depth = character === "{" || character === "[" ? 1 : 0;
    this.#streams = state === "value" && this.#key === "arguments" && character === "{" && !this.#argumentsSeen;
  }

  #extend(character: string): void {
    const primitive = !this.#inString && this.#depth === 0;
    if (primitive && (character === "," || character === "}" || SPACE.includes(character))) {
      this.#finish();
      this.#step(character);
      return;
    }
    this.#text += character;
    if (this.#inString) this.#extendString(character);
    else if (character === '"') this.#inString = true;
    else if (character === "{" || character === "[") this.#depth++;
    else if (character === "}" || character === "]") this.#depth--;
    if (!primitive && !this.#inString && this.#depth === 0) this.#finish();
  }

  #extendString(character: string): void {
    if (this.#escaped) this.#escaped = false;
    else if (character === "\\") this.#escaped = true;
    else if (character === '"') this.#inString = false;
  }

  /** A key or value is whole: checked to be JSON, then taken. */
  #finish(): void {
    const value = parseJson(this.#text);
    if (value === undefined) {
      this.#state = "broken";
    } else if (this.#state === "key") {
      this.#key = value as string;
      this.#state = "colon";
    } else {
      this.#state = this.#takeValue(value) ? "after value" : "broken";
    }
  }

  #takeValue(value: unknown): boolean {
    if (this.#key === "name") {
      if (this.name !== undefined || typeof value !== "string" || value === "") return false;
      this.name = value;
    } else if (this.#key === "arguments") {
      const text = argumentsText(this.#text, value);
      if (this.#argumentsSeen || text === null) return false;
      this.#argumentsSeen = true;
      this.#arguments = text;
    }
    return true;
  }
}

/** The arguments as JSON text of an object: as written, out of a string, or `{}` for null. */
function argumentsText(text: string, value: unknown): string | null {
  if (value === null) return "{}";
  if (typeof value === "string") {
    if (value.trim() === "") return "{}";
    const inner = parseJson(value);
    return isObject(inner) ? value : null;
  }
  return isObject(value) ? text : null;
}

function isObject(value: unknown): boolean {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
