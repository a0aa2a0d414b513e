/** A text side of fifty letters: id i is the i-th of them. Stop strings are cut, "(" … ")" is a tool call, 49 is the end token. */
import type { TokenParser } from "../../ts/engine/choice.js";
import type { TextTools } from "../../ts/engine/prompt.js";
import type { TextDelta, ToolCall } from "../../ts/text/types.js";

const LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTU()#";
export const END_TOKEN = 49;

/** Holds back what may begin a stop string. */
class FakeParser implements TokenParser {
  #held = "";
  #text = "";
  #call: string | undefined;
  readonly #calls: ToolCall[] = [];
  readonly #stop: readonly string[];

  constructor(stop: readonly string[]) {
    this.#stop = stop;
  }

  push(token: number): TextDelta {
    const letter = LETTERS[token] as string;
    if (letter === "(") this.#call = "";
    if (this.#call !== undefined) return this.#pushCall(letter);
    this.#held += letter;
    const at = this.#stop.map((stop) => this.#held.indexOf(stop)).filter((index) => index >= 0);
    if (at.length > 0) return this.#out(Math.min(...at), true);
    const longest = Math.max(
      0,
      ...this.#stop.map((stop) => [...stop].findLastIndex((_, i) => this.#held.endsWith(stop.slice(0, i + 1))) + 1),
    );
    return this.#out(this.#held.length - longest, false);
  }

  end(): TextDelta {
    return this.#out(this.#held.length, false);
  }

  result(): { text: string; toolCalls: ToolCall[] } {
    return { text: this.#text, toolCalls: this.#calls };
  }

  #pushCall(letter: string): TextDelta {
    const delta = this.#out(0, false);
    if (letter !== ")") {
      if (letter !== "(") this.#call += letter;
      return delta;
    }
    const call = { id: `call_${this.#calls.length}`, name: this.#call as string, arguments: "{}" };
    const index = this.#calls.push(call) - 1;
    this.#call = undefined;
    return {
      ...delta,
      toolCalls: [
        { index, id: call.id, name: call.name },
        { index, arguments: call.arguments },
      ],
    };
  }

  #out(length: number, stopped: boolean): TextDelta {
    const text = this.#held.slice(0, length);
    this.#held = stopped ? "" : this.#held.slice(length);
    this.#text += text;
    return { text, reasoning: "", toolCalls: [], stopped };
  }
}

export const encodeFake = (text: string): number[] => [...text].map((letter) => LETTERS.indexOf(letter));
export const decodeFake = (ids: readonly number[]): string => ids.map((id) => LETTERS[id]).join("");

export const fakeText: TextTools = {
  hasTemplate: true,
  allowedIds: [...LETTERS].map((_, id) => id),
  endTokenIds: [END_TOKEN],
  encode: async (text) => ({ ids: encodeFake(text) }),
  encodeChat: async (chat) => ({
    ids: encodeFake(chat.messages.map(({ content }) => content).join("")),
    ...{ tools: [], callForm: "json", startsInReasoning: false },
  }),
  newParser: (stop) => new FakeParser(stop),
  decode: decodeFake,
  isSpecial: () => false,
  tokenBytes: (id) => new TextEncoder().encode(LETTERS[id] as string),
};
