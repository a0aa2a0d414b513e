/**
 * Constrained generation: formats of answers in, guides of choices out. Grammars are kept for requests that ask for the same again.
 * @module
 */
import { THINK_CLOSE } from "../text/markers.js";
import { LongcatError } from "../errors.js";
import { type AnswerFormat, compileAnswer, schemaText } from "./answer.js";
import type { Automaton } from "./automaton.js";
import { Guide } from "./guide.js";
import { type TokenSource, Vocabulary } from "./vocabulary.js";

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
  #vocabulary: Promise<Vocabulary> | undefined;
  readonly #kept = new Map<string, Automaton>();

  /** @param size ids of the model. */
  constructor(size: number, source: TokenSource) {
    this.#size = size;
    this.#source = source;
  }

  /**
   * What makes guides of an answer's format.
   *
   * @param format what to write.
   * @param inReasoning the prompt has opened reasoning.
   * @throws LongcatError `OPTION_INVALID` naming the part of a schema that is not supported, or cannot be satisfied.
   */
  async guides(format: AnswerFormat, inReasoning: boolean): Promise<NewGuide> {
    const reasoningEnd = inReasoning ? this.#source.special.get(THINK_CLOSE) : undefined;
    if (inReasoning && reasoningEnd === undefined)
      throw new LongcatError(
        "OPTION_INVALID",
        `responseFormat: not with reasoning, which this tokenizer has no token ${THINK_CLOSE} to end`,
      );
    const key = keyOf(format);
    this.#vocabulary ??= Vocabulary.build(this.#size, this.#source);
    const vocabulary = await this.#vocabulary;
    const automaton = this.#find(key) ?? (await compileAnswer(format, (text) => vocabulary.symbolOf(text)));
    this.#keep(key, automaton);
    const { tokenBytes } = this.#source;
    return (ends) => new Guide({ automaton, vocabulary, tokenBytes, ends, reasoningEnd });
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
