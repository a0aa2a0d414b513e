/** The made corpus: that it repeats, that it is right, and that it is written as the bundled model was taught. */
import { describe, expect, it } from "vitest";
import { CORPUS_PARTS, type CorpusPart, drawCorpus } from "../../../ts/train/data/corpus/index.js";
import { type ChatDocument, isChat, parseDocument, plainText } from "../../../ts/train/data/document.js";
import { encodeDocument } from "../../../ts/train/data/encode.js";
import { BUNDLED, loadForm } from "../../../ts/train/data/tokenizer.js";
import { chatCases, type GoldenCase } from "../../text/fixtures.js";

const draw = (part: CorpusPart, documents = 300, seed = 1) => drawCorpus(part, { documents, digits: 2 }, seed);
const chats = (part: CorpusPart) => draw(part).filter(isChat);
const last = ({ messages }: ChatDocument) => messages.at(-1)!;
const question = ({ messages }: ChatDocument) => messages.find(({ role }) => role === "user")!.content as string;

describe.each(CORPUS_PARTS)("%s", (part) => {
  it("are a function of the seed, longer or shorter", () => {
    expect(draw(part, 20)).toEqual(draw(part, 30).slice(0, 20));
    expect(draw(part, 20)).not.toEqual(draw(part, 20, 2));
  });

  it("are documents as JSONL has them", () => {
    for (const document of draw(part, 50)) expect(parseDocument(JSON.parse(JSON.stringify(document)), "here")).toEqual(document);
  });

  it("differ", () => {
    expect(new Set(draw(part).map((document) => JSON.stringify(document))).size).toBeGreaterThan(270);
  });
});

const value = (term: string) => {
  const [, a, sign, b] = /(\d+) ([+*-]) (\d+)/.exec(term)!;
  return sign === "+" ? Number(a) + Number(b) : sign === "-" ? Number(a) - Number(b) : Number(a) * Number(b);
};

describe("what it says is right", () => {
  it("sums", () => {
    for (const chat of chats("sums")) expect(last(chat).content).toBe(String(value(question(chat))));
    for (const document of draw("sums").filter((one) => !isChat(one))) {
      const [term, result] = plainText(document).split(" = ");
      expect(result).toBe(String(value(term!)));
    }
  });

  it("reasoning: the steps lead to the digits of the sum", () => {
    for (const chat of chats("reasoning")) {
      const { content, reasoning_content: steps } = last(chat);
      expect(content).toBe(String(value(question(chat))));
      expect(steps).toMatch(/^(\d( \+ \d){1,2} = \d+; )*\d( \+ \d){1,2} = \d+\. So (\d ?)+\.$/);
      expect(/So (.*)\.$/.exec(steps!)![1]!.replaceAll(" ", "")).toBe(content);
    }
  });

  it("tools: the call is one of those shown, and products are products", () => {
    for (const { tools, messages } of chats("tools")) {
      const called = messages[1]!.tool_calls![0]!.function;
      expect(tools!.map((tool) => tool.function.name)).toContain(called.name);
      if (called.name === "calculator") expect(messages[2]!.content).toBe(String(value(messages[0]!.content as string)));
    }
  });

  it("recall: what is answered was told", () => {
    for (const chat of chats("recall")) {
      const [asked, answer] = [question(chat), last(chat).content as string];
      if (asked.includes("What does")) expect(asked).toContain(answer);
      if (asked.startsWith("Sort")) expect(answer.slice(0, -1).split(", ")).toEqual(answer.slice(0, -1).split(", ").sort());
    }
  });
});

describe("a chat in mini's form", () => {
  /** A golden case with its recorded answer as a document. */
  function documentOf({ messages, tools, enable_thinking, text }: GoldenCase): ChatDocument {
    const call = /^<longcat_tool_call>\n(.*)\n<\/longcat_tool_call>$/s.exec(text);
    const [reasoning, content] = enable_thinking ? (text.split("\n</longcat_think>\n") as [string, string]) : ["", text];
    const answer = call
      ? { content: "", tool_calls: [{ type: "function" as const, function: JSON.parse(call[1]!) }] }
      : { content, ...(reasoning && { reasoning_content: reasoning }) };
    return {
      messages: [...messages!, { role: "assistant", ...answer }],
      ...(tools && { tools }),
      ...(enable_thinking && { enable_thinking }),
    };
  }

  it.each(chatCases.map((one, i) => [i, one] as const))("is recorded case %i: prompt and answer, token for token", async (_, one) => {
    const encoded = encodeDocument(documentOf(one), await loadForm(BUNDLED), "answers").at(-1)!;
    expect(encoded).toEqual({ ids: [...one.prompt_ids, ...one.greedy_ids], learnFrom: one.prompt_ids.length });
  });

  it("has a document for each answer", async () => {
    const form = await loadForm(BUNDLED);
    const [first] = chats("tools");
    expect(encodeDocument(first!, form, "all").map(({ learnFrom }) => learnFrom)).toEqual([0, 0]);
  });
});
