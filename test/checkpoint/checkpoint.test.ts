/** Opening checkpoint folders: whole, broken, foreign, hostile. */
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, renameSync, rmSync, statSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { LongcatError } from "../../ts/errors.js";
import { type Checkpoint, openCheckpoint } from "../../ts/model/checkpoint.js";
import { describeCheckpoint } from "../../ts/model/describe.js";
import {
  copyModel,
  editConfig,
  editJson,
  editTensors,
  type FileTensor,
  float32Tensor,
  linkModel,
  modelPath,
  temporaryFolder,
} from "../helpers/fixtures.js";
import { onABusyMachine } from "../helpers/time.js";

const SHARD1 = "model-00001-of-00002.safetensors";
const SHARD2 = "model-00002-of-00002.safetensors";
const INDEX = "model.safetensors.index.json";

async function read<T>(dir: string, look: (checkpoint: Checkpoint) => T, options = {}): Promise<T> {
  const checkpoint = await openCheckpoint(dir, options);
  try {
    return look(checkpoint);
  } finally {
    checkpoint.close();
  }
}

async function failure(dir: string, options = {}): Promise<LongcatError> {
  const start = performance.now();
  const error = await openCheckpoint(dir, options).then(
    (checkpoint) => checkpoint.close(),
    (e: unknown) => e,
  );
  expect(error).toBeInstanceOf(LongcatError);
  expect((error as Error).message.length).toBeLessThan(300);
  expect(performance.now() - start).toBeLessThan(onABusyMachine(1000));
  return error as LongcatError;
}

async function expectFailure(dir: string, code: string, ...named: (string | RegExp)[]): Promise<void> {
  const error = await failure(dir);
  expect(error.code).toBe(code);
  for (const name of named)
    expect(error.message).toEqual(typeof name === "string" ? expect.stringContaining(name) : expect.stringMatching(name));
}

const weights = (dir: string) => join(dir, "model.safetensors");
const spoil = (edit: (tensors: Map<string, FileTensor>) => unknown, name: "tiny-a" | "tiny-lite-a" = "tiny-a") => {
  const dir = copyModel(name);
  editTensors(weights(dir), edit);
  return dir;
};

describe("a whole checkpoint", () => {
  it("of two shards has every tensor and its draft head", async () => {
    await read(modelPath("mini"), (checkpoint) => {
      expect(checkpoint.hasMtp).toBe(true);
      expect(checkpoint.tensors.size).toBe(215);
      expect(checkpoint.bytes).toBe(24499104);
      expect(checkpoint.warnings).toEqual([]);
      expect(checkpoint.generationConfig).toMatchObject({ eosTokenIds: [2], doSample: true, temperature: 0.7, topP: 0.95 });
      expect(checkpoint.tensors.get("model.mtp.norm.weight")?.file.path).toContain(SHARD2);
    });
  });
  it("of one file needs neither generation_config nor draft head", async () => {
    await read(modelPath("tiny-a"), (checkpoint) => {
      expect(checkpoint.hasMtp).toBe(false);
      expect(checkpoint.tensors.size).toBe(139);
      expect(checkpoint.generationConfig).toEqual({ eosTokenIds: [] });
    });
  });
  it("of Lite has its n-gram tables", async () => {
    await read(modelPath("tiny-lite-a"), ({ tensors }) =>
      expect(tensors.get("model.ngram_embeddings.embedders.11.weight")?.entry.shape).toEqual([1303, 8]),
    );
  });
  it("may name its n-gram tables as older ones did", async () => {
    const dir = spoil((tensors) => {
      for (const [name, tensor] of [...tensors]) {
        const match = /^model\.ngram_embeddings\.(embedders|post_projs)\.(\d+)\.weight$/.exec(name);
        if (!match) continue;
        tensors.delete(name);
        tensors.set(`model.oe_embed_${match[1] === "embedders" ? "tokens" : "proj"}${match[2]}.weight`, tensor);
      }
    }, "tiny-lite-a");
    await read(dir, ({ tensors }) =>
      expect(tensors.get("model.ngram_embeddings.post_projs.3.weight")?.entry.name).toBe("model.oe_embed_proj3.weight"),
    );
  });
  it("may tie its head to the embedding", async () => {
    const dir = spoil((tensors) => void tensors.delete("lm_head.weight"));
    await expectFailure(dir, "CHECKPOINT_INVALID", "lm_head.weight");
    editConfig(dir, (config) => void (config.tie_word_embeddings = true));
    await read(dir, ({ tensors }) => expect(tensors.has("lm_head.weight")).toBe(false));
  });
  it("may hold biases of its attentions", async () => {
    const dir = copyModel("tiny-a");
    editConfig(dir, (config) => void (config.attention_bias = true));
    await expectFailure(dir, "CHECKPOINT_INVALID", "q_a_proj.bias", "11 others");
    editTensors(weights(dir), (tensors) => {
      for (const l of [0, 1])
        for (const i of [0, 1])
          for (const [name, size] of [
            ["q_a_proj", 40],
            ["kv_a_proj_with_mqa", 40],
            ["o_proj", 96],
          ] as const)
            tensors.set(`model.layers.${l}.self_attn.${i}.${name}.bias`, float32Tensor([size], new Float32Array(size)));
    });
    await read(dir, ({ tensors }) => expect(tensors.size).toBe(139 + 12));
  });
  it("may be closed twice", async () => {
    const checkpoint = await openCheckpoint(modelPath("tiny-a"));
    checkpoint.close();
    expect(() => checkpoint.close()).not.toThrow();
  });
});

