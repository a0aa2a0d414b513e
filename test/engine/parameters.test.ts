/** Generation parameters: bounds, absences, and messages that name field and value. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { choiceSeed, DEFAULT_PARAMETERS, MAX_SEED, resolveParameters, type VocabularyFacts } from "../../ts/sampling/parameters.js";

/** As mini: 2048 ids, of which the tokenizer has 1172. */
const MINI: VocabularyFacts = { size: 2048, has: (id) => id < 1172, hasTokenizer: true };
const resolve = (params: unknown) => resolveParameters(params, MINI);
const refused = (message: string) => expect.objectContaining({ code: "OPTION_INVALID", message: expect.stringContaining(message) });

describe("generation parameters", () => {
  it("are the contract's defaults when absent; null and undefined mean absent", () => {
    expect(resolve(undefined)).toEqual(DEFAULT_PARAMETERS);
    expect(resolve({ temperature: null, stop: undefined, maxTokens: null, n: null, logitBias: null, signal: null })).toEqual(
      DEFAULT_PARAMETERS,
    );
  });

  it("come from generation_config.json before the defaults, and from the call before both", () => {
    const defaults = { temperature: 0.7, topP: 0.95 };
    expect(resolveParameters({ topP: 0.5, temperature: null }, MINI, defaults)).toMatchObject({ temperature: 0.7, topP: 0.5, topK: 0 });
  });

  it.each<[Record<string, unknown>, Record<string, unknown>]>([
    [{ maxTokens: 0 }, { maxTokens: 0 }],
    [{ maxTokens: 1e9 }, { maxTokens: 1e9 }],
    [{ topK: 0 }, { topK: 0 }],
    [{ topK: 1e9 }, { topK: 0 }],
    [{ topK: 2047 }, { topK: 2047 }],
    [{ temperature: -0 }, { temperature: 0 }],
    [{ temperature: 5e-324 }, { temperature: 5e-324 }],
    [{ temperature: 1e308 }, { temperature: 1e308 }],
    [
      { topP: 1e-9, minP: 1 },
      { topP: 1e-9, minP: 1 },
    ],
    [{ seed: 0 }, { seed: 0 }],
    [{ seed: MAX_SEED }, { seed: MAX_SEED }],
    [{ stop: "ab" }, { stop: ["ab"] }],
    [{ stop: [] }, { stop: [] }],
    [{ stop: ["a", "b", "a"] }, { stop: ["a", "b"] }],
    [{ stopTokens: [23, 25] }, { stopTokens: new Set([23, 25]) }],
    [
      { logitBias: { "28": -100, "30": 5 } },
      {
        logitBias: new Map([
          [28, -100],
          [30, 5],
        ]),
      },
    ],
    [{ logitBias: new Map([[28, 1.5]]) }, { logitBias: new Map([[28, 1.5]]) }],
    [
      { logprobs: 0, n: 128 },
      { logprobs: 0, n: 128 },
    ],
    [{ responseFormat: { type: "text" }, toolChoice: "none" }, { toolChoice: "none" }],
    [{ responseFormat: { type: "json_object" } }, { responseFormat: { schema: { type: "object" }, path: "responseFormat" } }],
    [
      { responseFormat: { type: "json_schema", json_schema: { name: "n", schema: { const: 1 }, strict: true } } },
      { responseFormat: { schema: { const: 1 }, path: "responseFormat.json_schema.schema" } },
    ],
    [
      { responseFormat: { type: "json_schema", schema: { const: 1 } }, toolChoice: "required" },
      { responseFormat: { schema: { const: 1 }, path: "responseFormat.schema" }, toolChoice: "required" },
    ],
  ])("accept %o", (params, expected) => {
    expect(resolve(params)).toMatchObject(expected);
  });

  it.each<[Record<string, unknown>, string]>([
    [{ logitBias: { "999999": -100 } }, "logitBias: 999999 is not accepted; give a token id that the tokenizer has"],
    [{ logitBias: { "-1": 5 } }, 'logitBias: "-1"'],
    [{ logitBias: { "1.5": 5 } }, 'logitBias: "1.5"'],
    [{ logitBias: { abc: 5 } }, 'logitBias: "abc"'],
    [{ logitBias: { "01": 5 } }, 'logitBias: "01"'],
    [{ logitBias: { "28": "x" } }, 'logitBias[28]: "x" is not accepted; give a number from -100 to 100'],
    [{ logitBias: { "28": Number.POSITIVE_INFINITY } }, "logitBias[28]: Infinity"],
    [{ logitBias: { "28": 101 } }, "logitBias[28]: 101"],
    [{ logitBias: { "2047": 100 } }, "logitBias: 2047"],
    [{ logitBias: { "1172": 100 } }, "logitBias: 1172"],
    [{ logitBias: Object.fromEntries(Array.from({ length: 5000 }, (_, i) => [i, 1])) }, "logitBias: 5000 entries"],
    [{ logitBias: [[28, 1]] }, "logitBias: [[28,1]]"],
    [{ logitBias: new Map([["28", { valueOf: () => 1 }]]) }, "logitBias[28]"],
    [{ maxTokens: -1 }, "maxTokens: -1"],
    [{ maxTokens: 1.5 }, "maxTokens: 1.5"],
    [{ maxTokens: "16" }, 'maxTokens: "16"'],
    [{ topK: -1 }, "topK: -1"],
    [{ topP: 0 }, "topP: 0 is not accepted; give a number above 0 and up to 1"],
    [{ topP: 1.0001 }, "topP: 1.0001"],
    [{ minP: 1.1 }, "minP: 1.1"],
    [{ repetitionPenalty: 0 }, "repetitionPenalty: 0"],
    [{ presencePenalty: Number.NaN }, "presencePenalty: NaN"],
    [{ frequencyPenalty: "1" }, 'frequencyPenalty: "1"'],
    [{ n: 0 }, "n: 0 is not accepted; give a whole number from 1 to 128"],
    [{ n: 10_000 }, "n: 10000"],
    [{ logprobs: 10_000 }, "logprobs: 10000"],
    [{ logprobs: true }, "logprobs: true"],
    [{ stop: "" }, 'stop: ""'],
    [{ stop: [""] }, 'stop[0]: ""'],
    [{ stop: Array.from({ length: 1000 }, (_, i) => `s${i}`) }, "stop: 1000 strings"],
    [{ stop: "a".repeat(1_000_000) }, "stop: "],
    [{ stop: 5 }, "stop: 5"],
    [{ stopTokens: [999_999] }, "stopTokens[0]: 999999"],
    [{ stopTokens: ["2"] }, 'stopTokens[0]: "2"'],
    [{ seed: -1 }, "seed: -1"],
    [{ seed: 2 ** 53 }, "seed: 9007199254740992"],
    [{ seed: 0.5 }, "seed: 0.5"],
    [{ seed: 5n }, "seed: 5n"],
    [{ temperature: Number.NaN }, "temperature: NaN"],
    [{ temperature: Number.POSITIVE_INFINITY }, "temperature: Infinity"],
    [{ temperature: -0.5 }, "temperature: -0.5"],
    [{ temperature: "0" }, 'temperature: "0"'],
    [{ temperature: true }, "temperature: true"],
    [{ ignoreEos: 1 }, "ignoreEos: 1"],
    [{ signal: "now" }, 'signal: "now"'],
    [{ responseFormat: { type: "json_object", schema: {} } }, "responseFormat.schema: is not known"],
    [{ responseFormat: { type: "json_schema", json_schema: { name: 5, schema: {} } } }, "responseFormat.json_schema.name: 5"],
    [
      { responseFormat: { type: "json_schema", json_schema: { name: "x", strict: "yes", schema: {} } } },
      'responseFormat.json_schema.strict: "yes"',
    ],
    [{ toolChoice: { type: "function", function: { name: "f" }, x: 1 } }, "toolChoice.x: is not known"],
    [{ responseFormat: { type: "json_schema" } }, "responseFormat.json_schema: is missing; give an object with a schema"],
    [{ responseFormat: { type: "json_schema", json_schema: {} } }, "responseFormat.json_schema.schema: undefined"],
    [{ responseFormat: { type: "json_schema", json_schema: { schema: {}, scheme: {} } } }, "scheme"],
    [{ responseFormat: { type: "json_schema", json_schema: { schema: {} }, schema: {} } }, "exclude each other"],
    [{ responseFormat: { type: "xml" } }, 'responseFormat.type: "xml"'],
    [{ toolChoice: { type: "function", function: {} } }, "toolChoice"],
    [{ toolChoice: "always" }, 'toolChoice: "always"'],
    [{ max_tokens: 5 }, 'unknown parameter "max_tokens": did you mean maxTokens?'],
    [{ temprature: 1 }, 'unknown parameter "temprature": did you mean temperature?'],
    [{ bestOf: 4 }, 'unknown parameter "bestOf"'],
  ])("refuse %o", (params, message) => {
    expect(() => resolve(params)).toThrow(refused(message));
  });

  it("refuse stop strings without a tokenizer, and any id of the vocabulary is one then", () => {
    const bare: VocabularyFacts = { size: 100, has: () => true, hasTokenizer: false };
    expect(() => resolveParameters({ stop: "x" }, bare)).toThrow(refused("this checkpoint has no tokenizer"));
    expect(resolveParameters({ stopTokens: [99] }, bare).stopTokens).toEqual(new Set([99]));
    expect(() => resolveParameters({ stopTokens: [100] }, bare)).toThrow(refused("stopTokens[0]: 100"));
  });

  it("either resolve or throw OPTION_INVALID, whatever is given", () => {
    const names = Object.keys({ ...DEFAULT_PARAMETERS, responseFormat: 0, toolChoice: 0, signal: 0 });
    fc.assert(
      fc.property(fc.dictionary(fc.constantFrom(...names), fc.anything()), (params) => {
        try {
          resolve(params);
        } catch (error) {
          expect(error).toMatchObject({ name: "LongcatError", code: "OPTION_INVALID" });
        }
      }),
    );
  });

  it("count seeds up by choice, from 0 again at the end", () => {
    expect(choiceSeed(5, 3)).toBe(8);
    expect(choiceSeed(MAX_SEED, 0)).toBe(MAX_SEED);
    expect(choiceSeed(MAX_SEED, 1)).toBe(0);
    expect(choiceSeed(MAX_SEED - 1, 3)).toBe(1);
  });
});
