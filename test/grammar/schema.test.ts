import { Ajv2020 } from "ajv/dist/2020.js";
import { describe, expect, test } from "vitest";
import { accepts, automatonOf, draws, write } from "./reader.js";

const point = { type: "object", properties: { x: { type: "number" }, y: { type: "integer" } }, required: ["x"] };
const tree = {
  $ref: "#/$defs/node",
  $defs: {
    node: {
      type: "object",
      properties: { v: { type: "integer" }, kids: { type: "array", items: { $ref: "#/$defs/node" } } },
      required: ["v", "kids"],
      additionalProperties: false,
    },
  },
};

/** Schemas, with texts that their grammars read and texts that they do not. */
const CASES: Record<string, { schema: unknown; good: string[]; bad: string[] }> = {
  "any value": {
    schema: {},
    good: ["1", "-0.5e+10", '"a\\u0041"', "[]", '{"a":[1,{}]}', "null"],
    bad: ["01", "nul", '"\\ud800"', "{,}", "[1,]"],
  },
  "any object": { schema: { type: "object" }, good: ["{}", '{"a": 1, "b": {}}'], bad: ["[]", "1"] },
  "a constant": { schema: { const: { a: [1, "é"] } }, good: ['{"a":[1,"é"]}'], bad: ['{"a":[1]}'] },
  "an enumeration": { schema: { enum: ["ab", "abc", 1, null] }, good: ['"ab"', '"abc"', "1", "null"], bad: ['"a"', "2"] },
  "named properties": { schema: point, good: ['{"x":1}', '{"x":1, "y":2}'], bad: ['{"y":2}', '{"y":2,"x":1}', '{"x":1,"z":1}'] },
  "only optional properties": {
    schema: { properties: { a: { type: "null" }, b: { type: "null" } } },
    good: ["{}", '{"b":null}', '{"a":null,"b":null}'],
    bad: ['{,"b":null}', '{"a":null,}'],
  },
  "further properties": {
    schema: { type: "object", properties: { ab: { type: "integer" } }, required: ["ab"], additionalProperties: { type: "boolean" } },
    good: ['{"ab":1}', '{"ab":1,"a":true,"abc":false,"é":true,"":true}'],
    bad: ['{"ab":1,"ab":true}', '{"ab":1,"c":1}'],
  },
  "lengths of strings": {
    schema: { type: "string", minLength: 2, maxLength: 3 },
    good: ['"ab"', '"é👍\\n"', '"\\ud83d\\udc4da"'],
    bad: ['"a"', '"abcd"'],
  },
  "a pattern": {
    schema: { type: "string", pattern: "^[a-c]{2}(x|yz)?\\d+$" },
    good: ['"ab1"', '"cayz12"'],
    bad: ['"ab"', '"adx1"', '"abx1 "'],
  },
  "a pattern without anchors": { schema: { type: "string", pattern: "[ab]+" }, good: ['"xbc"', '"b"'], bad: ['"xc"'] },
  "a pattern of what is escaped": { schema: { type: "string", pattern: '^["\\\\\\n]+$' }, good: ['"\\"\\\\\\n"'], bad: ['"a"'] },
  "a pattern of alternatives": { schema: { type: "string", pattern: "^a$|^b" }, good: ['"a"', '"bx"'], bad: ['"ax"', '"xb"'] },
  "a date": { schema: { type: "string", format: "date" }, good: ['"2024-02-28"'], bad: ['"2024-13-01"', '"2024-04-31"'] },
  "integers within bounds": {
    schema: { type: "integer", minimum: -12, maximum: 105 },
    good: ["-12", "-1", "0", "9", "10", "99", "105"],
    bad: ["-13", "106", "1000", "-0"],
  },
  "integers above a bound": { schema: { type: "integer", exclusiveMinimum: 7 }, good: ["8", "10", "123456"], bad: ["7", "0", "-8"] },
  "numbers within bounds": {
    schema: { type: "number", minimum: 0.25, exclusiveMaximum: 12.5 },
    good: ["0.25", "0.3", "1", "12", "12.49"],
    bad: ["0.2", "0", "12.5", "13", "-1"],
  },
  "numbers around zero": {
    schema: { type: "number", exclusiveMinimum: -1.5, maximum: 0 },
    good: ["-1.49", "-1", "-0.1", "0"],
    bad: ["-1.5", "0.1", "1", "-2"],
  },
  "positive numbers": { schema: { type: "number", exclusiveMinimum: 0 }, good: ["0.001", "1", "12.5"], bad: ["0", "-1", "0.0"] },
  "numbers of items": {
    schema: { type: "array", items: { type: "integer" }, minItems: 1, maxItems: 3 },
    good: ["[1]", "[1, 2,3]"],
    bad: ["[]", "[1,2,3,4]"],
  },
  "first items": {
    schema: { type: "array", prefixItems: [{ type: "integer" }, { type: "string" }], items: false, minItems: 1 },
    good: ["[1]", '[1,"a"]'],
    bad: ["[]", '["a"]', '[1,"a",2]'],
  },
  "several types": { schema: { type: ["integer", "null"] }, good: ["1", "null"], bad: ['"a"', "1.5"] },
  "any of some": { schema: { anyOf: [{ type: "integer" }, point] }, good: ["3", '{"x":3}'], bad: ['"a"'] },
  "one of some": {
    schema: {
      oneOf: [
        { type: "object", properties: { kind: { const: "a" }, n: { type: "integer" } }, required: ["kind", "n"] },
        { type: "object", properties: { kind: { const: "b" } }, required: ["kind"] },
      ],
    },
    good: ['{"kind":"a","n":1}', '{"kind":"b"}'],
    bad: ['{"kind":"a"}'],
  },
  "a tree": { schema: tree, good: ['{"v":1,"kids":[{"v":2,"kids":[]}]}'], bad: ['{"v":1}', '{"v":1,"kids":[1]}'] },
  itself: {
    schema: { type: "object", properties: { next: { anyOf: [{ $ref: "#" }, { type: "null" }] } }, required: ["next"] },
    good: ['{"next":{"next":null}}'],
    bad: ['{"next":1}'],
  },
  "white space": {
    schema: { type: "object", properties: { a: { type: "array", items: { type: "integer" } } } },
    good: ['{\n  "a": [\n    1,\n    2\n  ]\n}'],
    bad: ['{  "a":[]}'],
  },
};

