/**
 * Generated tokens to what a caller sees: visible text, reasoning and tool calls, while they arrive.
 *
 * Tags are known by their token ids where the tokenizer has them, so a tag spelled out of ordinary tokens stays text.
 * The pieces joined are the result, however the tokens are cut.
 * @module
 */
import type { ReasoningStart } from "./chat-template.js";
import { Detokenizer } from "./detokenizer.js";
import { CALL_OPEN, MARKERS, type Marker, MarkerScanner, type Piece, THINK_CLOSE, THINK_OPEN } from "./markers.js";
import { StopScanner } from "./stop-scanner.js";
import type { Tokenizer } from "./tokenizer.js";
import { ToolCallParser, type ToolFormat } from "./tool-call-parser.js";
import type { TextDelta, Tool, ToolCall } from "./types.js";

/** How an answer is read. */
export interface OutputParserOptions {
  tokenizer: Tokenizer;
  /** Stop strings; none is empty. */
  stop?: readonly string[];
  /** The prompt has opened reasoning: as the rendered chat says. `true` is `"after-newline"`. */
  startsInReasoning?: boolean | ReasoningStart;
  toolFormat?: ToolFormat;
  /** The tools that the prompt shows. Without any, no tool call is looked for. */
  tools?: readonly Tool[];
  /**
   * `"chat"` (default): special tokens are hidden, tags structure the answer. `"raw"`: the text as it is, special
   * tokens written out except the tokenizer's end tokens; for prompts that did not go through the chat template.
   */
  mode?: "chat" | "raw";
}

/** What all tokens gave together. `reasoning` and `toolCalls` are there if the answer had any. */
export interface ParsedOutput {
  text: string;
  reasoning?: string;
  toolCalls?: ToolCall[];
}

/**
 * Reads one answer, token by token.
 *
 * @example
 * const parser = new OutputParser({ tokenizer, stop: ["\n\n"] });
 * for (const token of tokens) show(parser.push(token).text);
 * show(parser.end().text);
 * parser.result();
 */
export class OutputParser {
  readonly #tokenizer: Tokenizer;
  readonly #detokenizer: Detokenizer;
  /** Finds the tags for which the tokenizer has no token. */
  readonly #scanner: MarkerScanner | null;
  readonly #chat: boolean;
  readonly #calls: ToolCallParser | null;
  readonly #text: StopScanner;
  readonly #reasoning: StopScanner;
  #reasons: boolean;
  #reasoned: boolean;
  /** The newline that belongs to the tag before is still to come. */
  #skipNewline: boolean;
  /** A newline that may belong to the tag behind it. */
  #heldNewline = false;
  /** White space behind a tool call, which counts only if text follows; null: there was no call. */
  #afterCall: string | null = null;
  readonly #parts = { text: [] as string[], reasoning: [] as string[] };
  #ended = false;

  constructor(options: OutputParserOptions) {
    const { tokenizer, stop = [], tools = [], startsInReasoning = false } = options;
    this.#tokenizer = tokenizer;
    this.#chat = options.mode !== "raw";
    const hidden = new Set(tokenizer.endTokenIds);
    this.#detokenizer = new Detokenizer(tokenizer, { showSpecial: this.#chat ? false : (id) => !hidden.has(id) });
    const read: readonly Marker[] = tools.length > 0 ? MARKERS : [THINK_OPEN, THINK_CLOSE];
    const spelled = this.#chat ? read.filter((marker) => !tokenizer.addedTokens.has(marker)) : [];
    this.#scanner = spelled.length > 0 ? new MarkerScanner(spelled) : null;
    this.#calls = this.#chat && tools.length > 0 ? new ToolCallParser({ tools, format: options.toolFormat ?? "auto" }) : null;
    this.#text = new StopScanner(stop);
    this.#reasoning = new StopScanner(stop);
    this.#reasons = this.#chat && startsInReasoning !== false;
    this.#reasoned = this.#reasons;
    this.#skipNewline = startsInReasoning === "after-tag";
  }

  /** A stop string was found; further tokens give nothing. */
  get stopped(): boolean {
    return this.#text.stopped || this.#reasoning.stopped;
  }

  /** Whether the answer is in its reasoning now. */
  get inReasoning(): boolean {
    return this.#reasons;
  }

