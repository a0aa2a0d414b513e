/** Both tool-call formats, as the parser alone reads them: the same calls for every cut of the text. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Tool, type ToolCallDelta, ToolCallParser, type ToolFormat } from "../../ts/text/index.js";
import { CALL_CLOSE, CALL_OPEN, KEY_CLOSE, KEY_OPEN, MarkerScanner, VALUE_CLOSE, VALUE_OPEN } from "../../ts/text/markers.js";

interface Parsed {
  text: string;
  calls: { name: string; arguments: string }[];
  /** The calls as a client joins them from the stream. */
  joined: { name: string; arguments: string }[];
  ids: string[];
}

const weather: Tool = {
  type: "function",
  function: {
    name: "get_weather",
    parameters: {
      type: "object",
      properties: {
        place: { type: "string" },
        days: { type: "integer" },
        exact: { type: "boolean" },
        filter: { type: "object" },
        list: { type: "array" },
        ratio: { type: ["number", "null"] },
        either: { anyOf: [{ type: "string" }, { type: "integer" }] },
        mode: { enum: ["fast", "slow"] },
        level: { enum: [1, 2] },
      },
    },
  },
};

function parse(pieces: readonly string[], options: { format?: ToolFormat; tools?: Tool[] } = {}): Parsed {
  const scanner = new MarkerScanner();
  const parser = new ToolCallParser({ tools: [weather], ...options });
  let text = "";
  const deltas: ToolCallDelta[] = [];
  for (const piece of [...pieces.flatMap((one) => scanner.push(one)), ...scanner.end()]) {
    const output = parser.push(piece);
    text += output.text;
    deltas.push(...output.toolCalls);
  }
  parser.end();
  const joined: Parsed["joined"] = [];
  for (const delta of deltas) {
    if (delta.id !== undefined) {
      expect(delta.index).toBe(joined.length); // in order of appearance, id and name once
      joined.push({ name: delta.name as string, arguments: "" });
    } else {
      expect(delta.name).toBeUndefined();
    }
    (joined[delta.index] as { arguments: string }).arguments += delta.arguments ?? "";
  }
  const calls = parser.calls.map(({ name, arguments: args }) => ({ name, arguments: args }));
  return { text, calls, joined, ids: deltas.flatMap((delta) => delta.id ?? []) };
}

/** The text whole, by single characters, and cut at random gives the same. */
function everyCut(text: string, options: { format?: ToolFormat; tools?: Tool[] } = {}): Parsed {
  const { ids, ...whole } = parse([text], options);
  expect(new Set(ids).size).toBe(ids.length);
  const { ids: _, ...byCharacter } = parse([...text], options);
  expect(byCharacter).toEqual(whole);
  fc.assert(
    fc.property(fc.array(fc.nat({ max: text.length }), { maxLength: 8 }), (cuts) => {
      const places = [0, ...cuts.sort((a, b) => a - b), text.length];
      const pieces = places.slice(1).map((place, at) => text.slice(places[at], place));
      const { ids: __, ...result } = parse(pieces, options);
      expect(result).toEqual(whole);
    }),
    { numRuns: 60 },
  );
  return { ...whole, ids };
}

const json = (body: string): string => `${CALL_OPEN}\n${body}\n${CALL_CLOSE}`;