describe("texts of a schema", () => {
  const ajv = new Ajv2020({ strict: false, validateFormats: false });
  test.each(Object.entries(CASES))("%s", async (_, { schema, good, bad }) => {
    const automaton = await automatonOf(schema);
    const validate = ajv.compile(schema as object);
    for (const text of good) {
      expect([text, accepts(automaton, text)]).toEqual([text, true]);
      expect([text, validate(JSON.parse(text))]).toEqual([text, true]);
    }
    for (const text of bad) expect([text, accepts(automaton, text)]).toEqual([text, false]);
  });

  test.each(Object.entries(CASES))("%s: whatever is written matches", async (_, { schema }) => {
    const automaton = await automatonOf(schema);
    const validate = ajv.compile(schema as object);
    for (let seed = 0; seed < 60; seed++) {
      const text = write(automaton, draws(seed), 40);
      expect([text, validate(JSON.parse(text))]).toEqual([text, true]);
    }
  });

  test.each(["date", "time", "date-time", "uuid", "ipv4", "hostname", "email", "uri"])(
    "format %s is a pattern that can be written",
    async (format) => {
      const text = JSON.parse(write(await automatonOf({ type: "string", format }), draws(3), 40)) as string;
      expect(text.length).toBeGreaterThan(3);
      if (format === "uri") expect(URL.canParse(text)).toBe(true);
      if (format.startsWith("date")) expect(Number.isNaN(Date.parse(text))).toBe(false);
    },
  );
});

