/**
 * What a caller may ask of one generation: names, defaults, limits and checks, in one place. The same on every surface.
 * @module
 */

import {
  abortSignal,
  absent,
  boolean,
  integer,
  invalid,
  isPlain,
  number,
  oneOf,
  record,
  rejectUnknown,
  rejectUnknownFields,
  show,
} from "../checks.js";
import { LongcatError } from "../errors.js";
import { ANY_OBJECT } from "../grammar/index.js";
import { MAX_LOGIT_BIAS, MAX_LOGPROBS, type SlotSampling } from "../model/runner-types.js";
import type { ToolChoice } from "../text/index.js";

export { MAX_LOGIT_BIAS, MAX_LOGPROBS };

/**
 * Which format the answer has: text; any JSON object; or JSON of a schema, given as OpenAI writes it or directly. Reasoning before the
 * answer is free. A schema's keyword that cannot be kept is refused by name; the answer always matches what is accepted, if it ends
 * with `stop`.
 */
export type ResponseFormat =
  | { type: "text" }
  | { type: "json_object" }
  | { type: "json_schema"; json_schema: { name?: string; description?: string | null; schema: object; strict?: boolean | null } }
  | { type: "json_schema"; schema: object };

/**
 * Parameters of a generation. `undefined` and `null` mean absent; absent sampling values come from the checkpoint's
 * generation_config.json, then from the defaults named here. A wrong value is `OPTION_INVALID`; nothing is coerced from strings.
 *
 * @example
 * await engine.generate("Once upon a time", { maxTokens: 64, temperature: 0.8, topP: 0.95, seed: 7, stop: ["\n\n"] });
 */
export interface GenerateParams {
  /** Most tokens to generate; absent: up to the context's end. 0 only runs the prompt. */
  maxTokens?: number | null;
  /** ≥ 0; 0 is greedy. Default 1. */
  temperature?: number | null;
  /** Over 0 to 1: keep the most likely tokens until their probability reaches this. Default 1 (off). */
  topP?: number | null;
  /** ≥ 0: keep this many tokens. Default 0 (off); at least the vocabulary is off too. */
  topK?: number | null;
  /** 0 to 1: drop tokens less likely than this times the most likely. Default 0 (off). */
  minP?: number | null;
  /** Over 0 to 100: divides positive logits and multiplies negative ones of tokens in prompt or output. Default 1 (off). */
  repetitionPenalty?: number | null;
  /** −100 to 100: taken once from the logit of each token generated so far. Default 0. */
  presencePenalty?: number | null;
  /** −100 to 100: taken from a token's logit for each time it was generated. Default 0. */
  frequencyPenalty?: number | null;
  /** Token id → −100 … 100, added to its logit; at most {@link MAX_LOGIT_BIAS} entries. The ids must be ones that the tokenizer has. */
  logitBias?: Readonly<Record<string, number>> | ReadonlyMap<number, number> | null;
  /** 0 … 2^53−1; absent: random. Choice i draws from seed + i (beyond 2^53−1 it starts again at 0). */
  seed?: number | null;
  /** Text that ends the generation and is not shown: at most {@link MAX_STOP_STRINGS}, each of 1 to {@link MAX_STOP_LENGTH} characters. */
  stop?: string | readonly string[] | null;
  /** Token ids that end the generation, as end tokens do; at most {@link MAX_STOP_TOKENS}. */
  stopTokens?: readonly number[] | null;
  /** Run on over the model's end tokens. `stopTokens` still end the generation. Default false. */
  ignoreEos?: boolean | null;
  /** Choices to draw, 1 to {@link MAX_CHOICES}. Default 1. */
  n?: number | null;
  /** 0 to {@link MAX_LOGPROBS}: report each token's log-probability and that many alternatives. Absent: none. */
  logprobs?: number | null;
  /** The answer's format; default text. Not with `ignoreEos`. */
  responseFormat?: ResponseFormat | null;
  /** `"auto"`, `"none"`, `"required"`, or the function to call; needs a chat prompt, and where a call is demanded, tools. */
  toolChoice?: ToolChoice | null;
  /** Special tokens written in a string prompt become special tokens. Default false: they are plain text. */
  parseSpecial?: boolean | null;
  /** Stops the generation within one step. */
  signal?: AbortSignal | null;
}

