/**
 * generation_config.json: end tokens and the sampling values that the checkpoint's makers suggest.
 * @module
 */

import { join } from "node:path";

import { Fields } from "./fields.js";
import { readJson } from "./files.js";

/** Values of generation_config.json; undefined where the file (or the key) is absent. */
export interface GenerationConfig {
  /** Empty: the file names none. */
  eosTokenIds: number[];
  /** false: the makers suggest greedy decoding. */
  doSample?: boolean;
  temperature?: number;
  topP?: number;
  /** 0: off. */
  topK?: number;
  minP?: number;
  repetitionPenalty?: number;
}

const HARMLESS = new Set(
  `bos_token_id pad_token_id transformers_version _from_model_config max_length max_new_tokens min_length use_cache cache_implementation
   return_dict_in_generate output_attentions output_hidden_states output_scores output_logits num_return_sequences num_beams`.split(/\s+/),
);

/**
 * Reads a folder's generation_config.json; an absent file is as an empty one.
 *
 * @throws LongcatError CONFIG_INVALID naming file, key and value; ids beyond the vocabulary are wrong values
 */
export function readGenerationConfig(dir: string, vocabSize: number, onWarning: (message: string) => void): GenerationConfig {
  const path = join(dir, "generation_config.json");
  const json = readJson(path, "CONFIG_INVALID");
  if (json === undefined) return { eosTokenIds: [] };
  const fields = new Fields(json, path);
  const config: GenerationConfig = {
    eosTokenIds: fields.tokenIds("eos_token_id", vocabSize),
    temperature: fields.optionalNumber("temperature", { min: 0 }),
    topP: fields.optionalNumber("top_p", { above: 0, max: 1 }),
    topK: fields.optionalSize("top_k", { min: 0 }),
    minP: fields.optionalNumber("min_p", { min: 0, max: 1 }),
    repetitionPenalty: fields.optionalNumber("repetition_penalty", { above: 0 }),
  };
  if (fields.get("do_sample") !== undefined) config.doSample = fields.boolean("do_sample", true);
  const unknown = fields.unused().filter((key) => !HARMLESS.has(key));
  if (unknown.length > 0) onWarning(`generation_config.json: unknown keys are ignored: ${unknown.slice(0, 8).join(", ").slice(0, 200)}`);
  return config;
}
