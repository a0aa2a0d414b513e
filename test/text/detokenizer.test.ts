/** The streaming detokenizer: never half a character, and the joined pieces are the decoding of all ids. */
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { unfinishedTail } from "../../ts/text/byte-level.js";
import { Detokenizer, type Tokenizer } from "../../ts/text/index.js";
import { goldens, miniTokenizer } from "./fixtures.js";

let tokenizer: Tokenizer;
beforeAll(async () => {
  tokenizer = await miniTokenizer();
});

/** The pieces of a stream, the end's included. */
function pieces(ids: readonly number[], size = 1, showSpecial = false): string[] {
  const detokenizer = new Detokenizer(tokenizer, { showSpecial });
  const out: string[] = [];
  for (let at = 0; at < ids.length; at += size) out.push(detokenizer.push(ids.slice(at, at + size)));
  return [...out, detokenizer.end()];
}

const LONE_SURROGATE = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/;

describe("characters of several tokens", () => {
  const text = '{"x":"👩‍👩‍👧‍👦 🇩🇪 中文字符 삼겹살 naïve — ok"}';

  it("come out whole, token by token, without U+FFFD", () => {
    const ids = tokenizer.encode(text);
    expect(ids.length).toBeGreaterThan([...text].length); // most of these characters are several tokens
    const out = pieces(ids);
    expect(out.join("")).toBe(text);
    for (const piece of out) {
      expect(piece).not.toContain("\ufffd");
      expect(piece).not.toMatch(LONE_SURROGATE);
    }
  });

  it("become one U+FFFD when the text ends inside", () => {
    const ids = tokenizer.encode("x👍");
    for (let cut = 2; cut < ids.length; cut++) expect(pieces(ids.slice(0, cut)).join("")).toBe("x\ufffd");
  });
});

describe("the joined pieces", () => {
  it.each(goldens.tokenization.map((one, at) => [at, one] as const))("of tokenization %i are its decoding", (_, one) => {
    expect(pieces(one.ids, 1, true).join("")).toBe(one.decoded);
  });

  const anyIds = fc.array(fc.nat({ max: 1171 }), { maxLength: 60 });

  it("of any ids in pieces of any size are the decoding of all, special tokens hidden or shown", () => {
    fc.assert(
      fc.property(anyIds, fc.integer({ min: 1, max: 7 }), fc.boolean(), (ids, size, show) => {
        const out = pieces(ids, size, show);
        expect(out.join("")).toBe(tokenizer.decode(ids, { skipSpecial: !show }));
        for (const piece of out) expect(piece).not.toMatch(LONE_SURROGATE);
      }),
      { numRuns: 500 },
    );
  });

  it("of any bytes are what TextDecoder makes of them", () => {
    const byte = fc.oneof(fc.nat({ max: 255 }), fc.constantFrom(0xe2, 0x82, 0xf0, 0x9f, 0x91, 0xed, 0xa0, 0xf4, 0x90, 0xc3, 0xe0));
    const idOf = new Map(
      tokenizer.allowedIds
        .filter((id) => !tokenizer.isSpecial(id) && tokenizer.tokenBytes(id).length === 1)
        .map((id) => [tokenizer.tokenBytes(id)[0], id]),
    );
    expect(idOf.size).toBe(256);
    fc.assert(
      fc.property(fc.array(byte, { maxLength: 24 }), (bytes) => {
        const ids = bytes.map((one) => idOf.get(one) as number);
        expect(pieces(ids).join("")).toBe(new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(bytes)));
      }),
      { numRuns: 2000 },
    );
  });
});

describe("special tokens", () => {
  it("are hidden, shown, or picked", () => {
    const ids = [28, 4, 30, 2];
    expect(pieces(ids).join("")).toBe("13");
    expect(pieces(ids, 1, true).join("")).toBe("1<longcat_think>3</longcat_s>");
    const picked = new Detokenizer(tokenizer, { showSpecial: (id) => id !== 2 });
    expect(picked.push(ids)).toBe("1<longcat_think>3");
  });

  it("end an unfinished character when they show", () => {
    const [lead] = tokenizer.encode("👍");
    expect(pieces([lead as number, 4, 28], 1, true).join("")).toBe("\ufffd<longcat_think>1");
  });
});

describe("the unfinished tail of some bytes", () => {
  it.each([
    [[], 0],
    [[0x61], 0],
    [[0xc3], 1],
    [[0xc3, 0xa9], 0],
    [[0xe2, 0x82], 2],
    [[0xe2, 0x82, 0xac], 0],
    [[0xf0, 0x9f, 0x91], 3],
    [[0x82, 0x82, 0x82], 0],
    [[0xc1], 0],
    [[0xf5], 0],
    [[0xed, 0xa0], 0],
    [[0xe0, 0x80], 0],
    [[0xf4, 0x90], 0],
  ])("%j → %i", (bytes, tail) => {
    expect(unfinishedTail(Uint8Array.from(bytes))).toBe(tail);
  });
});
