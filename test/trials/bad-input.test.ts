/**
 * What callers get wrong, each through the public Engine: an error with its code and the culprit's name, no dead process, and an engine
 * that answers the next request.
 */
import { mkdirSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { Engine, type EngineOptions, type LongcatErrorCode } from "../../ts/index.js";
import { copyModel, editConfig, editJson, editTensors, linkModel, modelPath, temporaryFolder } from "../helpers/fixtures.js";
import { alive, collect, engines, idle, refused, user } from "../helpers/mini.js";
import { onABusyMachine } from "../helpers/time.js";

const { open, closeAll } = engines();
afterAll(closeAll);
let engine: Engine;
beforeAll(async () => {
  engine = await open();
});
afterEach(async () => {
  await alive(engine);
  idle(engine);
});

type Case = [what: string, make: () => string, code: LongcatErrorCode, ...named: string[]];

/** mini with links to its weights, changed. */
const changed = (change: (dir: string) => unknown) => () => {
  const dir = linkModel("mini");
  change(dir);
  return dir;
};
const config = (values: Record<string, unknown>) => changed((dir) => editConfig(dir, (json) => Object.assign(json, values)));
const file = (name: string, content: string) =>
  changed((dir) => {
    rmSync(join(dir, name), { force: true });
    writeFileSync(join(dir, name), content);
  });

describe("a checkpoint folder", () => {
  const cases: Case[] = [
    ["that is a file", () => join(modelPath("mini"), "config.json"), "CHECKPOINT_INVALID", "config.json", "is a file"],
    ["that is not there", () => join(temporaryFolder(), "nowhere"), "CHECKPOINT_INVALID", "nowhere", "not there"],
    ["that is empty", temporaryFolder, "CHECKPOINT_INVALID", "config.json"],
    ["whose config.json is not JSON", file("config.json", "{bad"), "CONFIG_INVALID", "config.json"],
    ["whose config.json is a list", file("config.json", "[]"), "CONFIG_INVALID", "config.json"],
    ["with a value of a wrong type", config({ hidden_size: "256" }), "CONFIG_INVALID", "hidden_size", '"256"'],
    ["with an impossible value", config({ moe_topk: 99 }), "CONFIG_INVALID", "moe_topk", "99"],
    ["with half a number", config({ num_layers: 1.5 }), "CONFIG_INVALID", "num_layers", "1.5"],
    ["with too little of something", config({ num_attention_heads: 0 }), "CONFIG_INVALID", "num_attention_heads"],
    ["of another size than its tensors", config({ hidden_size: 128 }), "CHECKPOINT_INVALID", "[2048, 128]", "[2048, 256]"],
    ["of another family", config({ model_type: "llama", architectures: ["LlamaForCausalLM"] }), "CHECKPOINT_UNSUPPORTED", "llama"],
    ["with an unsupported key", config({ index_topk: 64 }), "CHECKPOINT_UNSUPPORTED", "index_topk"],
    ["whose tokenizer is not JSON", file("tokenizer.json", "{bad"), "TOKENIZER_INVALID", "tokenizer.json"],
    ["whose tokenizer is another kind", file("tokenizer.json", '{"model":{"type":"Unigram"}}'), "TOKENIZER_INVALID", "Unigram"],
    ["whose tokenizer_config.json is not JSON", file("tokenizer_config.json", "{"), "TOKENIZER_INVALID", "tokenizer_config.json"],
    ["whose template does not parse", file("chat_template.jinja", "{% if %}"), "TOKENIZER_INVALID", "chat_template.jinja"],
    ["whose generation_config.json is not JSON", file("generation_config.json", "{"), "CONFIG_INVALID", "generation_config.json"],
    ["with a temperature of text", file("generation_config.json", '{"temperature":"hot"}'), "CONFIG_INVALID", "temperature", "hot"],
    [
      "with a tensor missing",
      () => {
        const dir = copyModel("tiny-a");
        editTensors(join(dir, "model.safetensors"), (tensors) => tensors.delete("model.layers.1.mlp.experts.3.up_proj.weight"));
        return dir;
      },
      "CHECKPOINT_INVALID",
      "model.layers.1.mlp.experts.3.up_proj.weight",
      "missing",
    ],
    [
      "with a shard cut short",
      () => {
        const dir = copyModel("mini");
        truncateSync(join(dir, "model-00001-of-00002.safetensors"), 100_000);
        return dir;
      },
      "CHECKPOINT_INVALID",
      "model-00001-of-00002.safetensors",
      "100000",
    ],
    ["whose index is not JSON", file("model.safetensors.index.json", "x"), "CHECKPOINT_INVALID", "model.safetensors.index.json"],
    [
      "whose index leaves the folder",
      changed((dir) =>
        editJson(join(dir, "model.safetensors.index.json"), (index) => {
          index.weight_map["model.norm.weight"] = "../x.safetensors";
        }),
      ),
      "CHECKPOINT_INVALID",
      "../x.safetensors",
    ],
    [
      "whose config.json is a folder",
      changed((dir) => {
        rmSync(join(dir, "config.json"));
        mkdirSync(join(dir, "config.json"));
      }),
      "CONFIG_INVALID",
      "config.json",
    ],
    [
      "whose config.json is a link in a circle",
      changed((dir) => {
        rmSync(join(dir, "config.json"));
        symlinkSync("config.json", join(dir, "config.json"));
      }),
      "CONFIG_INVALID",
      "config.json",
    ],
  ];
  it.each(cases)("%s", async (_, make, code, ...named) => {
    const dir = make();
    const start = performance.now();
    const error = await Engine.load(dir, { device: "cpu" }).then(
      () => undefined,
      (thrown: Error) => thrown,
    );
    expect(error).toEqual(refused(code));
    for (const word of named) expect(error?.message).toContain(word);
    expect(performance.now() - start).toBeLessThan(onABusyMachine(1000));
  });
});

describe("an option", () => {
  it.each<[Record<string, unknown>, string]>([
    [{ maxSequenses: 1 }, 'unknown option "maxSequenses"'],
    [{ threads: 0 }, "threads: 0"],
    [{ threads: Number.NaN }, "threads: NaN"],
    [{ cacheBytes: "1GB" }, 'cacheBytes: "1GB"'],
    [{ device: "tpu" }, 'device: "tpu"'],
    [{ speculative: { drafts: 9 } }, "speculative.drafts: 9"],
    [{ prefixCache: "some" }, "prefixCache"],
    [{ parallel: { expert: 5 } }, "parallel.expert"],
    [{ parallel: { expert: 2 }, device: "cuda:0" }, "device"],
  ])("%o is OPTION_INVALID", async (options, named) => {
    await expect(Engine.load(undefined, options as EngineOptions)).rejects.toEqual(refused("OPTION_INVALID", named));
  });

  it("that cannot be met says what there is", async () => {
    await expect(Engine.load(undefined, { device: "cuda" })).rejects.toEqual(refused("DEVICE_UNAVAILABLE", "cuda"));
    await expect(Engine.load(undefined, { cacheBytes: 1000 })).rejects.toEqual(refused("OUT_OF_MEMORY", "cacheBytes allows 1000"));
    await expect(Engine.load(undefined, { cacheBytes: 1e15, maxSequences: 4096 })).rejects.toEqual(refused("OUT_OF_MEMORY"));
  });
});

describe("a request", () => {
  const long = { tokens: new Array<number>(4097).fill(28) };
  const cases: [string, unknown, Record<string, unknown>, LongcatErrorCode, string][] = [
    ["an empty prompt", "", {}, "PROMPT_INVALID", "empty"],
    ["no tokens", { tokens: [] }, {}, "PROMPT_INVALID", "empty"],
    ["no messages", { messages: [] }, {}, "PROMPT_INVALID", "messages"],
    ["a prompt over the context", long, {}, "CONTEXT_OVERFLOW", "4097 tokens; the context has 4096"],
    ["an id over the vocabulary", { tokens: [28, 2048] }, {}, "PROMPT_INVALID", "tokens[1]: 2048"],
    ["an id under 0", { tokens: [-1] }, {}, "PROMPT_INVALID", "tokens[0]: -1"],
    ["half an id", { tokens: [1.5] }, {}, "PROMPT_INVALID", "tokens[0]: 1.5"],
    ["an id that is no number", { tokens: [Number.NaN] }, {}, "PROMPT_INVALID", "tokens[0]: NaN"],
    ["no prompt", undefined, {}, "PROMPT_INVALID", "undefined"],
    ["a NaN temperature", "a", { temperature: Number.NaN }, "OPTION_INVALID", "temperature: NaN"],
    ["an unknown parameter", "a", { tempreature: 1 }, "OPTION_INVALID", "tempreature"],
    ["a stop string that is none", "a", { stop: "" }, "OPTION_INVALID", "stop"],
    ["a padding id", "a", { logitBias: { "2047": 1 } }, "OPTION_INVALID", "logitBias: 2047"],
    ["a format that is not there", "a", { responseFormat: { type: "xml" } }, "OPTION_INVALID", "responseFormat.type"],
    [
      "a schema that cannot be kept",
      "a",
      { responseFormat: { type: "json_schema", schema: { properties: { a: { not: {} } } } } },
      "OPTION_INVALID",
      "responseFormat.schema.properties.a.not",
    ],
    ["a role that is none", { messages: [{ role: "robot", content: "" }] }, {}, "PROMPT_INVALID", "messages[0].role"],
  ];
  it.each(cases)("with %s is refused, streamed and not, and scored where it can be", async (_, prompt, params, code, named) => {
    await expect(engine.generate(prompt as string, params)).rejects.toEqual(refused(code, named));
    await expect(collect(engine.stream(prompt as string, params))).rejects.toEqual(refused(code, named));
    if (Object.keys(params).length === 0 && !(prompt as { messages?: unknown } | undefined)?.messages)
      await expect(engine.score(prompt as string)).rejects.toEqual(refused(code, named));
  });

  it("beside others takes nobody with it", async () => {
    const [good, bad, alsoGood] = await Promise.allSettled([
      engine.generate("Once upon a time", { maxTokens: 20, temperature: 0 }),
      engine.generate({ tokens: [99_999] }),
      engine.generate("Once upon a time", { maxTokens: 20, temperature: 0 }),
    ]);
    expect([good.status, bad.status, alsoGood.status]).toEqual(["fulfilled", "rejected", "fulfilled"]);
  });

  it("to a template that throws is PROMPT_INVALID with the template's words; raw text still works there", async () => {
    const dir = file("chat_template.jinja", "{{ raise_exception('roles must alternate') }}")();
    const strict = await open(dir);
    await expect(strict.generate(user("Hi"))).rejects.toEqual(refused("PROMPT_INVALID", "roles must alternate"));
    expect((await strict.generate("Once upon a time", { maxTokens: 2, temperature: 0 })).tokens).toHaveLength(2);
    await strict.close();
  });

  it("to a template that never ends is refused in time", async () => {
    const endless = await open(
      file("chat_template.jinja", "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}")(),
    );
    const start = performance.now();
    await expect(endless.generate(user("Hi"))).rejects.toEqual(refused("PROMPT_INVALID"));
    expect(performance.now() - start).toBeLessThan(onABusyMachine(2000));
    await endless.close();
  });
});
