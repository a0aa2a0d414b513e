/** Checkpoints without a tokenizer, and trials of the router (B05). */
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { Engine } from "../../ts/engine/engine.js";
import { copyModel, editConfig, editTensors, type FileTensor, modelPath } from "../helpers/fixtures.js";
import { comparable, goldenCases } from "../helpers/goldens.js";

const opened: Engine[] = [];
const open = async (dir: string) => {
  const engine = await Engine.load(dir, { device: "cpu", threads: 2, maxSequences: 8 });
  opened.push(engine);
  return engine;
};
afterAll(async () => {
  for (const engine of opened) await engine.close();
});

describe.each(["tiny-a", "tiny-lite-a"] as const)("%s", (name) => {
  it("gives the recorded greedy tokens, alone and as choices", async () => {
    const engine = await open(modelPath(name));
    for (const golden of goldenCases(modelPath(name))) {
      const params = { temperature: 0, maxTokens: golden.greedy_ids.length, ignoreEos: true };
      const { tokens, text } = await engine.generate({ tokens: golden.prompt_ids }, params);
      const until = comparable(golden);
      expect(tokens.slice(0, until)).toEqual(golden.greedy_ids.slice(0, until));
      expect(text).toBe("");
      const { choices } = await engine.generate({ tokens: golden.prompt_ids }, { ...params, n: 2 });
      for (const choice of choices ?? []) expect(choice.tokens).toEqual(tokens);
    }
    await expect(engine.generate("text")).rejects.toMatchObject({ code: "PROMPT_INVALID" });
    await expect(engine.generate({ tokens: [1] }, { stop: "x" })).rejects.toMatchObject({ code: "OPTION_INVALID" });
  });
});

describe("B05: zero experts", () => {
  const TOKENS = [5, 9, 17, 33, 65, 129, 257, 1];
  const floats = (tensor: FileTensor) => new Float32Array(tensor.data.buffer, tensor.data.byteOffset, tensor.data.byteLength / 4);

  /** tiny-a whose every pick is a zero expert; further edits on top. */
  function allZero(edit: (tensors: Map<string, FileTensor>) => void = () => undefined): string {
    const dir = copyModel("tiny-a");
    editTensors(join(dir, "model.safetensors"), (tensors) => {
      for (const [name, tensor] of tensors) if (name.endsWith("e_score_correction_bias")) floats(tensor).fill(0).fill(10, 14);
      edit(tensors);
    });
    return dir;
  }

  it("cost nothing, are scaled by the routing factor, and never read an FFN expert", async () => {
    const x = await (await open(allZero())).score(TOKENS);
    expect(x.routing).toEqual({ ffnExpertsPerToken: 0, zeroExpertShare: 1 });
    expect(x.logprobs.slice(1).every((logprob) => Number.isFinite(logprob))).toBe(true);

    const spoiled = allZero((tensors) => {
      for (const [name, tensor] of tensors) if (name.includes("mlp.experts.")) floats(tensor).fill(Number.NaN);
    });
    expect(await (await open(spoiled)).score(TOKENS)).toEqual(x);

    const unscaled = allZero();
    editConfig(unscaled, (config) => {
      config.routed_scaling_factor = 1;
    });
    expect((await (await open(unscaled)).score(TOKENS)).logprobs).not.toEqual(x.logprobs);
  });
});
