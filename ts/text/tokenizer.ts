/**
 * Text to token ids and back, as a checkpoint's tokenizer.json says.
 *
 * One library tokenizer without any added token encodes plain text, so an added token can never arise from content;
 * where special tokens are to be parsed, the text is first cut at them.
 * @module
 */
import { Tokenizer as LibraryTokenizer } from "@huggingface/tokenizers";
import { LongcatError } from "../errors.js";
import { PieceMerger } from "./bpe.js";
import { bytesOfToken, unfinishedTail } from "./byte-level.js";
import { decodeTokens } from "./detokenizer.js";
import { EncodeWorker } from "./encode-worker-host.js";
import { type AddedToken, readTokenizerConfig, readTokenizerFile, type TokenizerConfig, type TokenizerFile } from "./tokenizer-files.js";

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });

/** How a text is encoded. */
export interface EncodeOptions {
  /** Whether added tokens in the text become their ids. Default false: they are plain text. */
  parseSpecial?: boolean;
}

/** How a long text is encoded. */
export interface EncodeAsyncOptions extends EncodeOptions {
  /** A text that certainly has more tokens than this is refused before any work. */
  maxTokens?: number;
}

/** Ids, or how many tokens a text has at least when that is more than `maxTokens`. */
export type EncodeResult = { tooLong?: false; ids: number[] } | { tooLong: true; atLeast: number };

/** A stretch of plain text, or one added token. */
export type Segment = string | AddedToken;

/** Texts of more UTF-16 units than this leave the main thread. */
const WORKER_LENGTH = 20_000;
/** Pieces of more bytes than this are merged by {@link PieceMerger}; the library keeps shorter ones in its cache. */
const LONG_PIECE = 256;

/** The library's model, of whose methods one is replaced for long pieces. */
interface LibraryModel {
  bpe(piece: string): string[];
}

/**
 * A checkpoint's tokenizer.
 *
 * @example
 * const tokenizer = await Tokenizer.load("models/mini");
 * tokenizer?.decode(tokenizer.encode("Once upon a time"));
 */
export class Tokenizer {
  readonly dir: string;
  readonly config: TokenizerConfig;
  /** How many ids exist. */
  readonly size: number;
  /** Every id that exists, ascending; ids of the model's padding are not among them. */
  readonly allowedIds: readonly number[];
  /** Ids of tokenizer_config's `eos_token`. */
  readonly endTokenIds: readonly number[];
  /** The tokens outside the merges, by their text. */
  readonly addedTokens: ReadonlyMap<string, AddedToken>;

  readonly #file: TokenizerFile;
  readonly #library: LibraryTokenizer;
  readonly #tokens: (string | undefined)[] = [];
  readonly #bytes: (Uint8Array | undefined)[] = [];
  readonly #texts = new Map<number, string>();
  readonly #addedById = new Map<number, AddedToken>();
  readonly #addedPattern: RegExp | null;
  readonly #strips: boolean;
  readonly #longestTokenBytes: number;
  readonly #worker: EncodeWorker;