describe("the folder", () => {
  it("absent, empty or a file is said so", async () => {
    const dir = temporaryFolder();
    await expectFailure(join(dir, "nowhere"), "CHECKPOINT_INVALID", "nowhere", "not there");
    await expectFailure(dir, "CHECKPOINT_INVALID", "config.json");
    writeFileSync(join(dir, "model"), "x");
    await expectFailure(join(dir, "model"), "CHECKPOINT_INVALID", "is a file");
    await expectFailure(join(dir, "model", "deeper"), "CHECKPOINT_INVALID");
    await expectFailure("", "CHECKPOINT_INVALID");
    await expectFailure("a\0b", "CHECKPOINT_INVALID");
    await expectFailure("/dev/null", "CHECKPOINT_INVALID");
    expect((await failure(undefined as unknown as string)).code).toBe("CHECKPOINT_INVALID");
  });
  it.each(["not json", "", "[1]", "{", "\ufeff{}", "[".repeat(300_000), "version https://git-lfs.github.com/spec/v1\n"])(
    "with config.json %# is CONFIG_INVALID",
    async (text) => {
      const dir = copyModel("tiny-a");
      writeFileSync(join(dir, "config.json"), text);
      await expectFailure(dir, "CONFIG_INVALID", "config.json");
    },
  );
  it("whose config.json is a FIFO, a folder or a device does not hang", async () => {
    for (const make of [
      (path: string) => execFileSync("mkfifo", [path]),
      (path: string) => mkdirSync(path),
      (path: string) => symlinkSync("/dev/zero", path),
      (path: string) => symlinkSync("config.json", path),
    ]) {
      const dir = copyModel("tiny-a");
      rmSync(join(dir, "config.json"));
      make(join(dir, "config.json"));
      await expectFailure(dir, "CONFIG_INVALID", "config.json");
    }
  });
  it("without weights says what else it holds", async () => {
    const dir = copyModel("tiny-a");
    renameSync(weights(dir), join(dir, "pytorch_model.bin"));
    await expectFailure(dir, "CHECKPOINT_INVALID", "model.safetensors", "pytorch_model.bin");
  });
});

describe("an interrupted download", () => {
  it("without the second shard: the index names it and it is not there", async () => {
    const dir = copyModel("mini");
    rmSync(join(dir, SHARD2));
    await expectFailure(dir, "CHECKPOINT_INVALID", SHARD2, "not there", INDEX);
  });
  it("with a Git LFS pointer as second shard says how to fetch it", async () => {
    const dir = copyModel("mini");
    writeFileSync(join(dir, SHARD2), "version https://git-lfs.github.com/spec/v1\noid sha256:aaaa\nsize 12213768\n");
    await expectFailure(dir, "CHECKPOINT_INVALID", SHARD2, "Git LFS pointer", "git lfs pull");
  });
  it("with half of the second shard gives expected and actual bytes", async () => {
    const dir = copyModel("mini");
    const { size } = statSync(join(dir, SHARD2));
    truncateSync(join(dir, SHARD2), size / 2);
    await expectFailure(dir, "CHECKPOINT_INVALID", SHARD2, `${size}`, `${size / 2}`);
  });
  it("with an empty second shard says so", async () => {
    const dir = copyModel("mini");
    truncateSync(join(dir, SHARD2), 0);
    await expectFailure(dir, "CHECKPOINT_INVALID", SHARD2, "empty", "0 bytes");
  });
  it("without the index names the files that are there", async () => {
    const dir = copyModel("mini");
    rmSync(join(dir, INDEX));
    await expectFailure(dir, "CHECKPOINT_INVALID", INDEX, SHARD1);
  });
});

