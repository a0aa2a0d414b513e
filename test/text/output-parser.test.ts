/** Tokens to visible text, reasoning and tool calls: the same result for every cut, nothing of a tag shown. */
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { type OutputParserOptions, OutputParser, type ParsedOutput, type TextDelta, Tokenizer, type Tool } from "../../ts/text/index.js";
import { changedFolder, golden, goldens, miniTokenizer } from "./fixtures.js";

const tokenizer = await miniTokenizer();

type Options = Omit<OutputParserOptions, "tokenizer"> & { tokenizer?: Tokenizer };
interface Run extends ParsedOutput {
  stopped: boolean;
  deltas: TextDelta[];
}

/** Pushes ids one by one, and checks that the joined deltas are the result. */
function run(ids: readonly number[], options: Options = {}): Run {
  const parser = new OutputParser({ tokenizer, ...options });
  const deltas = [...ids.map((id) => parser.push(id)), parser.end()];
  const result = parser.result();
  expect(deltas.map((delta) => delta.text).join("")).toBe(result.text);
  expect(deltas.map((delta) => delta.reasoning).join("")).toBe(result.reasoning ?? "");
  for (const [index, call] of (result.toolCalls ?? []).entries()) {
    const own = deltas.flatMap((delta) => delta.toolCalls).filter((one) => one.index === index);
    expect(own.map((one) => one.id)).toEqual([call.id, ...own.slice(1).map(() => undefined)]);
    expect(own.map((one) => one.name)).toEqual([call.name, ...own.slice(1).map(() => undefined)]);
    expect(own.map((one) => one.arguments ?? "").join("")).toBe(call.arguments);
  }
  return { ...result, stopped: parser.stopped, deltas };
}

const special = (text: string): number[] => tokenizer.encode(text, { parseSpecial: true });
const calculator = golden(20).tools as Tool[];

describe("goldens", () => {
  const chats = goldens.cases.filter((one) => one.messages !== undefined).map((one, at) => [at, one] as const);
  it.each(chats)("chat %i: text, reasoning and calls", (_, one) => {
    const result = run(one.greedy_ids, { tools: one.tools, startsInReasoning: one.enable_thinking === true });
    if (one.enable_thinking === true) {
      const [reasoning, answer] = one.text.split("\n</longcat_think>\n");
      expect(result).toMatchObject({ reasoning, text: answer });
    } else if (one.text.startsWith("<longcat_tool_call>")) {
      expect(result.text).toBe("");
      const bodies = [...one.text.matchAll(/<longcat_tool_call>\n(.*?)\n<\/longcat_tool_call>/gs)].map((match) =>
        JSON.parse(match[1] as string),
      );
      expect(result.toolCalls?.map((call) => ({ name: call.name, arguments: JSON.parse(call.arguments) }))).toEqual(bodies);
    } else {
      expect(result).toMatchObject({ text: one.text, stopped: false });
      expect(result).not.toHaveProperty("reasoning");
      expect(result).not.toHaveProperty("toolCalls");
    }
  });

  it("golden 20 is one call with the arguments as written", () => {
    const result = run(golden(20).greedy_ids, { tools: calculator });
    expect(result.toolCalls).toEqual([
      { id: expect.stringMatching(/^call_/), name: "calculator", arguments: '{"expression": "441 * 861"}' },
    ]);
  });

  it("ids are unique among answers", () => {
    const ids = Array.from({ length: 20 }, () => run(golden(20).greedy_ids, { tools: calculator }).toolCalls?.[0]?.id);
    expect(new Set(ids).size).toBe(20);
  });
});

describe("characters of several tokens", () => {
  const text = '{"x":"👩‍👩‍👧‍👦 🇩🇪 中文字符 삼겹살 naïve — ok"}';
  it.each([[[]], [["zzz"]]])("stay whole with stop strings %j", (stop) => {
    const { text: shown, deltas } = run(tokenizer.encode(text), { stop });
    expect(shown).toBe(text);
    for (const delta of deltas) {
      expect(delta.text).not.toContain("\ufffd");
      expect(Buffer.from(delta.text, "utf8").toString("utf8")).toBe(delta.text); // no half of a surrogate pair
    }
  });

  it("one that is unfinished at the end is one U+FFFD", () => {
    expect(run(tokenizer.encode("ok 👍").slice(0, -1)).text).toBe("ok \ufffd");
  });
});