/** Most `stop` strings. */
export const MAX_STOP_STRINGS = 64;
/** Most characters of a `stop` string. */
export const MAX_STOP_LENGTH = 1024;
/** Most `stopTokens`. */
export const MAX_STOP_TOKENS = 1024;
/** Largest `n`. */
export const MAX_CHOICES = 128;
/** Largest `seed`: 2^53−1. */
export const MAX_SEED = Number.MAX_SAFE_INTEGER;

/** Parameters after checking. Absent stays absent only where that has a meaning of its own. */
export interface Parameters extends Omit<SlotSampling, "seed" | "promptTokens"> {
  /** Infinity: up to the context's end. */
  maxTokens: number;
  /** undefined: random. */
  seed?: number;
  stop: readonly string[];
  stopTokens: ReadonlySet<number>;
  ignoreEos: boolean;
  n: number;
  /** The schema that the answer matches, and its path in messages; undefined: text. */
  responseFormat?: { schema: unknown; path: string };
  toolChoice?: ToolChoice;
  parseSpecial: boolean;
  signal?: AbortSignal;
}

/** Those that say nothing of how a prompt is read or what its answer is kept to, which an encoded prompt knows. */
export type RunParameters = Omit<Parameters, "responseFormat" | "toolChoice" | "parseSpecial">;

/** As they travel to another process. */
export type PlainParameters = Omit<RunParameters, "signal">;

/** Sampling values that a checkpoint's generation_config.json may set. */
export type SamplingDefaults = Partial<
  Pick<Parameters, "temperature" | "topP" | "topK" | "minP" | "repetitionPenalty" | "presencePenalty" | "frequencyPenalty">
>;

/** What the checks need to know of the model. */
export interface VocabularyFacts {
  /** Ids of the model, padding included. */
  size: number;
  /** Whether the tokenizer has the id. */
  has(id: number): boolean;
  /** Whether there is a tokenizer; without one stop strings are refused. */
  hasTokenizer: boolean;
}

/** What absent values mean when generation_config.json does not say. */
export const DEFAULT_PARAMETERS: Readonly<Parameters> = {
  maxTokens: Number.POSITIVE_INFINITY,
  temperature: 1,
  topP: 1,
  topK: 0,
  minP: 0,
  repetitionPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
  logitBias: new Map(),
  stop: [],
  stopTokens: new Set(),
  ignoreEos: false,
  n: 1,
  logprobs: -1,
  parseSpecial: false,
};

type Check = (value: unknown, to: Parameters, vocabulary: VocabularyFacts) => void;

const penalty = (value: unknown, field: string): number =>
  number(value, field, { min: -100, max: 100, accepted: "a number from -100 to 100" });

