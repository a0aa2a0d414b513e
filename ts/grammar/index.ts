/**
 * Constrained generation: formats of answers in, guides of choices out. Grammars are kept for requests that ask for the same again.
 * @module
 */
import { THINK_CLOSE } from "../text/markers.js";
import { LongcatError } from "../errors.js";
import { type AnswerFormat, compileAnswer, schemaText } from "./answer.js";
import type { Automaton } from "./automaton.js";
import { Guide } from "./guide.js";
import { specialSymbols, type TokenSource, Vocabulary } from "./vocabulary.js";

export { type AnswerFormat, ANY_OBJECT, type CallableTool } from "./answer.js";
export { Guide } from "./guide.js";
export { type TokenSource, Vocabulary } from "./vocabulary.js";

/** Makes the guide of a choice. `ends`: the tokens that end its generation. */
export type NewGuide = (ends: ReadonlySet<number>) => Guide;

/** Grammars that are kept. */
const KEPT_GRAMMARS = 32;
/** A grammar that has grown to so many places is made anew. */
const MAX_PLACES = 200_000;

/** The grammars of one checkpoint. */
export class Grammars {
  readonly #source: TokenSource;
  readonly #size: number;
  readonly #symbols: ReadonlyMap<string, number>;
  #vocabulary: Promise<Vocabulary> | undefined;
  readonly #kept = new Map<string, Automaton>();

  /** @param size ids of the model. */
  constructor(size: number, source: TokenSource) {
    this.#size = size;
    this.#source = source;
    this.#symbols = specialSymbols(source);
  }

  /**
   * Checks an answer's format without what only guides need: the vocabulary is not sorted.
   *
   * @throws LongcatError `OPTION_INVALID` naming the part of a schema that is not supported, or cannot be satisfied.
   */
  async check(format: AnswerFormat): Promise<void> {
    this.#reasoningEnd(format);
    await this.#automaton(format);
  }

  /** What makes guides of an answer's format. Throws what {@link check} throws. */
  async guides(format: AnswerFormat): Promise<NewGuide> {
    const reasoningEnd = this.#reasoningEnd(format);
    this.#vocabulary ??= Vocabulary.build(this.#size, this.#source);
    const vocabulary = await this.#vocabulary;
    const automaton = await this.#automaton(format);
    const { tokenBytes } = this.#source;
    return (ends) => new Guide({ automaton, vocabulary, tokenBytes, ends, reasoningEnd });
  }

  /** The token that ends the reasoning before an answer; undefined: there is none. */
  #reasoningEnd({ afterReasoning }: AnswerFormat): number | undefined {
    if (!afterReasoning) return undefined;
    const end = this.#source.special.get(THINK_CLOSE);
    if (end !== undefined) return end;
    throw new LongcatError("OPTION_INVALID", `responseFormat: not with reasoning, which this tokenizer has no token ${THINK_CLOSE} to end`);
  }

  async #automaton(format: AnswerFormat): Promise<Automaton> {
    const key = keyOf(format);
    const automaton = this.#find(key) ?? (await compileAnswer(format, (text) => this.#symbols.get(text)));
    this.#keep(key, automaton);
    return automaton;
  }

  #find(key: string): Automaton | undefined {
    const known = this.#kept.get(key);
    return known !== undefined && known.size <= MAX_PLACES ? known : undefined;
  }

  #keep(key: string, automaton: Automaton): void {
    this.#kept.delete(key);
    this.#kept.set(key, automaton);
    const [oldest] = this.#kept.keys();
    if (this.#kept.size > KEPT_GRAMMARS && oldest !== undefined) this.#kept.delete(oldest);
  }
}

function keyOf({ json, calls, afterReasoning }: AnswerFormat): string {
  const tools = calls?.tools.map(({ name, parameters, path }) => [name, schemaText(parameters, path)]);
  return JSON.stringify([json && schemaText(json.schema, json.path), tools, calls?.several, calls?.form, afterReasoning]);
}
