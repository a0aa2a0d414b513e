/** Options under which tests open models directly, without the engine. */
import type { OpenModelOptions } from "../../ts/model/open.js";

export const TEST_MODEL_OPTIONS: OpenModelOptions = {
  device: "cpu",
  dtype: "auto",
  threads: 2,
  debug: "off",
  allowUnknownTensors: false,
  maxSequences: 16,
  maxBatchTokens: 512,
  cacheBytes: 64 * 1024 * 1024,
};