describe("the index", () => {
  const NAME = "model.norm.weight";
  const place = (value: unknown) => {
    const dir = linkModel("mini");
    editJson(join(dir, INDEX), (index) => void (index.weight_map[NAME] = value));
    return dir;
  };

  const wrongNames = [
    "../other/model.safetensors",
    "/etc/passwd",
    "sub/../../x",
    "sub/../model.safetensors",
    "..",
    "model\0.safetensors",
    "",
    ".",
    "./",
    7,
    null,
    ["x"],
    {},
  ];
  it.each(wrongNames.map((value) => ({ value })))("refuses the file name $value, naming it", async ({ value }) => {
    const dir = place(value);
    mkdirSync(join(dir, "../other"), { recursive: true });
    copyFileSync(weights(modelPath("tiny-a")), join(dir, "../other/model.safetensors"));
    await expectFailure(dir, "CHECKPOINT_INVALID", NAME, JSON.stringify(value));
  });
  it("never opens a file outside", async () => {
    const dir = place("../outside.safetensors");
    execFileSync("mkfifo", [join(dir, "../outside.safetensors")]);
    await expectFailure(dir, "CHECKPOINT_INVALID", "leaves");
  });
  it("refuses a FIFO, a device and a folder at once", async () => {
    const dir = place("odd.safetensors");
    for (const make of [
      (path: string) => execFileSync("mkfifo", [path]),
      (path: string) => symlinkSync("/dev/zero", path),
      (path: string) => mkdirSync(path),
    ]) {
      rmSync(join(dir, "odd.safetensors"), { recursive: true, force: true });
      make(join(dir, "odd.safetensors"));
      await expectFailure(dir, "CHECKPOINT_INVALID", "odd.safetensors");
    }
  });
  it("may name files in the folder in other ways, and in folders within", async () => {
    await read(place(`./${SHARD2}`), ({ tensors }) => expect(tensors.size).toBe(215));
    const dir = place(`sub/${SHARD2}`);
    mkdirSync(join(dir, "sub"));
    copyFileSync(join(dir, SHARD2), join(dir, "sub", SHARD2));
    await read(dir, ({ tensors }) => expect(tensors.get(NAME)!.file.path).toContain(`sub/${SHARD2}`));
  });
  it("may name links, as a hub's cache does", async () => {
    const from = linkModel("mini");
    const blobs = join(from, "../blobs");
    const snapshot = join(from, "../snapshots/rev");
    mkdirSync(blobs);
    mkdirSync(snapshot, { recursive: true });
    for (const name of ["config.json", "generation_config.json", INDEX, SHARD1, SHARD2]) {
      renameSync(join(from, name), join(blobs, `hash-${name}`));
      symlinkSync(`../../blobs/hash-${name}`, join(snapshot, name));
    }
    await read(snapshot, ({ tensors }) => expect(tensors.size).toBe(215));
  });
  it("that says a tensor is where it is not is refused", async () => expectFailure(place(SHARD1), "CHECKPOINT_INVALID", NAME, SHARD1));
  it("decides: what it leaves out does not exist", async () => {
    const dir = linkModel("mini");
    editJson(join(dir, INDEX), (index) => void delete index.weight_map[NAME]);
    await expectFailure(dir, "CHECKPOINT_INVALID", NAME, "missing");
  });
  it("decides: a second copy elsewhere is not looked at", async () => {
    const dir = copyModel("mini");
    editTensors(join(dir, SHARD1), (tensors) => void tensors.set(NAME, float32Tensor([3], [1, 2, 3])));
    await read(dir, ({ tensors }) => expect(tensors.get(NAME)!.entry.shape).toEqual([256]));
  });
  it.each(["[]", "{}", '{"weight_map":[]}', '{"weight_map":null}', "x", '{"weight_map":{}}'])("%s is refused", async (text) => {
    const dir = linkModel("mini");
    writeFileSync(join(dir, INDEX), text);
    await expectFailure(dir, "CHECKPOINT_INVALID");
  });
});