describe("schemas that are refused", () => {
  const nested = (depth: number): unknown => {
    let schema: unknown = { type: "null" };
    for (let i = 0; i < depth; i++) schema = { properties: { a: schema } };
    return schema;
  };
  const REFUSED: [name: string, schema: unknown, message: string][] = [
    ["an unknown type", { properties: { a: { type: "objekt" } } }, 'schema.properties.a.type: "objekt"'],
    ["a property that is no schema", { properties: { foo: "bar" } }, "schema.properties.foo"],
    ["a keyword that is not supported", { items: { not: {} } }, "schema.items.not"],
    ["multiples", { type: "number", multipleOf: 3 }, "schema.multipleOf"],
    ["unique items", { type: "array", uniqueItems: true }, "schema.uniqueItems"],
    ["several schemas at once", { allOf: [{}, {}] }, "schema.allOf"],
    ["branches that may match together", { oneOf: [{ type: "integer" }, { type: "number" }] }, "schema.oneOf[1]"],
    ["keywords beside anyOf", { anyOf: [{}], minLength: 3 }, "schema.minLength"],
    ["false", false, "schema: cannot be satisfied"],
    [
      "a required property that cannot be",
      { properties: { a: { type: "array", items: false, minItems: 1 } }, required: ["a"] },
      "schema.properties.a.minItems",
    ],
    ["a required property that is not allowed", { required: ["a"], additionalProperties: false }, "schema.required"],
    ["an enumeration of another type", { type: "integer", enum: ["a"] }, "schema.enum"],
    ["bounds the wrong way round", { type: "integer", minimum: 3, maximum: 2 }, "schema.minimum"],
    ["no integer between the bounds", { type: "integer", minimum: 0.2, maximum: 0.8 }, "schema: cannot be satisfied"],
    ["lengths the wrong way round", { type: "string", minLength: 3, maxLength: 2 }, "schema.minLength"],
    ["a huge length", { type: "string", minLength: 1e9 }, "schema.minLength"],
    ["a reference to itself", { $ref: "#" }, "refers to itself"],
    [
      "references in a ring",
      { $ref: "#/$defs/a", $defs: { a: { anyOf: [{ $ref: "#/$defs/b" }] }, b: { $ref: "#/$defs/a" } } },
      "refers to itself",
    ],
    [
      "no end",
      { $ref: "#/$defs/a", $defs: { a: { properties: { a: { $ref: "#/$defs/a" } }, required: ["a"] } } },
      "schema: cannot be satisfied",
    ],
    ["a reference to nothing", { $ref: "#/$defs/x" }, "schema.$ref"],
    ["a reference elsewhere", { $ref: "https://example.org/x" }, "schema.$ref"],
    ["10,000 levels", nested(10_000), "schema"],
    ["70 levels", nested(70), "nested too deeply"],
    ["100,000 values", { enum: Array.from({ length: 100_000 }, (_, i) => `v${i}`) }, "schema.enum: 100000 values"],
    ["repetitions of repetitions", { type: "string", pattern: "^((a{1000}){1000}){1000}$" }, "schema: is too large"],
    ["a pattern that is none", { type: "string", pattern: "foo**" }, "schema.pattern"],
    ["a repetition of nothing", { type: "string", pattern: "^{2}x$" }, "schema.pattern"],
    ["a repeated anchor", { type: "string", pattern: "^+[a-z]$" }, "schema.pattern"],
    ["lookaround", { type: "string", pattern: "(?<=x)y" }, "lookaround"],
    ["a back reference", { type: "string", pattern: "(a)\\1" }, "schema.pattern"],
    ["60,000 brackets", { type: "string", pattern: "(".repeat(60_000) }, "schema.pattern"],
    ["an unknown format", { type: "string", format: "iban" }, "schema.format"],
    ["a pattern that nothing matches", { type: "string", pattern: "^[^\\s\\S]$" }, "schema: cannot be satisfied"],
  ];

  test.each(REFUSED)("%s", async (_, schema, message) => {
    const begun = performance.now();
    await expect(automatonOf(schema)).rejects.toEqual(
      expect.objectContaining({ code: "OPTION_INVALID", message: expect.stringContaining(message) }),
    );
    expect(performance.now() - begun).toBeLessThan(1000);
  });

  test("a pattern that backtracks is read in a straight line", async () => {
    const automaton = await automatonOf({ type: "string", pattern: "^(a+)+$" });
    expect(accepts(automaton, `"${"a".repeat(5000)}"`)).toBe(true);
    expect(accepts(automaton, `"${"a".repeat(5000)}b"`)).toBe(false);
  });
});
