/** Byte-level BPE trained here: what it learns, that it repeats, and that any text comes back. */
import { Tokenizer as LibraryTokenizer } from "@huggingface/tokenizers";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { trainBpe } from "../../../ts/train/data/bpe-trainer.js";
import { drawCorpus } from "../../../ts/train/data/corpus/index.js";
import { plainText } from "../../../ts/train/data/document.js";
import { formOf, trainTokenizer } from "../../../ts/train/data/tokenizer.js";
import { refused } from "../../helpers/mini.js";

const TEXTS = drawCorpus("stories", { documents: 200, digits: 2 }, 5).map(plainText);
const files = trainTokenizer(TEXTS, 600);
const json = JSON.parse(Buffer.from(files.get("tokenizer.json")!).toString());

describe("merges", () => {
  const merges = (pieces: string[], size: number) => trainBpe(pieces, ["<ab>", "a", "b", "c", "<", ">"], 1, size).merges;

  it("take the most frequent pair, the first of those that are equally frequent", () => {
    expect(merges(["ab", "ab", "bc", "bc", "bc"], 8)).toEqual([
      ["b", "c"],
      ["a", "b"],
    ]);
    expect(merges(["ab", "bc", "bc", "ab"], 7)).toEqual([["a", "b"]]);
  });

  it("build on one another, from the left", () => {
    expect(merges(["aaaaa", "aaaaa"], 9)).toEqual([
      ["a", "a"],
      ["aa", "aa"],
      ["aaaa", "a"],
    ]);
  });

  it("end where no pair stands twice, and never make a special token", () => {
    expect(merges(["abc"], 100)).toEqual([]);
    expect(merges(["<ab>", "<ab>", "<ab>"], 100).map(([left, right]) => left + right)).not.toContain("<ab>");
  });
});

describe("a trained tokenizer", () => {
  it("has as many tokens as it was to have: special ones, bytes, merges in order", () => {
    const { vocab, merges } = json.model as { vocab: Record<string, number>; merges: [string, string][] };
    expect(Object.values(vocab).sort((a, b) => a - b)).toEqual(Array.from({ length: 600 }, (_, id) => id));
    expect(vocab["</longcat_s>"]).toBe(2);
    for (const [rank, [left, right]] of merges.entries()) expect(vocab[left + right]).toBeLessThanOrEqual(268 + rank);
  });

  it("is the same bytes for the same texts", () => {
    expect(Buffer.from(trainTokenizer(TEXTS, 600).get("tokenizer.json")!)).toEqual(Buffer.from(files.get("tokenizer.json")!));
  });

  it("makes less of what it was trained on than bytes, and much less", async () => {
    const { tokenizer } = await formOf(files);
    const text = TEXTS.join("\n");
    expect(tokenizer.encode(text).length).toBeLessThan(Buffer.byteLength(text) / 3);
  });

  it.each([
    "",
    "\0\u0001\u007f\u0080",
    "</longcat_s><longcat_think>",
    "naïve 中文 👩‍👩‍👧 \u{1f1e9}\u{1f1ea} עברית",
    "\r\n\t  \u00a0\u2028 \n\n  x",
    "\ufeffbom \ufffd \u200b",
    "' 's 'RE don't",
    `${"a".repeat(5000)}${"é".repeat(3000)}`,
    "1234567890".repeat(50),
  ])("gives %j back", async (text) => {
    const { tokenizer } = await formOf(files);
    expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
    expect(tokenizer.encode(text).some((id) => tokenizer.isSpecial(id))).toBe(false);
  });

  it("gives any text back, and the library reads the file alike", async () => {
    const { tokenizer } = await formOf(files);
    const library = new LibraryTokenizer({ ...json, added_tokens: [] }, { clean_up_tokenization_spaces: false });
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 60 }), (text) => {
        const ids = tokenizer.encode(text);
        expect(tokenizer.decode(ids)).toBe(text);
        if (text !== "" && !text.includes("longcat")) expect(library.encode(text, { add_special_tokens: false }).ids).toEqual(ids);
      }),
    );
  });

  it("needs room for special tokens and bytes", () => {
    expect(() => trainTokenizer(TEXTS, 267)).toThrow(refused("OPTION_INVALID", "at least the 268 tokens"));
  });
});