  private constructor(dir: string, file: TokenizerFile, config: TokenizerConfig) {
    this.dir = dir;
    this.config = config;
    this.#file = file;
    for (const [token, id] of file.vocab) this.#tokens[id] = token;
    const added = new Map<string, AddedToken>();
    for (const token of file.added) {
      added.set(token.content, token);
      this.#addedById.set(token.id, token);
      this.#tokens[token.id] = token.content;
    }
    this.addedTokens = added;
    this.#library = contentTokenizer(file);
    this.#addedPattern = patternOf([...added.keys()]);
    this.#strips = file.added.some((token) => token.lstrip || token.rstrip);
    this.allowedIds = [...this.#tokens.keys()].filter((id) => this.#tokens[id] !== undefined);
    this.size = this.allowedIds.length;
    this.#longestTokenBytes = this.allowedIds.reduce((longest, id) => Math.max(longest, this.tokenBytes(id).length), 1);
    this.endTokenIds = config.eosTokens.map((token) => {
      const id = this.idOf(token);
      if (id === undefined) {
        throw new LongcatError("TOKENIZER_INVALID", `${config.path}: eos_token ${JSON.stringify(token)} is not a token of ${file.path}`);
      }
      return id;
    });
    this.#worker = new EncodeWorker(dir);
  }

  /**
   * Loads the tokenizer of a checkpoint folder; null if it has no tokenizer.json.
   * @throws LongcatError `TOKENIZER_INVALID` naming the file.
   */
  static async load(dir: string): Promise<Tokenizer | null> {
    const file = await readTokenizerFile(dir);
    if (file === null) return null;
    const config = await readTokenizerConfig(dir);
    return new Tokenizer(dir, file, config);
  }

  /** Refuses a tokenizer whose ids go beyond the model's vocabulary. */
  checkAgainst(vocabSize: number): void {
    const highest = this.allowedIds.at(-1) ?? -1;
    if (highest < vocabSize) return;
    throw new LongcatError(
      "TOKENIZER_INVALID",
      `${this.#file.path}: token ${JSON.stringify(this.#tokens[highest])} has the id ${highest}, but the model's vocab_size is ${vocabSize}`,
    );
  }

  /** The id of a token by its text: an added token, or one of the vocabulary as tokenizer.json writes it. */
  idOf(token: string): number | undefined {
    return this.addedTokens.get(token)?.id ?? this.#file.vocab.get(token);
  }

  /** Whether the tokenizer has this id. */
  has(id: number): boolean {
    return this.#tokens[id] !== undefined;
  }

  /** Whether an id is a special token: not shown in visible text. */
  isSpecial(id: number): boolean {
    return this.#addedById.get(id)?.special === true;
  }

  /** The added token of an id, special or not. */
  addedToken(id: number): AddedToken | undefined {
    return this.#addedById.get(id);
  }

  /**
   * The bytes that a token stands for; of an added token, the UTF-8 of its text.
   * @throws LongcatError `PROMPT_INVALID` for an id that the tokenizer does not have.
   */
  tokenBytes(id: number): Uint8Array {
    const known = this.#bytes[id];
    if (known !== undefined) return known;
    const token = this.#tokens[id];
    if (token === undefined) {
      throw new LongcatError("PROMPT_INVALID", `token id ${id} is not one of the tokenizer's ${this.size} ids`);
    }
    const bytes = this.#addedById.has(id) ? new TextEncoder().encode(token) : bytesOfToken(token);
    this.#bytes[id] = bytes;
    return bytes;
  }

  /** The text of a token that begins a character; undefined if it does not end one. Kept, since answers consist of few different tokens. */
  wholeText(id: number): string | undefined {
    const known = this.#texts.get(id);
    if (known !== undefined) return known;
    const bytes = this.tokenBytes(id);
    if (unfinishedTail(bytes) > 0) return undefined;
    const text = utf8.decode(bytes);
    this.#texts.set(id, text);
    return text;
  }

  /** Cuts a text at its added tokens, the longest first where several fit. */
  split(text: string): Segment[] {
    if (this.#addedPattern === null) return text === "" ? [] : [text];
    const segments: Segment[] = [];
    let start = 0;
    for (const match of text.matchAll(this.#addedPattern)) {
      if (match.index > start) segments.push(text.slice(start, match.index));
      segments.push(this.addedTokens.get(match[0]) as AddedToken);
      start = match.index + match[0].length;
    }
    if (start < text.length) segments.push(text.slice(start));
    return this.#strips ? stripAround(segments) : segments;
  }

  /** The ids of a text. */
  encode(text: string, options: EncodeOptions = {}): number[] {
    return this.encodeSegments(options.parseSpecial === true ? this.split(text) : [text]);
  }

  /** The ids of a text that is already cut: strings are plain text whatever they hold. */
  encodeSegments(segments: readonly Segment[]): number[] {
    const [only] = segments;
    if (segments.length === 1 && typeof only === "string") return this.#encodePlain(only);
    return segments.flatMap((segment) => (typeof segment === "string" ? this.#encodePlain(segment) : segment.id));
  }

  /**
   * The ids of a text; a long one is encoded in a worker thread, so that the event loop goes on.
   * A text that cannot have `maxTokens` tokens or fewer is refused before any work.
   *
   * @throws LongcatError `DISPOSED` for a long text if the tokenizer is closed before its ids are there.
   */
  async encodeAsync(text: string, options: EncodeAsyncOptions = {}): Promise<EncodeResult> {
    const atLeast = this.#fewestTokens(Buffer.byteLength(text), options.parseSpecial === true && this.#strips);
    if (options.maxTokens !== undefined && atLeast > options.maxTokens) return { tooLong: true, atLeast };
    return this.encodeSegmentsAsync(options.parseSpecial === true ? this.split(text) : [text], options.maxTokens);
  }

  /** As {@link encodeAsync}, of a text that is already cut. */
  async encodeSegmentsAsync(segments: readonly Segment[], maxTokens = Number.POSITIVE_INFINITY): Promise<EncodeResult> {
    const added = segments.reduce((count, segment) => count + (typeof segment === "string" ? 0 : 1), 0);
    const bytes = segments.reduce((sum, segment) => sum + (typeof segment === "string" ? Buffer.byteLength(segment) : 0), 0);
    const atLeast = added + this.#fewestTokens(bytes, false);
    if (atLeast > maxTokens) return { tooLong: true, atLeast };
    const length = segments.reduce((sum, segment) => sum + (typeof segment === "string" ? segment.length : 0), 0);
    if (length <= WORKER_LENGTH) return { ids: this.encodeSegments(segments) };
    const plain = segments.map((segment) => (typeof segment === "string" ? segment : segment.id));
    return { ids: (await this.#worker.encode(plain)) ?? this.encodeSegments(segments) };
  }

  /**
   * The text of some ids. Byte sequences that are not UTF-8 become U+FFFD.
   * @param options.skipSpecial Leaves special tokens out. Default false.
   */
  decode(ids: readonly number[], options: { skipSpecial?: boolean } = {}): string {
    return decodeTokens(this, ids, options.skipSpecial === true);
  }

  /** Ends the worker thread, if there is one, and with it the long texts that wait for it. What needs no thread still works. */
  close(): void {
    this.#worker.close();
  }

  #encodePlain(text: string): number[] {
    return text === "" ? [] : this.#library.encode(text, { add_special_tokens: false }).ids;
  }

  /** The least number of tokens that `bytes` bytes of text can have. */
  #fewestTokens(bytes: number, stripped: boolean): number {
    return this.#file.lossless && !stripped ? Math.ceil(bytes / this.#longestTokenBytes) : 0;
  }
}

/** The library's tokenizer of plain text: it knows no added token, and no merge leads to a special one. */
function contentTokenizer(file: TokenizerFile): LibraryTokenizer {
  const special = new Set(file.added.filter((token) => token.special).map((token) => token.content));
  const merges = file.merges.filter(([left, right]) => !special.has(left + right));
  const made = new Set(merges.map(([left, right]) => left + right));
  const hidden = new Set(file.added.map((token) => token.content).filter((content) => !made.has(content)));
  const vocab = new Map([...file.vocab].filter(([token]) => !hidden.has(token) || [...token].length === 1));
  const model = { ...(file.json["model"] as object), vocab: Object.fromEntries(vocab), merges };
  const document = { normalizer: null, pre_tokenizer: null, post_processor: null, ...file.json, added_tokens: [], model };
  try {
    const library = new LibraryTokenizer(document, { clean_up_tokenization_spaces: false });
    mergeLongPieces(library, new PieceMerger(vocab, merges));
    library.encode("The library says here what it cannot do: 1, 2.\n", { add_special_tokens: false });
    return library;
  } catch (error) {
    throw new LongcatError("TOKENIZER_INVALID", `${file.path}: ${(error as Error).message}`, { cause: error });
  }
}

/** Sends long pieces to our own merging: the library makes several objects a byte. */
function mergeLongPieces(library: LibraryTokenizer, merger: PieceMerger): void {
  const model = library.model as unknown as LibraryModel;
  const mergeShort = model.bpe.bind(model);
  model.bpe = (piece) => (piece.length > LONG_PIECE ? merger.merge(piece) : mergeShort(piece));
}

function patternOf(contents: string[]): RegExp | null {
  if (contents.length === 0) return null;
  const longestFirst = contents.sort((a, b) => b.length - a.length);
  return new RegExp(longestFirst.map((content) => content.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|"), "g");
}

/** Added tokens may swallow the white space beside them. */
function stripAround(segments: Segment[]): Segment[] {
  return segments
    .map((segment, at) => {
      if (typeof segment !== "string") return segment;
      const before = segments[at - 1];
      const after = segments[at + 1];
      let text = segment;
      if (typeof before === "object" && before.rstrip) text = text.trimStart();
      if (typeof after === "object" && after.lstrip) text = text.trimEnd();
      return text;
    })
    .filter((segment) => segment !== "");
}
