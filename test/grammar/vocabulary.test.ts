/** Masks over a vocabulary with long tokens say of each token exactly what reading its bytes says. */
import { beforeAll, describe, expect, test } from "vitest";
import { type BenchVocabulary, benchVocabulary } from "../../ts/engine/bench-vocabulary.js";
import type { Automaton, State } from "../../ts/grammar/automaton.js";
import { Guide, Vocabulary } from "../../ts/grammar/index.js";
import { automatonOf, draws } from "./reader.js";

const SIZE = 6000;
let source: BenchVocabulary;
let vocabulary: Vocabulary;
beforeAll(async () => {
  source = benchVocabulary(SIZE);
  vocabulary = await Vocabulary.build(SIZE, source);
});

const has = (mask: Int32Array, id: number): boolean => (((mask[id >> 5] as number) >>> (id & 31)) & 1) === 1;

function reads(automaton: Automaton, from: State, id: number): State | null {
  let state: State | null = from;
  for (const byte of source.tokenBytes(id)) state = state && automaton.step(state, byte);
  return state;
}

const SCHEMAS: Record<string, unknown> = {
  "any object": { type: "object" },
  "strings with and without limits": {
    type: "object",
    properties: { a: { type: "string" }, b: { type: "string", maxLength: 3 }, c: { type: "string", minLength: 4, maxLength: 9 } },
    required: ["a", "b", "c"],
  },
  "a limited string or a pattern": {
    anyOf: [
      { type: "string", maxLength: 2 },
      { type: "string", pattern: "^[a-z ]+$" },
    ],
  },
  "numbers and values": { type: "array", items: { anyOf: [{ type: "number" }, { enum: ["the", "then", "them, too"] }] } },
  "further properties": { type: "object", properties: { the: { type: "null" } }, additionalProperties: { type: "string" } },
};

describe("a mask", () => {
  test.each(Object.entries(SCHEMAS))("of %s is what the tokens' bytes say", async (_, schema) => {
    const automaton = await automatonOf(schema);
    const random = draws(7);
    let state = automaton.start;
    for (let step = 0; step < 25; step++) {
      const mask = vocabulary.maskOf(automaton, state);
      const right: number[] = [];
      for (const id of source.textIds) if (reads(automaton, state, id) !== null) right.push(id);
      expect(source.textIds.filter((id) => has(mask, id))).toEqual(right);
      expect(has(mask, source.endToken)).toBe(false);
      const token = right[Math.floor(random() * right.length)];
      state = token === undefined ? automaton.start : (reads(automaton, state, token) as State);
    }
  });

  test("is the same array while the same may follow, so that it need not be sent again", async () => {
    const automaton = await automatonOf({ type: "string" });
    const guide = new Guide({
      automaton,
      vocabulary,
      tokenBytes: source.tokenBytes,
      ends: new Set([source.endToken]),
      reasoningEnd: undefined,
    });
    guide.mask();
    for (const token of source.encode('"ab')) guide.accept(token);
    const inside = guide.mask();
    for (const token of source.encode(" some words")) guide.accept(token);
    expect(guide.mask()).toBe(inside);
  });
});

describe("a guide", () => {
  const guideOf = async (schema: unknown, ends: readonly number[] = [source.endToken], reasoningEnd?: number): Promise<Guide> =>
    new Guide({ automaton: await automatonOf(schema), vocabulary, tokenBytes: source.tokenBytes, ends: new Set(ends), reasoningEnd });

  test("lets the end through only where the answer may end", async () => {
    const guide = await guideOf({ type: "integer" });
    expect(has(guide.mask(), source.endToken)).toBe(false);
    for (const token of source.encode("12")) guide.accept(token);
    expect(has(guide.mask(), source.endToken)).toBe(true);
    expect(guide.isComplete).toBe(false);
  });

  test("is complete when nothing may follow", async () => {
    const guide = await guideOf({ const: "x" });
    for (const token of source.encode('"x"')) guide.accept(token);
    expect(guide.isComplete).toBe(true);
  });

  test("keeps stop tokens out of the text", async () => {
    const [stop] = source.encode("the");
    const guide = await guideOf({ type: "string" }, [source.endToken, stop as number]);
    for (const token of source.encode('"')) guide.accept(token);
    expect(has(guide.mask(), stop as number)).toBe(false);
    expect(has(guide.mask(), source.encode("a")[0] as number)).toBe(true);
  });

  test("in reasoning lets all through but the end", async () => {
    const guide = await guideOf({ const: "x" }, [source.endToken], 300);
    expect(has(guide.mask(), 300)).toBe(true);
    expect(has(guide.mask(), source.endToken)).toBe(false);
    guide.accept(5);
    guide.accept(300);
    expect(has(guide.mask(), 5)).toBe(false);
    expect(has(guide.mask(), source.encode('"')[0] as number)).toBe(true);
  });

  test("refuses a token that is not of the format, and a format that no token goes on in", async () => {
    const guide = await guideOf({ const: "x" });
    expect(() => guide.accept(source.encode("a")[0] as number)).toThrow(expect.objectContaining({ code: "INTERNAL" }));
    const blocked = await guideOf({ const: 7 }, [source.endToken, ...source.encode("7")]);
    expect(() => blocked.mask()).toThrow(expect.objectContaining({ code: "OPTION_INVALID" }));
  });
});
