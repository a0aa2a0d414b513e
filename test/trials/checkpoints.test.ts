/**
 * Checkpoints whose config or files say the same in another way give the same numbers; those that say something else, or lie, are refused,
 * and the process that refused them loads a good one next (field trials B07, B13, B35, B37).
 */
import { mkdirSync, readdirSync, readFileSync, renameSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openModel } from "../../ts/model/open.js";
import { parse, scoresOfGolden } from "../helpers/scores.js";
import {
  copyModel,
  editConfig,
  editTensors,
  float32Tensor,
  type Json,
  linkModel,
  modelPath,
  ROOT,
  safetensorsBytes,
  valuesOf,
} from "../helpers/fixtures.js";
import { worstDistance } from "../helpers/goldens.js";
import { alive, engines, ids, refused } from "../helpers/mini.js";
import { TEST_MODEL_OPTIONS } from "../helpers/models.js";
import { onABusyMachine } from "../helpers/time.js";

const { open, closeAll } = engines({ device: "cpu", threads: 2, maxSequences: 2 });
afterAll(closeAll);

const HUNDRED = ids(100).tokens;

/** Log-probabilities that a checkpoint gives 100 ids. */
async function score(dir: string, onWarning?: (message: string) => void): Promise<(number | null)[]> {
  const engine = await open(dir, onWarning && { onWarning });
  const { logprobs } = await engine.score(HUNDRED);
  await engine.close();
  return logprobs;
}

type DenseOrLite = "tiny-a" | "tiny-lite-a";

/** A checkpoint with keys of config.json set (undefined: removed). */
function variant(name: DenseOrLite, changes: Json): string {
  const dir = linkModel(name);
  editConfig(dir, (config) => Object.assign(config, changes));
  return dir;
}

const plain = {} as Record<DenseOrLite, (number | null)[]>;
beforeAll(async () => {
  plain["tiny-a"] = await score(modelPath("tiny-a"));
  plain["tiny-lite-a"] = await score(modelPath("tiny-lite-a"));
});
const same = async (name: DenseOrLite, changes: Json) => expect(await score(variant(name, changes))).toEqual(plain[name]);
const fails = async (name: DenseOrLite, changes: Json, code: Parameters<typeof refused>[0], ...named: string[]) => {
  for (const word of named) await expect(open(variant(name, changes)), word).rejects.toEqual(refused(code, word));
};

describe("scores", () => {
  it.each(["tiny-a", "tiny-lite-a"] as const)("of %s are those of the recorded logits", async (name) => {
    const engine = await open(modelPath(name));
    for (const golden of scoresOfGolden(modelPath(name))) {
      const { logprobs } = await engine.score(golden.tokens);
      logprobs.slice(1).forEach((logprob, i) => {
        expect(Math.abs((logprob as number) - (golden.logprobs[i] as number))).toBeLessThan(1e-3); // docs/numerics.md, 6
      });
    }
    await engine.close();
  });
});

describe("B13: the RoPE base and its scaling", () => {
  const yarn: Json = parse(join(modelPath("tiny-lite-a"), "config.json")).rope_scaling;
  const { rope_type, ...untyped } = yarn;

  it("A = B: at the top or in rope_parameters, bit for bit, and not those of another base (C)", async () => {
    const a = await score(variant("tiny-a", { rope_theta: 500000.0 }));
    const nested = { rope_theta: undefined, rope_parameters: { rope_type: "default", rope_theta: 500000.0 } };
    expect(await score(variant("tiny-a", nested))).toEqual(a);
    expect(a).not.toEqual(plain["tiny-a"]);
  });

  it("D: two values are CONFIG_INVALID, both named", () =>
    fails("tiny-a", { rope_parameters: { rope_type: "default", rope_theta: 500000.0 } }, "CONFIG_INVALID", "10000", "500000"));

  it("E: none is 10,000,000, with one warning", async () => {
    const warnings: string[] = [];
    const none = await score(variant("tiny-a", { rope_theta: undefined }), (message) => warnings.push(message));
    expect(warnings).toEqual([expect.stringMatching(/rope_theta.*10000000/)]);
    expect(none).toEqual(await score(variant("tiny-a", { rope_theta: 1e7 })));
    expect(none).not.toEqual(plain["tiny-a"]);
  });

  it.each<[string, Json]>([
    ["G: in rope_parameters", { rope_theta: undefined, rope_scaling: undefined, rope_parameters: { ...yarn, rope_theta: 10000.0 } }],
    ["H: type instead of rope_type", { rope_scaling: { ...untyped, type: rope_type } }],
    ["J: an integer factor", { rope_scaling: { ...yarn, factor: 4 } }],
  ])("%s: YaRN as recorded", (_, changes) => same("tiny-lite-a", changes));

  it("I: another scaling is CHECKPOINT_UNSUPPORTED", () =>
    fails("tiny-lite-a", { rope_scaling: { rope_type: "llama3", factor: 8 } }, "CHECKPOINT_UNSUPPORTED", "llama3"));
});

