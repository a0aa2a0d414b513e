/** Runs on text: that they learn and answer in text, that they repeat and go on, and what they refuse. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { resumeTraining, train } from "../../ts/index.js";
import { drawCorpus } from "../../ts/train/data/corpus/index.js";
import { plainText } from "../../ts/train/data/document.js";
import { parseData } from "../../ts/train/data/options.js";
import { TextData } from "../../ts/train/data/text.js";
import { MINI } from "../text/fixtures.js";
import { refused } from "../helpers/mini.js";
import { TOY, toyRun } from "../helpers/training.js";

let dir = "";
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "longcat-text-run-"));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const SUMS = { sources: [{ kind: "sums", documents: 4000, digits: 1 }], length: 48, heldOut: 0.1 };

/** A run on text, with room for special tokens, bytes and 52 merges. */
const textRun = (data: Record<string, unknown>, changes: Record<string, unknown> = {}) =>
  toyRun({ model: { ...TOY, vocab_size: 320 }, task: undefined, sequences: 8, data, ...changes });

/** Every file of a folder, as bytes. */
const filesOf = (folder: string) =>
  Object.fromEntries(
    readdirSync(folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map(({ parentPath, name }) => [join(parentPath, name).slice(folder.length), readFileSync(join(parentPath, name), "base64")]),
  );

/** All kinds of sources, which end and begin again within a few steps. */
function mixedRun(name: string, changes: Record<string, unknown> = {}): Record<string, unknown> {
  const texts = join(dir, `${name}.txt`);
  const chats = join(dir, `${name}.jsonl`);
  const draw = (part: "stories" | "recall") => drawCorpus(part, { documents: 30, digits: 2 }, 9);
  writeFileSync(texts, draw("stories").map(plainText).join("\n\n"));
  writeFileSync(
    chats,
    draw("recall")
      .map((document) => JSON.stringify(document))
      .join("\n"),
  );
  const sources = [
    { kind: "text", path: texts, filter: { minLength: 20 } },
    { kind: "jsonl", path: chats, weight: 2 },
    { kind: "reasoning", documents: 20, weight: 0.5 },
  ];
  return textRun({ sources, length: 64, deduplicate: 0.9 }, { steps: 12, saveEvery: 5, evaluateEvery: 6, ...changes });
}

describe("a run on mixed text", () => {
  it("that is stopped and goes on leaves the files of one that was not, on any number of threads", async () => {
    const [whole, stopped] = [join(dir, "whole"), join(dir, "stopped")];
    const run = mixedRun("mixed");
    await train(run, whole, { threads: 2 });
    const stop = new AbortController();
    await expect(train(run, stopped, { signal: stop.signal, onStep: ({ step }) => step === 7 && stop.abort() })).rejects.toThrow(
      refused("ABORTED", "after 7 of 12 steps"),
    );
    await resumeTraining(stopped, { threads: 1 });
    rmSync(join(stopped, "checkpoint-00000007"), { recursive: true });
    expect(filesOf(stopped)).toEqual(filesOf(whole));
    expect(Object.keys(filesOf(join(whole, "checkpoint-00000012"))).sort()).toEqual([
      "/config.json",
      "/model.safetensors",
      "/tokenizer.json",
      "/tokenizer_config.json",
      "/training/optimizer.safetensors",
      "/training/run.json",
    ]);
  });

  it("does not go on with texts that are not what they were", async () => {
    const output = join(dir, "changed");
    await train(mixedRun("changing", { steps: 2 }), output);
    const path = join(dir, "changing.txt");
    writeFileSync(path, `${readFileSync(path, "utf8")}\n\nOne document more, of more than twenty letters.`);
    await expect(resumeTraining(output)).rejects.toThrow(refused("CHECKPOINT_INVALID", "are not what they were"));
  });

  it("takes the tokenizer of a checkpoint, and packs in one stream", async () => {
    const data = { sources: [{ kind: "stories", documents: 40 }], length: 64, packing: "stream", tokenizer: MINI };
    const output = join(dir, "stream");
    const { checkpoint } = await train(textRun(data, { steps: 2, model: { ...TOY, vocab_size: 1200 } }), output);
    expect(readFileSync(join(checkpoint, "tokenizer.json"))).toEqual(readFileSync(join(MINI, "tokenizer.json")));
  });
});

describe("batches", () => {
  const open = (data: Record<string, unknown>, seed = 3) => TextData.open(parseData(data), { seed, sequences: 4, vocabSize: 320 });

  it("are within their capacity, and take each row once before any comes again", async () => {
    const data = await open({ sources: [{ kind: "sums", documents: 200 }], length: 48 });
    const seen: string[] = [];
    for (let i = 0; i < 60; i++) {
      const batch = data.batch(i);
      const tokens = batch.map((sequence) => sequence.tokens.length);
      expect(batch.length).toBeLessThanOrEqual(data.capacity.sequences);
      expect(Math.max(...tokens)).toBeLessThanOrEqual(data.capacity.length);
      expect(tokens.reduce((sum, count) => sum + count, 0)).toBeLessThanOrEqual(data.capacity.tokens);
      seen.push(...batch.map((sequence) => JSON.stringify(sequence)));
    }
    const different = new Set(seen).size;
    expect(new Set(seen.slice(0, different)).size).toBe(different);
    expect(seen.length).toBeGreaterThan(2 * different);
    expect(data.heldOut(0).some((sequence) => seen.includes(JSON.stringify(sequence)))).toBe(false);
  });

  it("are a function of the seed, and so is the digest", async () => {
    const options = { sources: [{ kind: "recall", documents: 50 }], length: 64 };
    const [one, same, other] = [await open(options), await open(options), await open(options, 4)];
    expect([same.batch(7), same.digest]).toEqual([one.batch(7), one.digest]);
    expect(other.digest).not.toBe(one.digest);
  });

  it("need a row of every source, held out too", async () => {
    await expect(open({ sources: [{ kind: "sums", documents: 4 }], length: 48, packing: "stream" })).rejects.toThrow(
      refused("OPTION_INVALID", "its part heldOut has not that much"),
    );
  });
});

describe("a run file", () => {
  const cases: [Record<string, unknown>, string][] = [
    [textRun(SUMS, { task: { kind: "sums", digits: 1 } }), "data, task: a run has one of them"],
    [textRun(SUMS, { distinct: 5 }), "distinct: is for runs with a task"],
    [textRun({ ...SUMS, length: 65 }), "model.max_position_embeddings: 64 is not accepted; give at least the 65 tokens"],
    [textRun(SUMS, { model: TOY }), "model.vocab_size: 24 is not accepted; give at least the 268 tokens"],
    [textRun({ ...SUMS, tokenizer: "nowhere" }), 'data.tokenizer: "nowhere" is not accepted'],
  ];
  it.each(cases)("with %j is refused", async (run, message) => {
    await expect(train(run, join(dir, "refused"))).rejects.toThrow(refused("OPTION_INVALID", message));
  });

  it("with a tokenizer of more ids than the model has is refused", async () => {
    await expect(train(textRun({ ...SUMS, tokenizer: MINI }), join(dir, "refused"))).rejects.toThrow(
      refused("TOKENIZER_INVALID", "vocab_size is 320"),
    );
  });
});
