/** Documents from files: reading, filters, copies, what is held out. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { drawCorpus } from "../../../ts/train/data/corpus/index.js";
import { plainText } from "../../../ts/train/data/document.js";
import { type FilterOptions, passes } from "../../../ts/train/data/filter.js";
import { NearCopies } from "../../../ts/train/data/minhash.js";
import { parseData } from "../../../ts/train/data/options.js";
import { readJsonl, readText, SEPARATOR } from "../../../ts/train/data/read.js";
import { readSources } from "../../../ts/train/data/sources.js";
import { drawsOf, shuffled } from "../../../ts/train/random.js";
import { refused } from "../../helpers/mini.js";

let dir = "";
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "longcat-data-"));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** Writes a file and gives its path. */
function file(name: string, content: string | Uint8Array): string {
  const path = join(dir, name);
  writeFileSync(path, content);
  return path;
}

describe("text", () => {
  it("is cut at empty lines, or where the run says", () => {
    const path = file("a.txt", "one\r\n\r\ntwo\nlines\n\n\n\nthree\n");
    expect(readText(path, SEPARATOR)).toEqual([{ text: "one" }, { text: "two\nlines" }, { text: "three" }]);
    expect(readText(path, "lines")).toEqual([{ text: "one\n\ntwo" }, { text: "three" }]);
  });

  it("of a folder is that of its .txt files by name", () => {
    const folder = join(dir, "folder");
    mkdirSync(folder);
    for (const name of ["b.txt", "a.txt", "c.md"]) writeFileSync(join(folder, name), name);
    expect(readText(folder, SEPARATOR).map(plainText)).toEqual(["a.txt", "b.txt"]);
    expect(() => readJsonl(folder)).toThrow(refused("OPTION_INVALID", "a folder with files *.jsonl"));
  });

  it("that is none is refused", () => {
    expect(() => readText(join(dir, "nothing"), SEPARATOR)).toThrow(refused("OPTION_INVALID", "data.sources.path"));
    expect(() => readText(file("bytes.txt", Uint8Array.of(0xff, 0xfe, 0x41)), SEPARATOR)).toThrow(refused("OPTION_INVALID", "UTF-8"));
  });
});

describe("JSONL", () => {
  it("has texts and chats, and other fields that are left", () => {
    const chat = {
      messages: [
        { role: "user", content: "Hello" },
        { role: "assistant", content: "Hi" },
      ],
    };
    const path = file("a.jsonl", `{"text":"one","source":"here"}\n\n${JSON.stringify({ id: 5, ...chat })}\n`);
    expect(readJsonl(path)).toEqual([{ text: "one" }, chat]);
  });

  it.each([
    ["{", "JSON"],
    ['{"txt":"a"}', '"text" or "messages"'],
    ['{"messages":[{"role":"user"}]}', "messages"],
    ['{"messages":[{"role":"user","content":"a"}]}', "no message is the assistant's"],
    ["[]", '"text" or "messages"'],
  ])("%s is refused with its line", (line, message) => {
    expect(() => readJsonl(file("bad.jsonl", `{"text":"fine"}\n${line}\n`))).toThrow(refused("OPTION_INVALID", message));
    expect(() => readJsonl(join(dir, "bad.jsonl"))).toThrow(refused("OPTION_INVALID", "bad.jsonl:2: "));
  });
});

describe("filters", () => {
  const cases: [string, FilterOptions, boolean][] = [
    ["four", { minLength: 4, maxLength: 4 }, true],
    ["four", { minLength: 5 }, false],
    ["four", { maxLength: 3 }, false],
    ["the cat sat on the mat by the door", { maxRepeated: 0 }, true],
    ["buy it now buy it now buy it now buy it now", { maxRepeated: 0.5 }, false],
    ["Ein Satz, 中文 und 12.", { minLetters: 0.8 }, true],
    ["=== *** --- ###", { minLetters: 0.5 }, false],
    ["a line\nand\tanother", { maxBroken: 0 }, true],
    ["bro\ufffdken\u0000", { maxBroken: 0.1 }, false],
    ["", { minLetters: 0.1 }, false],
  ];
  it.each(cases)("%j with %j: %s", (text, filter, kept) => expect(passes(text, filter)).toBe(kept));
});