describe("reasoning", () => {
  const think = golden(35);
  const [reasoning, answer] = think.text.split("\n</longcat_think>\n") as [string, string];
  const options: Options = { startsInReasoning: "after-newline" };

  it("cut at every token: no piece of a tag, and the parts are beginnings of the whole", () => {
    const close = think.greedy_ids.indexOf(5);
    expect(close).toBeGreaterThan(0);
    for (let count = 0; count <= think.greedy_ids.length; count++) {
      const result = run(think.greedy_ids.slice(0, count), options);
      const shown = result.reasoning as string;
      expect(`${reasoning}\n`.startsWith(shown)).toBe(true);
      expect(answer.startsWith(result.text)).toBe(true);
      if (count <= close) expect(result.text).toBe("");
      else expect(shown).toBe(reasoning);
      expect(shown + result.text).not.toMatch(/longcat|[<>]/);
    }
  });

  it("is trimmed of the one newline at each tag and of no more", () => {
    expect(run(special("<longcat_think>\n\na\n\n</longcat_think>\n\nb"))).toMatchObject({ reasoning: "\na\n", text: "\nb" });
    expect(run(special("<longcat_think>a</longcat_think>b"))).toMatchObject({ reasoning: "a", text: "b" });
    expect(run(special("\n</longcat_think>\n"), options)).toMatchObject({ reasoning: "", text: "" });
    expect(run(special("\na"), { startsInReasoning: "after-tag" })).toMatchObject({ reasoning: "a" });
    expect(run(special("\na"), options)).toMatchObject({ reasoning: "\na" });
  });

  it("that the model opens itself is reasoning too, and text before it stays text", () => {
    expect(run(special("Hm. <longcat_think>\nwhy\n</longcat_think>\nSo."))).toMatchObject({ text: "Hm. So.", reasoning: "why" });
  });

  it("a newline that was held back is given when the answer ends there", () => {
    expect(run(special("a\n"), options).reasoning).toBe("a\n");
  });

  it("the tag in ordinary characters is text", () => {
    const literal = '{"x":"</longcat_think>"}';
    expect(run(tokenizer.encode(literal))).toMatchObject({ text: literal });
    expect(run(tokenizer.encode(literal), options)).toMatchObject({ reasoning: literal, text: "" });
  });

  it("inReasoning follows the tags", () => {
    const parser = new OutputParser({ tokenizer, startsInReasoning: true });
    expect(parser.inReasoning).toBe(true);
    parser.push(5);
    expect(parser.inReasoning).toBe(false);
  });
});