/** Every parameter by name; a missing check does not compile. */
const CHECKS: { [K in keyof Required<GenerateParams>]: Check } = {
  maxTokens: (value, to) => {
    to.maxTokens = integer(value, "maxTokens", 0, Number.MAX_SAFE_INTEGER);
  },
  temperature: (value, to) => {
    to.temperature = number(value, "temperature", { min: 0, max: Number.MAX_VALUE, accepted: "a finite number of at least 0" });
  },
  topP: (value, to) => {
    to.topP = number(value, "topP", { min: 0, max: 1, openMin: true, accepted: "a number above 0 and up to 1" });
  },
  topK: (value, to, vocabulary) => {
    const topK = integer(value, "topK", 0, Number.MAX_SAFE_INTEGER, " (0: off)");
    to.topK = topK >= vocabulary.size ? 0 : topK;
  },
  minP: (value, to) => {
    to.minP = number(value, "minP", { min: 0, max: 1, accepted: "a number from 0 to 1" });
  },
  repetitionPenalty: (value, to) => {
    const accepted = "a number above 0 and up to 100 (1: off)";
    to.repetitionPenalty = number(value, "repetitionPenalty", { min: 0, max: 100, openMin: true, accepted });
  },
  presencePenalty: (value, to) => {
    to.presencePenalty = penalty(value, "presencePenalty");
  },
  frequencyPenalty: (value, to) => {
    to.frequencyPenalty = penalty(value, "frequencyPenalty");
  },
  logitBias: (value, to, vocabulary) => {
    to.logitBias = checkLogitBias(value, vocabulary);
  },
  seed: (value, to) => {
    to.seed = integer(value, "seed", 0, MAX_SEED, " and at most 2^53 − 1");
  },
  stop: (value, to, vocabulary) => {
    to.stop = checkStop(value, vocabulary);
  },
  stopTokens: (value, to, vocabulary) => {
    to.stopTokens = checkStopTokens(value, vocabulary);
  },
  ignoreEos: (value, to) => {
    to.ignoreEos = boolean(value, "ignoreEos");
  },
  n: (value, to) => {
    to.n = integer(value, "n", 1, MAX_CHOICES);
  },
  logprobs: (value, to) => {
    to.logprobs = integer(value, "logprobs", 0, MAX_LOGPROBS, " (the number of alternatives)");
  },
  responseFormat: (value, to, vocabulary) => {
    const format = checkResponseFormat(value);
    if (format === undefined) return;
    if (!vocabulary.hasTokenizer)
      throw new LongcatError("OPTION_INVALID", "responseFormat: this checkpoint has no tokenizer: its answers have no text");
    to.responseFormat = format;
  },
  toolChoice: (value, to) => {
    to.toolChoice = checkToolChoice(value);
  },
  parseSpecial: (value, to) => {
    to.parseSpecial = boolean(value, "parseSpecial");
  },
  signal: (value, to) => {
    to.signal = abortSignal(value, "signal");
  },
};

/** The names of all parameters. */
const PARAMETER_NAMES = Object.keys(CHECKS) as (keyof GenerateParams)[];

/**
 * Checks parameters and fills in what is absent.
 *
 * @throws LongcatError `OPTION_INVALID`: an unknown name, a wrong value, or a demand for what is not built yet.
 */
export function resolveParameters(params: unknown, vocabulary: VocabularyFacts, defaults: SamplingDefaults = {}): Parameters {
  const input = record(params, "params");
  rejectUnknown(input, PARAMETER_NAMES, "parameter");
  const resolved: Parameters = { ...DEFAULT_PARAMETERS, ...withoutAbsent(defaults) };
  for (const name of PARAMETER_NAMES) if (!absent(input[name])) CHECKS[name](input[name], resolved, vocabulary);
  return resolved;
}

/** The seed of choice `index`: seed + index, from 0 again beyond 2^53−1. */
export function choiceSeed(seed: number, index: number): number {
  return seed > MAX_SEED - index ? index - (MAX_SEED - seed) - 1 : seed + index;
}

function checkToolChoice(value: unknown): ToolChoice {
  if (value === "auto" || value === "none" || value === "required") return value;
  const named = isPlain(value) && value["type"] === "function" ? value["function"] : undefined;
  if (!isPlain(value) || !isPlain(named) || typeof named["name"] !== "string")
    throw invalid("toolChoice", value, '"auto", "none", "required" or { type: "function", function: { name } }');
  rejectUnknownFields(value, ["type", "function"], "toolChoice");
  rejectUnknownFields(named, ["name"], "toolChoice.function");
  return { type: "function", function: { name: named["name"] } };
}

function withoutAbsent<T extends object>(values: T): Partial<T> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => !absent(value))) as Partial<T>;
}

function checkTokenId(id: number, field: string, vocabulary: VocabularyFacts): void {
  if (!Number.isSafeInteger(id) || id < 0 || id >= vocabulary.size || !vocabulary.has(id))
    throw invalid(field, id, `a token id that the tokenizer has (within 0 … ${vocabulary.size - 1}, padding excluded)`);
}

