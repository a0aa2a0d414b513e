/**
 * Keeps one choice to its grammar: before each token, which ids may be drawn; after it, where that leads.
 * @module
 */
import { LongcatError } from "../errors.js";
import type { Automaton, State } from "./automaton.js";
import type { Vocabulary } from "./vocabulary.js";

/** What a guide needs to know of its request. */
export interface GuideRules {
  automaton: Automaton;
  vocabulary: Vocabulary;
  tokenBytes(id: number): Uint8Array;
  /** Tokens that end the generation: let through only where the answer may end. */
  ends: ReadonlySet<number>;
  /** The answer begins in reasoning, which is free until this token; undefined: it does not. */
  reasoningEnd: number | undefined;
}

/**
 * Follows one answer.
 *
 * @example
 * const guide = new Guide(rules);
 * while (!guide.isComplete) guide.accept(await draw(guide.mask()));
 */
export class Guide {
  readonly #rules: GuideRules;
  #state: State;
  #reasons: boolean;
  #reasoningMask: Int32Array | undefined;
  /** Ends whose bytes a text may hold: stop tokens, mostly none. */
  readonly #textEnds: readonly number[];

  constructor(rules: GuideRules) {
    this.#rules = rules;
    this.#state = rules.automaton.start;
    this.#reasons = rules.reasoningEnd !== undefined;
    this.#textEnds = [...rules.ends].filter((id) => rules.vocabulary.specialSymbol(id) === undefined);
  }

  /** The answer is whole and nothing may follow. */
  get isComplete(): boolean {
    return !this.#reasons && this.#state.isComplete;
  }

  /**
   * Ids that may be drawn now: bit i of word i / 32. Not to be written to; the same array as before where the same ids may follow.
   *
   * @throws LongcatError `OPTION_INVALID` if no token goes on, the tokenizer's or stop tokens being what they are.
   */
  mask(): Int32Array {
    const { vocabulary, automaton, ends } = this.#rules;
    if (this.#reasons) return this.#reasoning();
    const mask = vocabulary.maskOf(automaton, this.#state);
    const masked = this.#state.mayEnd
      ? withBits(mask, ends, true)
      : this.#textEnds.length > 0
        ? withBits(mask, this.#textEnds, false)
        : mask;
    if (masked.every((word) => word === 0))
      throw new LongcatError("OPTION_INVALID", "responseFormat: no token goes on in this format that is not a stop token");
    return masked;
  }

  /** Takes the token that was drawn. */
  accept(token: number): void {
    const { vocabulary, automaton, ends, reasoningEnd, tokenBytes } = this.#rules;
    if (this.#reasons) {
      this.#reasons = token !== reasoningEnd;
      return;
    }
    if (ends.has(token) && this.#state.mayEnd) return;
    const special = vocabulary.specialSymbol(token);
    let state: State | null = this.#state;
    if (special !== undefined) state = automaton.step(state, special);
    else for (const byte of tokenBytes(token)) state = state && automaton.step(state, byte);
    if (state === null) throw new LongcatError("INTERNAL", `token ${token} was drawn, which the response format does not allow here`);
    this.#state = state;
  }

  /** In reasoning anything goes but the end. */
  #reasoning(): Int32Array {
    this.#reasoningMask ??= withBits(new Int32Array(this.#rules.vocabulary.words).fill(-1), this.#rules.ends, false);
    return this.#reasoningMask;
  }
}

/** A copy of a mask in which some ids' bits are set or cleared. */
function withBits(mask: Int32Array, ids: Iterable<number>, on: boolean): Int32Array {
  const copy = mask.slice();
  for (const id of ids) {
    const [word, bit] = [id >> 5, 1 << (id & 31)];
    copy[word] = on ? (copy[word] as number) | bit : (copy[word] as number) & ~bit;
  }
  return copy;
}