describe("tool calls", () => {
  const body = '<longcat_tool_call>\n{"name": "calculator", "arguments": {"expression": "1 + 1"}}\n</longcat_tool_call>';

  it("text before and after is visible; white space between and behind calls is not", () => {
    expect(run(special(`Let me see.${body}\n${body}\n`), { tools: calculator })).toMatchObject({
      text: "Let me see.",
      toolCalls: [{}, {}],
    });
    expect(run(special(`${body}\nDone.`), { tools: calculator })).toMatchObject({ text: "\nDone." });
  });

  it("after reasoning", () => {
    const result = run(special(`hm\n</longcat_think>\n${body}`), { tools: calculator, startsInReasoning: true });
    expect(result).toMatchObject({ reasoning: "hm", text: "", toolCalls: [{ name: "calculator" }] });
  });

  it("tags in ordinary characters are text, with tools and without", () => {
    const literal = '{"x":"<longcat_tool_call>{}"}';
    expect(run(tokenizer.encode(literal), { tools: calculator })).toMatchObject({ text: literal });
    expect(run(tokenizer.encode(literal))).toMatchObject({ text: literal });
    expect(run(tokenizer.encode(body), { tools: calculator })).toMatchObject({ text: body });
  });

  it("without tools there are no calls: the text is visible, the tags are not", () => {
    const result = run(special(body));
    expect(result.text).toBe(body.replace(/<\/?longcat_tool_call>/g, ""));
    expect(result).not.toHaveProperty("toolCalls");
  });

  it("cut at every token: no call is whole before its closing tag, and nothing of it is text", () => {
    const ids = golden(20).greedy_ids;
    for (let count = 0; count < ids.length; count++) {
      const result = run(ids.slice(0, count), { tools: calculator });
      expect(result.text).toBe("");
      expect(result.toolCalls !== undefined).toBe(count > ids.indexOf(7));
    }
  });

  it("the closing tag as a token inside a string is part of the string", () => {
    const quoted = '<longcat_tool_call>{"name": "calculator", "arguments": {"expression": "</longcat_tool_call>"}}</longcat_tool_call>';
    expect(run(special(quoted), { tools: calculator }).toolCalls?.[0]?.arguments).toBe('{"expression": "</longcat_tool_call>"}');
  });

  it("in the form of keys and values", () => {
    const tools: Tool[] = [
      {
        type: "function",
        function: { name: "get_weather", parameters: { properties: { place: { type: "string" }, days: { type: "integer" } } } },
      },
    ];
    const text =
      "<longcat_tool_call>get_weather\n<longcat_arg_key>place</longcat_arg_key>\n<longcat_arg_value>Ålesund < 👍</longcat_arg_value>\n<longcat_arg_key>days</longcat_arg_key>\n<longcat_arg_value>3</longcat_arg_value>\n</longcat_tool_call>";
    const result = run(special(text), { tools });
    expect(result.text).toBe("");
    expect(result.toolCalls).toEqual([{ id: expect.any(String), name: "get_weather", arguments: '{"place": "Ålesund < 👍", "days": 3}' }]);
    expect(run(special(text), { tools, toolFormat: "json" }).toolCalls).toBeUndefined();
  });
});

describe("stop strings", () => {
  const sort = special("coin, pear, shell.");

  it("across token borders, cut at every limit", () => {
    for (let count = 1; count <= sort.length; count++) {
      const result = run(sort.slice(0, count), { stop: ["ar, sh"] });
      const text = tokenizer.decode(sort.slice(0, count));
      expect(result.stopped).toBe(text.includes("ar, sh"));
      expect(result.text).toBe(result.stopped ? "coin, pe" : text);
    }
  });

  it("nothing comes after one", () => {
    const parser = new OutputParser({ tokenizer, stop: ["pear"] });
    const shown = [...sort, ...special("more")].map((id) => parser.push(id));
    expect(shown.map((delta) => delta.text).join("") + parser.end().text).toBe("coin, ");
    expect(shown.at(-1)).toEqual({ text: "", reasoning: "", toolCalls: [], stopped: true });
  });

  it("in reasoning too", () => {
    const result = run(special("one two three\n</longcat_think>\nfour"), { startsInReasoning: true, stop: ["two"] });
    expect(result).toMatchObject({ reasoning: "one ", text: "", stopped: true });
  });

  it("not across the border of reasoning and text, where a tag stands", () => {
    const result = run(special("one</longcat_think>two"), { startsInReasoning: true, stop: ["onetwo"] });
    expect(result).toMatchObject({ reasoning: "one", text: "two", stopped: false });
  });

  it("not inside tool calls", () => {
    const result = run(golden(20).greedy_ids, { tools: calculator, stop: ["expression", "441"] });
    expect(result).toMatchObject({ stopped: false, toolCalls: [{ name: "calculator" }] });
  });

  it("across a tool call, which is no text", () => {
    const call = '<longcat_tool_call>{"name": "calculator"}</longcat_tool_call>';
    expect(run(special(`a EN${call}D b`), { tools: calculator, stop: ["END"] })).toMatchObject({ text: "a ", stopped: true });
  });

  it("in a character that only the end completes", () => {
    expect(run(tokenizer.encode("x👍").slice(0, -1), { stop: ["\ufffd"] })).toMatchObject({ text: "x", stopped: true });
  });

  it("never appear, whatever the tokens; the text is that before the first", () => {
    const words = fc.array(fc.constantFrom("a", "b", " the", "\n", "👍", "é"), { maxLength: 20 });
    const stops = fc.array(fc.string({ unit: fc.constantFrom("a", "b", "t", "h", "\n", "👍"), minLength: 1, maxLength: 3 }), {
      minLength: 1,
      maxLength: 5,
    });
    fc.assert(
      fc.property(words, stops, (parts, stop) => {
        const whole = parts.join("");
        const { text, stopped } = run(tokenizer.encode(whole), { stop });
        expect(whole.startsWith(text)).toBe(true);
        expect(stopped).toBe(stop.some((one) => whole.includes(one)));
        if (!stopped) expect(text).toBe(whole);
        for (const one of stop) expect(text).not.toContain(one);
      }),
      { numRuns: 300 },
    );
  });
});