  /** Takes one generated token. The end token that finished the answer need not be given; it shows nothing. */
  push(token: number): TextDelta {
    const delta = emptyDelta();
    if (!this.stopped && !this.#ended) this.#take(this.#pieces(token), delta);
    return this.#note(delta);
  }

  /** The answer ends: gives what was held back, and U+FFFD for an unfinished character. */
  end(): TextDelta {
    const delta = emptyDelta();
    if (!this.stopped && !this.#ended) {
      this.#take(this.#found(this.#detokenizer.end(), true), delta);
      this.#calls?.end();
      this.#releaseNewline(delta);
      if (!this.stopped) {
        delta.reasoning += this.#reasoning.end();
        delta.text += this.#text.end();
      }
    }
    this.#ended = true;
    return this.#note(delta);
  }

  /** Everything so far: the joined deltas, and the tool calls that are whole. */
  result(): ParsedOutput {
    const calls = this.#calls?.calls ?? [];
    return {
      text: this.#parts.text.join(""),
      ...(this.#reasoned ? { reasoning: this.#parts.reasoning.join("") } : {}),
      ...(calls.length > 0 ? { toolCalls: [...calls] } : {}),
    };
  }

  #pieces(token: number): Piece[] {
    const marker = this.#chat ? MARKERS.find((one) => one === this.#tokenizer.addedToken(token)?.content) : undefined;
    if (marker === undefined) return this.#found(this.#detokenizer.push([token]), false);
    return [...this.#found(this.#detokenizer.end(), true), { marker }];
  }

  /** Text cut at the tags that are spelled out. */
  #found(text: string, flush: boolean): Piece[] {
    if (this.#scanner === null) return text === "" ? [] : [{ text }];
    return [...this.#scanner.push(text), ...(flush ? this.#scanner.end() : [])];
  }

  #take(pieces: readonly Piece[], delta: TextDelta): void {
    for (const piece of pieces) {
      if (this.stopped) return;
      if (this.#calls !== null && (this.#calls.inside || piece.marker === CALL_OPEN)) this.#takeCall(this.#calls, piece, delta);
      else if (piece.marker === undefined) this.#show(piece.text, delta);
      else this.#turn(piece.marker, delta);
    }
  }

  #takeCall(calls: ToolCallParser, piece: Piece, delta: TextDelta): void {
    if (!calls.inside) this.#releaseNewline(delta);
    if (this.#afterCall !== null) this.#afterCall = "";
    const output = calls.push(piece);
    delta.toolCalls.push(...output.toolCalls);
    if (output.text !== "") this.#show(output.text, delta);
    if (!calls.inside) this.#afterCall = "";
  }

  /** Reasoning begins or ends. Other tags show nothing. */
  #turn(marker: Marker, delta: TextDelta): void {
    if (marker === THINK_OPEN && !this.#reasons) {
      this.#reasons = true;
      this.#reasoned = true;
    } else if (marker === THINK_CLOSE && this.#reasons) {
      this.#heldNewline = false;
      delta.reasoning += this.#reasoning.end();
      this.#reasons = false;
    } else {
      return;
    }
    this.#afterCall = null;
    this.#skipNewline = true;
  }

  #show(text: string, delta: TextDelta): void {
    const shown = this.#skipNewline && text.startsWith("\n") ? text.slice(1) : text;
    this.#skipNewline = false;
    if (shown === "") return;
    if (this.#reasons) this.#showReasoning(shown, delta);
    else this.#showText(shown, delta);
  }

  #showReasoning(text: string, delta: TextDelta): void {
    const all = (this.#heldNewline ? "\n" : "") + text;
    this.#heldNewline = all.endsWith("\n");
    delta.reasoning += this.#reasoning.push(this.#heldNewline ? all.slice(0, -1) : all);
  }

  #showText(text: string, delta: TextDelta): void {
    const all = (this.#afterCall ?? "") + text;
    if (this.#afterCall !== null && all.trim() === "") {
      this.#afterCall = all;
      return;
    }
    this.#afterCall = null;
    delta.text += this.#text.push(all);
  }

  #releaseNewline(delta: TextDelta): void {
    if (!this.#heldNewline) return;
    this.#heldNewline = false;
    delta.reasoning += this.#reasoning.push("\n");
  }

  #note(delta: TextDelta): TextDelta {
    if (delta.text !== "") this.#parts.text.push(delta.text);
    if (delta.reasoning !== "") this.#parts.reasoning.push(delta.reasoning);
    delta.stopped = this.stopped;
    return delta;
  }
}

function emptyDelta(): TextDelta {
  return { text: "", reasoning: "", toolCalls: [], stopped: false };
}