describe("B37: which model it is", () => {
  const oe = {
    ...{ emb_neighbor_num: undefined, emb_split_num: undefined, ngram_vocab_size_ratio: undefined },
    ...{ oe_neighbor_num: 4, oe_split_num: 4, oe_vocab_size_ratio: 4 },
  };
  const shared = { model_type: undefined, architectures: ["LongcatCausalLM"] };

  it.each<[string, DenseOrLite, Json]>([
    ["(1) no model_type", "tiny-lite-a", { model_type: undefined }],
    ["(2) model_type null", "tiny-lite-a", { model_type: null }],
    ["(3) the other spelling of the n-gram sizes", "tiny-lite-a", oe],
    ["(7) the shared class name over dense keys", "tiny-a", shared],
    ["(14) an integer factor", "tiny-a", { routed_scaling_factor: 3 }],
  ])("%s: the same bits", (_, name, changes) => same(name, changes));

  it.each<[string, DenseOrLite, Json, Parameters<typeof refused>[0], string]>([
    ["(4) the shared class name over n-gram keys", "tiny-lite-a", { ...shared, ...oe }, "CHECKPOINT_UNSUPPORTED", "LongcatCausalLM"],
    ["(6) both spellings at odds", "tiny-lite-a", { oe_split_num: 2 }, "CONFIG_INVALID", "oe_split_num"],
    ["(8) neither name", "tiny-a", { model_type: undefined, architectures: undefined }, "CHECKPOINT_UNSUPPORTED", "longcat_flash"],
    ["(9) another model", "tiny-a", { model_type: "llama" }, "CHECKPOINT_UNSUPPORTED", "llama"],
    ["(10) twice as many attentions", "tiny-a", { num_layers: undefined, num_hidden_layers: 6 }, "CHECKPOINT_INVALID", "model.layers.2."],
    ["(11) norm_topk_prob", "tiny-a", { norm_topk_prob: true }, "CHECKPOINT_UNSUPPORTED", "norm_topk_prob"],
    ["(12) zero_expert_type", "tiny-a", { zero_expert_type: "drop" }, "CHECKPOINT_UNSUPPORTED", "zero_expert_type"],
  ])("%s is refused", (_, name, changes, code, word) => fails(name, changes, code, word));

  it("(5) sparse attention is refused by name, its indexer's tensors are no unknown extras", async () => {
    const dir = copyModel("tiny-lite-a");
    editTensors(join(dir, "model.safetensors"), (t) => t.set("model.layers.0.self_attn.0.indexer.wq.weight", float32Tensor([1], [1])));
    await expect(open(dir)).rejects.toEqual(refused("CHECKPOINT_UNSUPPORTED", "indexer"));
    editConfig(dir, (config) => Object.assign(config, { ...shared, ...oe, attention_method: "LSA", index_topk: 64 }));
    await expect(open(dir, { allowUnknownTensors: true })).rejects.toEqual(refused("CHECKPOINT_UNSUPPORTED", "sparse attention"));
  });

  it("(13) mla_scale_q_lora false is honoured: the factor moved into q_b_proj gives the recorded numbers", async () => {
    expect(await score(variant("tiny-a", { mla_scale_q_lora: false }))).not.toEqual(plain["tiny-a"]);
    const dir = copyModel("tiny-a");
    editConfig(dir, (config) => Object.assign(config, { mla_scale_q_lora: false }));
    editTensors(join(dir, "model.safetensors"), (tensors) => {
      for (const [name, tensor] of tensors)
        if (name.endsWith("q_b_proj.weight"))
          tensors.set(
            name,
            float32Tensor(
              tensor.shape,
              Array.from(valuesOf(tensor), (value) => value * Math.sqrt(96 / 40)),
            ),
          );
    });
    const moved = await score(dir);
    moved.slice(1).forEach((logprob, i) => {
      expect(Math.abs((logprob as number) - (plain["tiny-a"][i + 1] as number))).toBeLessThan(1e-3);
    });
  });
});

describe("B35: links", () => {
  it("a hub's cache, every file a link into blobs, answers", async () => {
    const from = linkModel("mini");
    const [blobs, snapshot] = [join(from, "../blobs"), join(from, "../snapshots/rev")];
    mkdirSync(blobs);
    mkdirSync(snapshot, { recursive: true });
    for (const name of readdirSync(from)) {
      renameSync(join(from, name), join(blobs, `hash-${name}`));
      symlinkSync(`../../blobs/hash-${name}`, join(snapshot, name));
    }
    await alive(await open(snapshot));
  });
});