describe("raw text", () => {
  it("keeps the tags and hides the end token", () => {
    expect(run(golden(35).greedy_ids, { mode: "raw" }).text).toBe(golden(35).text);
    expect(run(golden(20).greedy_ids, { mode: "raw", tools: calculator })).toEqual(expect.objectContaining({ text: golden(20).text }));
  });

  it("stop strings see the tags", () => {
    expect(run(golden(20).greedy_ids, { mode: "raw", stop: ["<longcat_tool_call>\n{"] })).toMatchObject({ text: "", stopped: true });
  });
});

describe("special tokens that are no tags", () => {
  it("are not shown, the end token least of all", () => {
    expect(run([28, 0, 30, 1, 33, 2, 3]).text).toBe("136");
  });
});

describe("a tokenizer without tokens for the tags", () => {
  let spelled: Tokenizer;
  beforeAll(async () => {
    const dir = changedFolder({
      tokenizer: (json) => {
        json["added_tokens"] = json["added_tokens"].filter((token: { id: number }) => token.id < 4);
        for (const tag of Object.keys(json["model"].vocab)) if (/^<\/?longcat_(think|tool|arg)/.test(tag)) delete json["model"].vocab[tag];
      },
    });
    spelled = (await Tokenizer.load(dir)) as Tokenizer;
  });

  it("finds them in the text, cut anywhere", () => {
    const text =
      'hm\n</longcat_think>\nSo <b>.<longcat_tool_call>\n{"name": "calculator", "arguments": {"a": "</longcat_tool_call>"}}\n</longcat_tool_call>';
    const ids = spelled.encode(text);
    expect(ids.length).toBeGreaterThan(40);
    const result = run(ids, { tokenizer: spelled, tools: calculator, startsInReasoning: true });
    expect(result).toMatchObject({
      reasoning: "hm",
      text: "So <b>.",
      toolCalls: [{ name: "calculator", arguments: '{"a": "</longcat_tool_call>"}' }],
    });
    for (let count = 0; count < ids.length; count++) {
      const cut = run(ids.slice(0, count), { tokenizer: spelled, tools: calculator, startsInReasoning: true });
      expect(`hm\n`.startsWith((cut.reasoning as string).replace(/<[^>]*$/, ""))).toBe(true);
    }
  });
});

it("any tokens at all: deltas join to the result, and nothing throws", () => {
  const ids = fc.array(
    fc.oneof(fc.nat({ max: 1171 }), fc.nat({ max: 11 }), fc.constantFrom(...special('{"name": "calculator", "arguments": {}}\n'))),
    { maxLength: 60 },
  );
  fc.assert(
    fc.property(ids, fc.boolean(), fc.boolean(), fc.constantFrom<"chat" | "raw">("chat", "raw"), (tokens, reasons, withTools, mode) => {
      const result = run(tokens, { startsInReasoning: reasons, tools: withTools ? calculator : [], stop: ["the", "{"], mode });
      expect(result.text).not.toContain("the");
      expect(result.text).not.toContain("{");
      for (const call of result.toolCalls ?? []) expect(typeof JSON.parse(call.arguments)).toBe("object");
    }),
    { numRuns: 500 },
  );
});
