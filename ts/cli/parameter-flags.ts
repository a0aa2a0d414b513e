/**
 * Flags for the sampling parameters: the names of GenerateParams in kebab case.
 * @module
 */

import type { GenerateParams } from "../index.js";
import { type Flag, type ParsedFlags, parseNumber, UsageError } from "./flags.js";

export const PARAMETER_FLAGS: readonly Flag[] = [
  { name: "max-tokens", kind: "number", value: "N", help: "most tokens to generate (default: to the context's end)" },
  { name: "temperature", kind: "number", value: "T", help: "0 is greedy (default: the checkpoint's, else 1)" },
  { name: "top-p", kind: "number", value: "P", help: "nucleus: smallest set of tokens with this probability" },
  { name: "top-k", kind: "number", value: "K", help: "only the K likeliest tokens; 0 is off" },
  { name: "min-p", kind: "number", value: "P", help: "only tokens at least P times as likely as the likeliest" },
  { name: "repetition-penalty", kind: "number", value: "R", help: "divides the scores of tokens of prompt and output; 1 is off" },
  { name: "presence-penalty", kind: "number", value: "R", help: "subtracted once from tokens already generated" },
  { name: "frequency-penalty", kind: "number", value: "R", help: "subtracted for each time a token was generated" },
  { name: "logit-bias", kind: "text", value: "ID=VALUE", repeated: true, help: "added to a token's score" },
  { name: "seed", kind: "number", value: "S", help: "0 … 2^53-1; the same seed gives the same text" },
  { name: "stop", kind: "text", value: "STR", repeated: true, help: "ends the text before this string" },
  { name: "stop-token", kind: "number", value: "ID", repeated: true, help: "ends the text at this token" },
  { name: "ignore-eos", kind: "flag", help: "go on past end tokens" },
  { name: "n", kind: "number", value: "N", help: "number of choices" },
  { name: "logprobs", kind: "number", value: "K", help: "list log-probabilities with K alternatives" },
  {
    name: "response-format",
    kind: "text",
    value: "TYPE",
    help: 'text, json_object, or a JSON object such as {"type": "json_schema", "schema": …}',
  },
  { name: "tool-choice", kind: "text", value: "C", help: "auto, none, required, or the name of the tool to call; with --messages" },
  { name: "parse-special", kind: "flag", help: "special tokens written in a raw PROMPT count as such" },
];

function logitBias(entries: readonly string[] | undefined): Record<string, number> | undefined {
  if (entries === undefined) return undefined;
  const bias: Record<string, number> = {};
  for (const entry of entries) {
    const match = /^(-?\d+)=(.*)$/.exec(entry);
    if (match === null) throw new UsageError(`--logit-bias: ${JSON.stringify(entry)} is not ID=VALUE`);
    const [, id = "", value = ""] = match;
    if (id in bias) throw new UsageError(`--logit-bias: token ${id} is given twice`);
    bias[id] = parseNumber(`--logit-bias ${id}`, value);
  }
  return bias;
}

function formatOf(text: string): GenerateParams["responseFormat"] {
  if (!text.trimStart().startsWith("{")) return { type: text } as GenerateParams["responseFormat"];
  try {
    return JSON.parse(text) as GenerateParams["responseFormat"];
  } catch (error) {
    throw new UsageError(`--response-format: is no JSON: ${(error as Error).message}`);
  }
}

function toolChoiceOf(text: string | undefined): GenerateParams["toolChoice"] {
  if (text === undefined || text === "auto" || text === "none" || text === "required") return text;
  return { type: "function", function: { name: text } };
}

/** Every parameter that has a flag: all but the signal. One without its line below does not compile. */
type FlagParams = { [K in keyof Required<Omit<GenerateParams, "signal">>]: GenerateParams[K] | undefined };

/** The parameters as the flags give them; what was not given stays absent. Values are the engine's to check. */
export function generateParams(flags: ParsedFlags): FlagParams {
  const responseFormat = flags.text("response-format");
  return {
    maxTokens: flags.number("max-tokens"),
    temperature: flags.number("temperature"),
    topP: flags.number("top-p"),
    topK: flags.number("top-k"),
    minP: flags.number("min-p"),
    repetitionPenalty: flags.number("repetition-penalty"),
    presencePenalty: flags.number("presence-penalty"),
    frequencyPenalty: flags.number("frequency-penalty"),
    logitBias: logitBias(flags.texts("logit-bias")),
    seed: flags.number("seed"),
    stop: flags.texts("stop"),
    stopTokens: flags.texts("stop-token")?.map((text) => parseNumber("--stop-token", text)),
    ignoreEos: flags.on("ignore-eos") ? true : undefined,
    n: flags.number("n"),
    logprobs: flags.number("logprobs"),
    responseFormat: responseFormat === undefined ? undefined : formatOf(responseFormat),
    toolChoice: toolChoiceOf(flags.text("tool-choice")),
    parseSpecial: flags.on("parse-special") ? true : undefined,
  };
}