describe("B07: hostile safetensors", () => {
  const original = readFileSync(join(modelPath("tiny-a"), "model.safetensors"));
  const headerLength = Number(original.readBigUInt64LE(0));
  const header = original.toString("utf8", 8, 8 + headerLength);
  const data = original.subarray(8 + headerLength);
  const [first, second] = ["lm_head.weight", "model.embed_tokens.weight"] as const;

  /** tiny-a with other bytes as its only file of weights. */
  function withFile(bytes: Uint8Array): string {
    const dir = linkModel("tiny-a");
    renameSync(join(dir, "model.safetensors"), join(dir, "moved"));
    writeFileSync(join(dir, "model.safetensors"), bytes);
    return dir;
  }
  const withHeader = (text: string | Uint8Array) => withFile(safetensorsBytes(text, data));
  const withEntry = (change: Json) => {
    const entries = JSON.parse(header) as Json;
    Object.assign(entries[first], change);
    return withHeader(JSON.stringify(entries));
  };
  const withLength = (length: bigint) => {
    const bytes = Buffer.from(original);
    bytes.writeBigUInt64LE(length);
    return withFile(bytes);
  };

  it.each<[string, string]>([
    ["padded with spaces", header + " ".repeat(8 + ((8 - (headerLength % 8)) % 8))],
    ["of a length that is no multiple of 8", header.trimEnd() + " ".repeat(header.trimEnd().length % 8 === 0 ? 3 : 0)],
    ["of an odd length", header.trimEnd() + " ".repeat(header.trimEnd().length % 2 === 0 ? 1 : 2)],
  ])("a header %s is right: the recorded logits", async (_, text) => {
    const model = await openModel(withHeader(text), TEST_MODEL_OPTIONS);
    const d = await worstDistance(model.runner, join(ROOT, "test/fixtures/tiny-a"));
    await model.close();
    expect(d).toMatchObject({ wrongRoutings: 0, compared: d.positions });
    expect(d.maxLogit).toBeLessThan(1e-3);
  });

  const lies: [string, () => string, string?][] = [
    ...[0n, 2n, 2n ** 31n, 2n ** 60n, 2n ** 63n, 2n ** 64n - 1n, BigInt(original.length - 8), BigInt(original.length - 7)].map(
      (length): [string, () => string] => [`a length prefix of ${length}`, () => withLength(length)],
    ),
    ...[[8, 4], [0, 2 ** 53 + 1], [-4, 0], [0], "a"].map((offsets): [string, () => string, string] => [
      `data_offsets ${JSON.stringify(offsets)}`,
      () => withEntry({ data_offsets: offsets }),
      first,
    ]),
    ["two tensors sharing bytes", () => withHeader(header.replace(/("model\.embed_tokens\.weight".*?)\[\d+,\s*\d+\]\}/, "$1[0,122880]}"))],
    ["a hole", () => withHeader(JSON.stringify({ ...(JSON.parse(header) as Json), [second]: undefined }))],
    ["3 bytes behind", () => withFile(Buffer.concat([original, Buffer.alloc(3)]))],
    ["a shape whose product overflows", () => withEntry({ shape: [2 ** 32, 2 ** 32], data_offsets: [0, 0] }), first],
    ["a shape of −1", () => withEntry({ shape: [-1] }), first],
    ["a shape with 1.5", () => withEntry({ shape: [1.5] }), first],
    ...["F4", "f32", undefined].map((dtype): [string, () => string, string] => [`dtype ${dtype}`, () => withEntry({ dtype }), first]),
    ["a name twice", () => withHeader(header.replace("{", `{"${first}":{"dtype":"F32","shape":[320,96],"data_offsets":[122880,245760]},`))],
    ["a name of 1 MB instead of a tensor's", () => withHeader(header.replace(first, "n".repeat(2 ** 20))), first],
    ["metadata as a list", () => withHeader(header.replace("{", '{"__metadata__":[],'))],
    ["a million nested lists", () => withHeader("[".repeat(1_000_000))],
    ["a header that is not UTF-8", () => withHeader(Buffer.concat([Buffer.from('{"'), Buffer.of(0xff), Buffer.from(header.slice(2))]))],
  ];
  it.each(lies)("%s is refused by name in a second, and tiny-a loads after it", async (_, make, named = "model.safetensors") => {
    const dir = make();
    const start = performance.now();
    await expect(open(dir)).rejects.toEqual(refused("CHECKPOINT_INVALID", named));
    expect(performance.now() - start).toBeLessThan(onABusyMachine(1000));
    expect(await score(modelPath("tiny-a"))).toEqual(plain["tiny-a"]);
  });
});