describe("the JSON form", () => {
  const good: [string, string, { name: string; arguments: string }[]][] = [
    ["one call", json('{"name": "f", "arguments": {"a": 1}}'), [{ name: "f", arguments: '{"a": 1}' }]],
    [
      "two calls in a row",
      json('{"name": "f", "arguments": {"a": 1}}') + json('{"name": "g", "arguments": {"b": 2}}'),
      [
        { name: "f", arguments: '{"a": 1}' },
        { name: "g", arguments: '{"b": 2}' },
      ],
    ],
    ["empty arguments", json('{"name": "f", "arguments": {}}'), [{ name: "f", arguments: "{}" }]],
    ["no arguments", json('{"name": "f"}'), [{ name: "f", arguments: "{}" }]],
    ["arguments null", json('{"name": "f", "arguments": null}'), [{ name: "f", arguments: "{}" }]],
    ["arguments before the name", json('{"arguments": {"a": [1, 2]}, "name": "f"}'), [{ name: "f", arguments: '{"a": [1, 2]}' }]],
    ["further members", json('{"id": 7, "name": "f", "arguments": {"a": true}, "x": [{}]}'), [{ name: "f", arguments: '{"a": true}' }]],
    ["arguments as text", json('{"name": "f", "arguments": "{\\"a\\": 1}"}'), [{ name: "f", arguments: '{"a": 1}' }]],
    ["no white space", `${CALL_OPEN}{"name":"f","arguments":{"a":1}}${CALL_CLOSE}`, [{ name: "f", arguments: '{"a":1}' }]],
    ["a name with a quote", json('{"name": "f\\"g", "arguments": {}}'), [{ name: 'f"g', arguments: "{}" }]],
    [
      "numbers, null, nesting, and the closing tag inside a string",
      json(`{"name": "f", "arguments": {"a":1,"b":-2.5e3,"c":null,"d":{"e":[{"f":"}${CALL_CLOSE}"}]}}}`),
      [{ name: "f", arguments: `{"a":1,"b":-2.5e3,"c":null,"d":{"e":[{"f":"}${CALL_CLOSE}"}]}}` }],
    ],
    [
      "characters beyond ASCII",
      json('{"name": "f", "arguments": {"a": "é中👍\\u00e9\\\\"}}'),
      [{ name: "f", arguments: '{"a": "é中👍\\u00e9\\\\"}' }],
    ],
  ];
  it.each(good)("%s", (_, text, calls) => {
    const result = everyCut(text);
    expect(result).toMatchObject({ text: "", calls, joined: calls });
    for (const call of result.calls) expect(typeof JSON.parse(call.arguments)).toBe("object");
  });

  it("gives long arguments out while they are written", () => {
    const parser = new ToolCallParser();
    parser.push({ marker: CALL_OPEN });
    const first = parser.push({ text: '{"name": "f", "arguments": {"a": "xx' });
    expect(first.toolCalls).toEqual([{ index: 0, id: expect.stringMatching(/^call_\w{24}$/), name: "f", arguments: '{"a": "xx' }]);
    expect(parser.push({ text: "yy" }).toolCalls).toEqual([{ index: 0, arguments: "yy" }]);
    expect(parser.calls).toEqual([]);
  });

  it.each([
    ["cut in its name", `${CALL_OPEN}\n{"name": "calc`, []],
    ["cut in its arguments", `${CALL_OPEN}\n{"name": "f", "arguments": {"a": "4`, [{ name: "f", arguments: '{"a": "4' }]],
    ["without its closing tag", `${CALL_OPEN}\n{"name": "f", "arguments": {}}`, [{ name: "f", arguments: "{}" }]],
    ["cut behind the tag", CALL_OPEN, []],
  ])("an unfinished call, %s, is neither a call nor text", (_, text, joined) => {
    expect(everyCut(text)).toMatchObject({ text: "", calls: [], joined });
  });

  it.each([
    ["prose", `${CALL_OPEN} I would call the tool now.${CALL_CLOSE}`, " I would call the tool now."],
    ["prose that goes on", `${CALL_OPEN} I would call the tool now.`, " I would call the tool now."],
    ["broken JSON", json('{"name" "f"}'), '\n{"name" "f"}\n'],
    ["a name that is no text", json('{"name": 5, "arguments": {}}'), '\n{"name": 5, "arguments": {}}\n'],
    ["no name", json('{"arguments": {}}'), '\n{"arguments": {}}\n'],
    ["nothing", json(""), ""],
  ])("%s between the tags is no call; its text is not lost", (_, text, shown) => {
    expect(everyCut(text)).toMatchObject({ text: shown, calls: [], joined: [] });
  });

  it.each([
    '{"name": "f", "arguments": [1]}',
    '{"name": "f", "arguments": 5}',
    '{"name": "f", "arguments": {"a": }}',
    '{"name": "f", "arguments": {}, "arguments": {}}',
    '{"name": "f", "arguments": {}} and more',
  ])("%s is not presented as a whole call", (body) => {
    expect(everyCut(json(body)).calls).toEqual([]);
  });

  it("a call after one that broke is still read", () => {
    const result = everyCut(json("no call") + json('{"name": "f", "arguments": {}}'));
    expect(result.calls).toEqual([{ name: "f", arguments: "{}" }]);
  });

  it("text before and after is not the parser's", () => {
    const parser = new ToolCallParser();
    expect(parser.inside).toBe(false);
    parser.push({ marker: CALL_OPEN });
    expect(parser.inside).toBe(true);
    parser.push({ text: '{"name": "f"}' });
    parser.push({ marker: CALL_CLOSE });
    expect(parser.inside).toBe(false);
    expect(parser.calls).toHaveLength(1);
  });
});