describe("tensors", () => {
  it("missing: the first is named, the others counted", async () => {
    await expectFailure(
      spoil((t) => void t.delete("model.layers.1.mlp.experts.3.up_proj.weight")),
      "CHECKPOINT_INVALID",
      "model.layers.1.mlp.experts.3.up_proj.weight",
      "is missing",
    );
    const dir = spoil((t) => {
      for (const name of [...t.keys()]) if (name.includes("layers.1.self_attn.1")) t.delete(name);
    });
    await expectFailure(dir, "CHECKPOINT_INVALID", "model.layers.1.self_attn.1.q_a_proj.weight", "6 others");
  });
  it("of fewer layers than the config has are counted, whatever their number", async () => {
    const dir = copyModel("tiny-a");
    editConfig(dir, (config) => void (config.num_layers = 3));
    await expectFailure(dir, "CHECKPOINT_INVALID", "model.layers.2.", /and \d+ others/);
    editConfig(dir, (config) => void (config.num_layers = 2 ** 31 - 1));
    await expectFailure(dir, "CHECKPOINT_INVALID", "model.layers.2.", "very many");
  });
  it("of more layers than the config has are unknown", async () => {
    const dir = copyModel("tiny-a");
    editConfig(dir, (config) => void (config.num_layers = 1));
    await expectFailure(dir, "CHECKPOINT_INVALID", "model.layers.1.", "not known");
  });
  it("of the wrong shape: both shapes are given", async () => {
    const dir = spoil((t) => void t.set("model.norm.weight", float32Tensor([95], new Float32Array(95))));
    await expectFailure(dir, "CHECKPOINT_INVALID", "model.norm.weight", "[95]", "[96]");
  });
  it("of an unsupported type are refused by name", async () => {
    for (const dtype of ["F16", "I32", "F64", "F8_E5M2"]) {
      const bytes = { F16: 2, I32: 4, F64: 8, F8_E5M2: 1 }[dtype]!;
      const dir = spoil((t) => void t.set("model.norm.weight", { dtype, shape: [96], data: new Uint8Array(96 * bytes) }));
      await expectFailure(dir, "CHECKPOINT_UNSUPPORTED", "model.norm.weight", dtype, "F32, BF16");
    }
  });
  it("of one stack must share a type", async () => {
    const dir = spoil(
      (t) =>
        void t.set("model.layers.0.mlp.experts.3.up_proj.weight", { dtype: "BF16", shape: [48, 96], data: new Uint8Array(48 * 96 * 2) }),
    );
    await expectFailure(dir, "CHECKPOINT_INVALID", "experts.3.up_proj", "experts.0.up_proj");
  });
  it("in another file type's names are unknown, unless allowed", async () => {
    const dir = spoil((t) => void t.set("model.layers.0.mlp.shared.weight", float32Tensor([1], [1])));
    await expectFailure(dir, "CHECKPOINT_INVALID", "model.layers.0.mlp.shared.weight", "allowUnknownTensors");
    await read(dir, ({ warnings }) => expect(warnings).toEqual([expect.stringContaining("model.layers.0.mlp.shared.weight")]), {
      allowUnknownTensors: true,
    });
  });
  it("of an indexer are refused even where unknown ones are allowed", async () => {
    const dir = spoil((t) => void t.set("model.layers.0.self_attn.0.indexer.wq.weight", float32Tensor([1], [1])));
    const error = await failure(dir, { allowUnknownTensors: true });
    expect(error.code).toBe("CHECKPOINT_UNSUPPORTED");
    expect(error.message).toMatch(/indexer.*sparse attention/);
  });
  it("of n-gram tables in a dense model are unknown", async () => {
    await expectFailure(
      spoil((t) => void t.set("model.ngram_embeddings.embedders.0.weight", float32Tensor([1], [1]))),
      "CHECKPOINT_INVALID",
      "ngram_embeddings",
    );
  });
  it("that are known to be harmless give one warning", async () => {
    const one = float32Tensor([1], [1]);
    const dir = spoil((t) => {
      t.set("model.layers.0.mlp.experts.14.gate_proj.weight", one);
      t.set("model.layers.0.mlp.experts.20.up_proj.weight", one);
      t.set("model.layers.0.self_attn.0.rotary_emb.inv_freq", one);
      t.set("model.mtp.embed_tokens.weight", one);
      t.set("model.layers.0.mlp.router.classifier.bias", one);
    });
    await read(dir, ({ warnings, tensors, hasMtp }) => {
      expect(warnings).toHaveLength(1);
      expect(warnings[0]).toMatch(/unused expert \(2.*rotary frequencies \(1.*copy of a shared tensor \(1.*router bias \(1/);
      expect(tensors.size).toBe(139);
      expect(hasMtp).toBe(false);
    });
  });
});

describe("the draft head", () => {
  const removeMtp = (keep: (name: string) => boolean) => {
    const dir = copyModel("mini");
    editTensors(join(dir, SHARD2), (tensors) => {
      for (const name of [...tensors.keys()]) if (name.includes(".mtp.") && !keep(name)) tensors.delete(name);
    });
    editJson(join(dir, INDEX), (index) => {
      for (const name of Object.keys(index.weight_map)) if (name.includes(".mtp.") && !keep(name)) delete index.weight_map[name];
    });
    return dir;
  };
  it("absent though promised gives one warning", async () => {
    await read(
      removeMtp(() => false),
      ({ hasMtp, warnings }) => {
        expect(hasMtp).toBe(false);
        expect(warnings).toEqual([expect.stringContaining("num_nextn_predict_layers")]);
      },
    );
  });
  it("in part is refused, naming what is missing", async () => {
    await expectFailure(
      removeMtp((name) => !name.includes("eh_proj")),
      "CHECKPOINT_INVALID",
      "model.mtp.layers.0.eh_proj.weight",
      "draft head",
    );
  });
  it("is taken where the config does not promise it", async () => {
    const dir = copyModel("mini");
    editConfig(dir, (config) => void delete config.num_nextn_predict_layers);
    await read(dir, ({ hasMtp }) => expect(hasMtp).toBe(true));
  });
});

describe("block FP8", () => {
  const NAME = "model.layers.0.mlps.0.gate_proj.weight";
  const codes = (rows: number, columns: number): FileTensor => ({
    dtype: "F8_E4M3",
    shape: [rows, columns],
    data: new Uint8Array(rows * columns),
  });
  const quantised = (edit: (tensors: Map<string, FileTensor>) => unknown, config: Record<string, unknown> = {}) => {
    const dir = spoil(edit);
    editConfig(dir, (c) => ({
      ...c,
      quantization_config: { quant_method: "fp8", fmt: "e4m3", activation_scheme: "dynamic", weight_block_size: [128, 128] },
      ...config,
    }));
    return dir;
  };
  const both = (t: Map<string, FileTensor>) => t.set(NAME, codes(160, 96)).set(`${NAME}_scale_inv`, float32Tensor([2, 1], [1, 1]));

  it("takes a matrix with its scales, other matrices as they are", async () => {
    await read(quantised(both), ({ tensors }) => expect(tensors.get(`${NAME}_scale_inv`)!.entry.shape).toEqual([2, 1]));
  });
  it("refuses codes without scales", () =>
    expectFailure(
      quantised((t) => void t.set(NAME, codes(160, 96))),
      "CHECKPOINT_INVALID",
      NAME,
      "scale",
    ));
  it("refuses scales of another shape", () =>
    expectFailure(
      quantised((t) => both(t).set(`${NAME}_scale_inv`, float32Tensor([1, 1], [1]))),
      "CHECKPOINT_INVALID",
      "_scale_inv",
      "[2, 1]",
    ));
  it("refuses scales of another type", () =>
    expectFailure(
      quantised((t) => both(t).set(`${NAME}_scale_inv`, { dtype: "BF16", shape: [2, 1], data: new Uint8Array(4) })),
      "CHECKPOINT_INVALID",
      "_scale_inv",
      "F32",
    ));
  it("refuses scales of a matrix that is not FP8", () =>
    expectFailure(
      quantised((t) => void t.set(`${NAME}_scale_inv`, float32Tensor([2, 1], [1, 1]))),
      "CHECKPOINT_INVALID",
      "_scale_inv",
    ));
  it("refuses FP8 that the config does not announce", () => expectFailure(spoil(both), "CHECKPOINT_INVALID", NAME, "quantization_config"));
  it("refuses FP8 in a module that is said to be unquantised", () =>
    expectFailure(quantised(both, { disable_quant_module: ["mlps"] }), "CHECKPOINT_INVALID", NAME, "disable_quant_module"));
  it("leaves other modules alone when one is said to be unquantised", () =>
    read(quantised(both, { disable_quant_module: ["self_attn"] }), ({ tensors }) => expect(tensors.has(`${NAME}_scale_inv`)).toBe(true)));
  it("refuses FP8 norms and embeddings", () =>
    expectFailure(
      quantised((t) => void t.set("model.embed_tokens.weight", codes(320, 96))),
      "CHECKPOINT_UNSUPPORTED",
      "embed_tokens",
    ));
});

describe("generation_config.json", () => {
  const write = (value: unknown) => {
    const dir = linkModel("mini");
    writeFileSync(join(dir, "generation_config.json"), typeof value === "string" ? value : JSON.stringify(value));
    return dir;
  };
  it.each<[unknown, number[]]>([
    [
      [2, 25],
      [2, 25],
    ],
    [[25], [25]],
    [25, [25]],
    [[], []],
    [null, []],
  ])("eos_token_id %j gives %j", async (value, ids) => {
    await read(write({ eos_token_id: value }), ({ generationConfig }) => expect(generationConfig.eosTokenIds).toEqual(ids));
  });
  it.each<[string, unknown]>([
    ["eos_token_id", [999999]],
    ["eos_token_id", "2"],
    ["eos_token_id", [2, null]],
    ["temperature", -1],
    ["temperature", "hot"],
    ["top_p", 0],
    ["top_p", 1.5],
    ["top_k", -1],
    ["top_k", 1.5],
    ["min_p", 2],
    ["repetition_penalty", 0],
    ["do_sample", "yes"],
  ])("%s = %j is CONFIG_INVALID, naming file and value", async (key, value) =>
    expectFailure(write({ [key]: value }), "CONFIG_INVALID", "generation_config.json", key),
  );
  it("that is not JSON is CONFIG_INVALID", () => expectFailure(write("{"), "CONFIG_INVALID", "generation_config.json"));
  it("gives one warning for unknown keys", () =>
    read(write({ no_repeat_ngram_size: 3 }), ({ warnings }) =>
      expect(warnings).toEqual([expect.stringContaining("no_repeat_ngram_size")]),
    ));
});

describe("the description", () => {
  it("of mini says sizes, types, rotation and draft head", async () => {
    const d = await read(modelPath("mini"), describeCheckpoint);
    expect(d).toMatchObject({
      modelType: "longcat_flash",
      layers: 2,
      context: 4096,
      draftHead: true,
      ngram: "none",
      quantization: "none",
      rope: { base: 10000, scaling: "none" },
      endTokens: { config: [2], generationConfig: [2] },
    });
    expect(d.weightBytes).toBe(24499104);
    expect(Object.values(d.bytesByType).reduce((a, b) => a + b)).toBe(24499104);
    const { total, activeMin, activeMax, draftHead } = d.parameters;
    expect(total).toBe(d.bytesByType.BF16! / 2 + d.bytesByType.F32! / 4);
    expect(activeMax - activeMin).toBe(2 * 6 * 3 * 256 * 128);
    expect(activeMax + 2 * 18 * 3 * 256 * 128 + draftHead).toBe(total);
  });
  it("of Lite says the scaling in force", async () => {
    const d = await read(modelPath("tiny-lite-a"), describeCheckpoint);
    expect(d.rope.scaling).toMatch(/yarn, factor 4 over 64/);
    expect(d.ngram).toEqual({ neighbors: 4, splits: 4, ratio: 4, tables: 12 });
    expect(d.parameters.ngramTables).toBe(8 * [...Array(12).keys()].reduce((sum, i) => sum + 4 * 320 + 2 * i + 1, 0));
  });
});