function checkLogitBias(value: unknown, vocabulary: VocabularyFacts): ReadonlyMap<number, number> {
  if (!(value instanceof Map) && !isPlain(value)) throw invalid("logitBias", value, "a record or Map from token id to number");
  const size = value instanceof Map ? value.size : Object.keys(value).length;
  if (size > MAX_LOGIT_BIAS)
    throw new LongcatError("OPTION_INVALID", `logitBias: ${size} entries are not accepted; give at most ${MAX_LOGIT_BIAS}`);
  const entries: [unknown, unknown][] = value instanceof Map ? [...value] : Object.entries(value);
  const bias = new Map<number, number>();
  for (const [key, addend] of entries) {
    const id = typeof key === "string" && /^(0|[1-9]\d{0,15})$/.test(key) ? Number(key) : key;
    if (typeof id !== "number") throw invalid("logitBias", key, "token ids as keys");
    checkTokenId(id, "logitBias", vocabulary);
    bias.set(id, penalty(addend, `logitBias[${id}]`));
  }
  return bias;
}

function checkStop(value: unknown, vocabulary: VocabularyFacts): readonly string[] {
  const strings: unknown = typeof value === "string" ? [value] : value;
  if (!Array.isArray(strings)) throw invalid("stop", value, "a string or an array of strings");
  if (strings.length > MAX_STOP_STRINGS)
    throw new LongcatError("OPTION_INVALID", `stop: ${strings.length} strings are not accepted; give at most ${MAX_STOP_STRINGS}`);
  strings.forEach((text: unknown, i) => {
    if (typeof text !== "string" || text.length === 0 || text.length > MAX_STOP_LENGTH)
      throw invalid(typeof value === "string" ? "stop" : `stop[${i}]`, text, `a string of 1 to ${MAX_STOP_LENGTH} characters`);
  });
  if (strings.length > 0 && !vocabulary.hasTokenizer)
    throw new LongcatError(
      "OPTION_INVALID",
      `stop: ${show(value)} is not accepted: this checkpoint has no tokenizer; give stopTokens instead`,
    );
  return [...new Set(strings as string[])];
}

function checkStopTokens(value: unknown, vocabulary: VocabularyFacts): ReadonlySet<number> {
  if (!Array.isArray(value)) throw invalid("stopTokens", value, "an array of token ids");
  if (value.length > MAX_STOP_TOKENS)
    throw new LongcatError("OPTION_INVALID", `stopTokens: ${value.length} ids are not accepted; give at most ${MAX_STOP_TOKENS}`);
  value.forEach((id: unknown, i) => {
    checkTokenId(id as number, `stopTokens[${i}]`, vocabulary);
  });
  return new Set(value as number[]);
}

/** The schema that a format means; undefined: text. The schema itself is checked when it is compiled. */
function checkResponseFormat(value: unknown): Parameters["responseFormat"] {
  const format = record(value, "responseFormat");
  const type = oneOf(format["type"], "responseFormat.type", ["text", "json_object", "json_schema"]);
  if (type !== "json_schema") {
    rejectUnknownFields(format, ["type"], "responseFormat");
    return type === "text" ? undefined : { schema: ANY_OBJECT, path: "responseFormat" };
  }
  rejectUnknownFields(format, ["type", "json_schema", "schema"], "responseFormat");
  if (!absent(format["schema"])) {
    if (!absent(format["json_schema"]))
      throw new LongcatError("OPTION_INVALID", "responseFormat: schema and json_schema exclude each other; give one");
    return { schema: format["schema"], path: "responseFormat.schema" };
  }
  const given = format["json_schema"];
  if (absent(given)) throw new LongcatError("OPTION_INVALID", "responseFormat.json_schema: is missing; give an object with a schema");
  if (!isPlain(given)) throw invalid("responseFormat.json_schema", given, "an object with a schema");
  const { name, description, strict } = given;
  rejectUnknownFields(given, ["name", "description", "schema", "strict"], "responseFormat.json_schema");
  for (const [key, value] of Object.entries({ name, description }))
    if (!absent(value) && typeof value !== "string") throw invalid(`responseFormat.json_schema.${key}`, value, "a string");
  if (!absent(strict)) boolean(strict, "responseFormat.json_schema.strict");
  if (absent(given["schema"])) throw invalid("responseFormat.json_schema.schema", given["schema"], "a schema");
  return { schema: given["schema"], path: "responseFormat.json_schema.schema" };
}