describe("the form of keys and values", () => {
  const pair = (key: string, value: string): string => `${KEY_OPEN}${key}${KEY_CLOSE}\n${VALUE_OPEN}${value}${VALUE_CLOSE}\n`;
  const call = (...pairs: [string, string][]): string =>
    `${CALL_OPEN}get_weather\n${pairs.map(([key, value]) => pair(key, value)).join("")}${CALL_CLOSE}`;

  const typed: [string, string, string][] = [
    ["place", "Bergen", '"Bergen"'],
    ["place", "12", '"12"'],
    ["place", '"12"', '"\\"12\\""'],
    ["place", '{"x":1}', '"{\\"x\\":1}"'],
    ["place", " padded ", '" padded "'],
    ["place", "a < b </b>", '"a < b </b>"'],
    ["place", "", '""'],
    ["place", 'two\nlines \\ "quoted" 👍', '"two\\nlines \\\\ \\"quoted\\" 👍"'],
    ["place", `a ${KEY_OPEN} tag ${CALL_CLOSE}`, `"a ${KEY_OPEN} tag ${CALL_CLOSE}"`],
    ["unheard", "12", '"12"'],
    ["days", "12", "12"],
    ["days", " 12 ", "12"],
    ["days", "1.5", '"1.5"'],
    ["days", "soon", '"soon"'],
    ["exact", "true", "true"],
    ["exact", "yes", '"yes"'],
    ["filter", '{"x":1}', '{"x":1}'],
    ["filter", "[1]", '"[1]"'],
    ["list", "[1, 2]", "[1, 2]"],
    ["ratio", "null", "null"],
    ["ratio", "2.5", "2.5"],
    ["either", "7", "7"],
    ["either", "seven", '"seven"'],
    ["mode", "fast", '"fast"'],
    ["level", "2", "2"],
  ];
  it.each(typed)("%s = %j is written %s", (key, value, written) => {
    const args = `{"${key}": ${written}}`;
    const result = everyCut(call([key, value]));
    expect(result).toMatchObject({
      text: "",
      calls: [{ name: "get_weather", arguments: args }],
      joined: [{ name: "get_weather", arguments: args }],
    });
    expect(Object.keys(JSON.parse(args))).toEqual([key]);
  });

  it("several pairs", () => {
    expect(everyCut(call(["place", "Bergen"], ["days", "3"])).calls).toEqual([
      { name: "get_weather", arguments: '{"place": "Bergen", "days": 3}' },
    ]);
  });

  it("no pairs", () => {
    expect(everyCut(call()).calls).toEqual([{ name: "get_weather", arguments: "{}" }]);
    expect(everyCut(`${CALL_OPEN}get_weather${CALL_CLOSE}`).calls).toEqual([{ name: "get_weather", arguments: "{}" }]);
  });

  it("two calls in a row", () => {
    const result = everyCut(call(["place", "A"]) + call(["place", "B"]));
    expect(result.calls.map((one) => one.arguments)).toEqual(['{"place": "A"}', '{"place": "B"}']);
  });

  it("without a schema every value is a string", () => {
    expect(everyCut(call(["days", "12"]), { tools: [] }).calls).toEqual([{ name: "get_weather", arguments: '{"days": "12"}' }]);
  });

  it.each([
    ["in a key", `${CALL_OPEN}get_weather\n${KEY_OPEN}pla`],
    ["in a value", `${CALL_OPEN}get_weather\n${KEY_OPEN}place${KEY_CLOSE}\n${VALUE_OPEN}Ber`],
    ["before its closing tag", `${CALL_OPEN}get_weather\n${pair("place", "x")}`],
  ])("a call that is cut %s is not presented as a whole one", (_, text) => {
    expect(everyCut(text)).toMatchObject({ text: "", calls: [] });
  });

  it.each([
    `${CALL_OPEN}get_weather\n${KEY_OPEN}a${KEY_CLOSE}oops${VALUE_OPEN}1${VALUE_CLOSE}${CALL_CLOSE}`,
    `${CALL_OPEN}get_weather\n${VALUE_OPEN}1${VALUE_CLOSE}${CALL_CLOSE}`,
    `${CALL_OPEN}OK${CALL_CLOSE}`,
  ])("%s is no call", (text) => {
    expect(everyCut(text).calls).toEqual([]);
  });

  it("may be demanded, and then a brace is no call", () => {
    expect(everyCut(json('{"name": "f"}'), { format: "xml" }).calls).toEqual([]);
    expect(everyCut(call(), { format: "json" }).calls).toEqual([]);
  });
});
