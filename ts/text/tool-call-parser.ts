/**
 * Tool calls out of an answer that arrives in pieces, in both formats of the LongCat family: JSON between the call
 * tags, and a name with keys and values between tags. What comes out does not depend on how the text is cut.
 * @module
 */
import { randomUUID } from "node:crypto";
import { JsonCallReader } from "./json-call.js";
import { CALL_CLOSE, CALL_OPEN, type Marker, type Piece } from "./markers.js";
import type { Tool, ToolCall, ToolCallDelta } from "./types.js";
import { XmlCallReader } from "./xml-call.js";

/** How a checkpoint writes tool calls; `auto`: by the first character, `{` or a name. */
export type ToolFormat = "auto" | "json" | "xml";

/** Reads one call. */
export interface CallReader {
  /** Known once the call may be announced. */
  readonly name: string | undefined;
  /** This is no call. */
  readonly broken: boolean;
  /** Tags are part of the text here. */
  readonly takesTags: boolean;
  push(text: string): void;
  tag(marker: Marker): void;
  /** Of a reader that takes tags: whether this one is not text but an end. */
  ends?(marker: Marker): boolean;
  /** The JSON text of the arguments since it was last taken. */
  takeArguments(): string;
  /** The close tag came: all arguments, or null if this is no whole call. */
  close(): string | null;
}

/** What a piece of the answer gave. */
export interface CallOutput {
  /** Text that is no call after all. */
  text: string;
  toolCalls: ToolCallDelta[];
}

type Region =
  | { kind: "outside" }
  /** Between the tags, before the first character that tells the format. */
  | { kind: "opened"; raw: string }
  /** In a call; `raw` is the text so far, shown if it turns out to be none before it was announced. */
  | { kind: "call"; reader: CallReader; raw: string; id: string | null }
  /** Between the tags, but no call: `shown` text, or the rest of a call that broke after it was announced. */
  | { kind: "refused"; shown: boolean };

/** Reads the calls of one answer. */
export class ToolCallParser {
  readonly #tools: readonly Tool[];
  readonly #format: ToolFormat;
  #region: Region = { kind: "outside" };
  #announced = 0;
  /** The calls that are whole. */
  readonly calls: ToolCall[] = [];

  constructor(options: { tools?: readonly Tool[]; format?: ToolFormat } = {}) {
    this.#tools = options.tools ?? [];
    this.#format = options.format ?? "auto";
  }

  /** Whether the answer is between call tags now. */
  get inside(): boolean {
    return this.#region.kind !== "outside";
  }

  /** Takes the next piece. Outside of calls only the tag that opens one belongs here. */
  push(piece: Piece): CallOutput {
    const output: CallOutput = { text: "", toolCalls: [] };
    if (piece.marker === undefined) this.#text(piece.text, output);
    else this.#tag(piece.marker, output);
    return output;
  }

  /** The answer ends: an unfinished call is dropped, it is neither text nor a call. */
  end(): void {
    this.#region = { kind: "outside" };
  }

  #text(text: string, output: CallOutput): void {
    const region = this.#region;
    if (region.kind === "opened") {
      region.raw += text;
      if (region.raw.trim() === "") return;
      const json = this.#format === "json" || (this.#format === "auto" && region.raw.trimStart().startsWith("{"));
      this.#region = { kind: "call", reader: json ? new JsonCallReader() : new XmlCallReader(this.#tools), raw: "", id: null };
      this.#text(region.raw, output);
    } else if (region.kind === "call") {
      region.raw += text;
      region.reader.push(text);
      this.#advance(output);
    } else if (region.kind === "outside" || region.shown) {
      output.text += text;
    }
  }

  #tag(marker: Marker, output: CallOutput): void {
    const region = this.#region;
    if (region.kind === "call" && region.reader.takesTags && region.reader.ends?.(marker) !== true) {
      this.#text(marker, output);
    } else if (marker === CALL_OPEN) {
      this.#region = { kind: "opened", raw: "" };
    } else if (marker === CALL_CLOSE) {
      this.#close(output);
    } else if (region.kind === "call") {
      region.reader.tag(marker);
      this.#advance(output);
    }
  }

  /** Gives out what the reader knows by now, or gives the call up. */
  #advance(output: CallOutput): void {
    if (this.#region.kind !== "call") return;
    const { reader, raw, id } = this.#region;
    if (reader.broken) {
      this.#region = { kind: "refused", shown: id === null };
      if (id === null) output.text += raw;
      return;
    }
    if (reader.name === undefined) return;
    const delta: ToolCallDelta = { index: this.#announced - 1 };
    if (id === null) {
      this.#region.id = `call_${randomUUID().replaceAll("-", "").slice(0, 24)}`;
      Object.assign(delta, { index: this.#announced++, id: this.#region.id, name: reader.name });
    }
    const piece = reader.takeArguments();
    if (piece !== "") delta.arguments = piece;
    if (id === null || piece !== "") output.toolCalls.push(delta);
  }

  #close(output: CallOutput): void {
    if (this.#region.kind === "call") {
      const { reader, raw, id } = this.#region;
      const args = reader.close();
      if (args !== null) {
        this.#advance(output);
        this.calls.push({ id: this.#region.id as string, name: reader.name as string, arguments: args });
      } else if (id === null) {
        output.text += raw;
      }
    }
    this.#region = { kind: "outside" };
  }
}
