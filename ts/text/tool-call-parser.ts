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

/** How a checkpoint writes tool calls: as JSON, or as a name with keys and values between tags. */
export type CallForm = "json" | "xml";
/** How they are read; `auto`: by the first character, `{` or a name. */
export type ToolFormat = "auto" | CallForm;

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

/** In a call. */
interface CallRegion {
  kind: "call";
  reader: CallReader;
  /** The text so far, shown if it turns out to be no call before it was announced. */
  raw: string;
  /** Once it is announced. */
  call: { index: number; id: string } | null;
}

type Region =
  | { kind: "outside" }
  /** Between the tags, before the first character that tells the format. */
  | { kind: "opened"; raw: string }
  | CallRegion
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
      this.#region = { kind: "call", reader: json ? new JsonCallReader() : new XmlCallReader(this.#tools), raw: "", call: null };
      this.#text(region.raw, output);
    } else if (region.kind === "call") {
      this.#read(region, text, output);
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
      this.#announce(region, output);
      if (region.reader.broken) this.#refuse(region, output);
      else this.#giveArguments(region, output);
    }
  }

  /** Reads character by character, so that what comes out of a call that breaks does not depend on the cut. */
  #read(region: CallRegion, text: string, output: CallOutput): void {
    for (let at = 0; at < text.length; at++) {
      const character = text[at] as string;
      region.raw += character;
      region.reader.push(character);
      this.#announce(region, output);
      if (!region.reader.broken) continue;
      this.#refuse(region, output);
      this.#text(text.slice(at + 1), output);
      return;
    }
    this.#giveArguments(region, output);
  }

  /** Gives id and name, once they are known. */
  #announce(region: CallRegion, output: CallOutput): void {
    if (region.call !== null || region.reader.name === undefined || region.reader.broken) return;
    region.call = { index: this.#announced++, id: `call_${randomUUID().replaceAll("-", "").slice(0, 24)}` };
    output.toolCalls.push({ ...region.call, name: region.reader.name });
  }

  #giveArguments({ reader, call }: CallRegion, output: CallOutput): void {
    if (call === null) return;
    const piece = reader.takeArguments();
    if (piece === "") return;
    const last = output.toolCalls.at(-1);
    if (last?.index === call.index) last.arguments = (last.arguments ?? "") + piece;
    else output.toolCalls.push({ index: call.index, arguments: piece });
  }

  /** This is no call: its text shows, unless it was announced as one. */
  #refuse(region: CallRegion, output: CallOutput): void {
    this.#giveArguments(region, output);
    this.#region = { kind: "refused", shown: region.call === null };
    if (region.call === null) output.text += region.raw;
  }

  #close(output: CallOutput): void {
    const region = this.#region;
    if (region.kind === "call") {
      const args = region.reader.close();
      this.#announce(region, output);
      if (args === null) {
        this.#refuse(region, output);
      } else {
        this.#giveArguments(region, output);
        this.calls.push({ id: region.call?.id as string, name: region.reader.name as string, arguments: args });
      }
    }
    this.#region = { kind: "outside" };
  }
}