describe("near-copies", () => {
  const words = Array.from({ length: 2000 }, (_, i) => `word${i}`);
  const text = (seed: number) =>
    shuffled(2000, drawsOf(seed, 0))
      .slice(0, 200)
      .map((i) => words[i])
      .join(" ");
  const changed = (original: string, every: number) =>
    original
      .split(" ")
      .map((word, i) => (i % every === 0 ? `other${i}` : word))
      .join(" ");

  it("are found, whatever their case and signs", () => {
    const near = new NearCopies(0.8);
    expect([text(1), text(2), text(3)].map((one) => near.isCopy(one))).toEqual([false, false, false]);
    expect(near.isCopy(`${text(2).toUpperCase().replaceAll(" ", ", ")}!`)).toBe(true);
    // 2 of 200 words: some 10 of 196 runs are others on either side.
    expect(near.isCopy(changed(text(3), 100))).toBe(true);
    // Every tenth word: half of the runs.
    expect(near.isCopy(changed(text(3), 10))).toBe(false);
  });

  it("at lower similarity too, and none among texts that differ", () => {
    const near = new NearCopies(0.3);
    for (let seed = 0; seed < 300; seed++) expect(near.isCopy(text(seed))).toBe(false);
    for (let seed = 0; seed < 300; seed += 30) expect(near.isCopy(changed(text(seed), 20))).toBe(true);
  });

  it("of short texts are the same words", () => {
    const near = new NearCopies(0.5);
    expect(["Yes.", "No.", "yes!", ""].map((one) => near.isCopy(one))).toEqual([false, false, true, false]);
  });
});

describe("sources", () => {
  const read = (data: Record<string, unknown>, seed = 1) => readSources(parseData({ length: 8, ...data }), seed);
  const lines = (count: number, of: (i: number) => string) =>
    Array.from({ length: count }, (_, i) => JSON.stringify({ text: of(i) })).join("\n");

  it("hold a share of their documents out, by the seed", () => {
    const sources = [
      { kind: "stories", documents: 100 },
      { kind: "jsonl", path: file("many.jsonl", lines(50, String)) },
    ];
    const [made, found] = read({ sources, heldOut: 0.1 });
    expect([made!, found!].map(({ train, heldOut }) => [train.length, heldOut.length])).toEqual([
      [90, 10],
      [45, 5],
    ]);
    expect([...found!.train, ...found!.heldOut].map(plainText).sort()).toEqual(Array.from({ length: 50 }, (_, i) => String(i)).sort());
    expect(read({ sources, heldOut: 0.1 })).toEqual([made, found]);
    expect(read({ sources, heldOut: 0.1 }, 2)[1]).not.toEqual(found);
  });

  it("have each document once, near-copies if the run says so, and what passes", () => {
    const story = plainText(drawCorpus("stories", { documents: 1, digits: 2 }, 0)[0]!);
    const texts = [story, `${story} The end.`, "short", story, "a quite different text that is no copy of any other one here"];
    const source = {
      kind: "jsonl",
      path: file(
        "copies.jsonl",
        lines(5, (i) => texts[i]!),
      ),
    };
    const count = (data: Record<string, unknown>) => read(data).flatMap(({ train, heldOut }) => [...train, ...heldOut]).length;
    expect(count({ sources: [source] })).toBe(4);
    expect(count({ sources: [source], deduplicate: 0.7 })).toBe(3);
    expect(count({ sources: [{ ...source, filter: { minLength: 10 } }], deduplicate: 0.7 })).toBe(2);
    expect(() => count({ sources: [source, source] })).toThrow(refused("OPTION_INVALID", "data.sources[1]"));
  });

  const wrong: [Record<string, unknown>, string][] = [
    [{ sources: [] }, "data.sources"],
    [{ sources: [{ kind: "poems" }] }, "data.sources[0].kind"],
    [{ sources: [{ kind: "stories", documents: 10, digits: 3 }] }, "data.sources[0].digits: is not known"],
    [{ sources: [{ kind: "sums", documents: 10, weight: 0 }] }, "data.sources[0].weight"],
    [{ sources: [{ kind: "text" }] }, "data.sources[0].path"],
    [{ sources: [{ kind: "text", path: "a", filter: { minLetters: 2 } }] }, "data.sources[0].filter.minLetters"],
    [{ sources: [{ kind: "sums", documents: 10 }], packing: "tight" }, "data.packing"],
    [{ sources: [{ kind: "sums", documents: 10 }], deduplicate: 0 }, "data.deduplicate"],
    [{ sources: [{ kind: "sums", documents: 10 }], length: 1 }, "data.length"],
  ];
  it.each(wrong)("%j are refused", (data, message) => expect(() => read(data)).toThrow(refused("OPTION_INVALID", message)));
});
