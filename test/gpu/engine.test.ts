/** The engine over the bundled checkpoint on a GPU: the answers that the CPU gives, streams, calls at once, and what is refused. */
import assert from "node:assert/strict";
import { after, it } from "node:test";
import { Engine } from "../../ts/engine/engine.js";
import type { EngineOptions } from "../../ts/engine/options.js";
import type { GenerateResult } from "../../ts/engine/types.js";
import { inspect, listDevices } from "../../ts/index.js";
import type { GenerateParams } from "../../ts/sampling/parameters.js";
import { comparable } from "../helpers/goldens.js";
import { modelPath } from "../helpers/paths.js";
import { collect, GOLDENS, GREEDY, golden, promptOf, SORT, SUM, THINK } from "../helpers/questions.js";
import { sameAfterGivingWay, sameOnPrefixHit, TIGHT_TOKENS, untilIdle } from "../helpers/serving.js";
import { describeOnGpu, quantizedMini } from "./gpu.js";

const OPTIONS: EngineOptions = { device: "cuda", cacheBytes: 256 * 1024 * 1024 };

/** Loads engines, which are closed when the suite ends. Call it in a suite. */
function engines(): (dir?: string, options?: EngineOptions) => Promise<Engine> {
  const opened: Engine[] = [];
  after(async () => {
    for (const one of opened) await one.close();
  });
  return async (dir, options = {}) => {
    const engine = await Engine.load(dir, { ...OPTIONS, ...options });
    opened.push(engine);
    return engine;
  };
}

describeOnGpu("the engine", () => {
  const open = engines();
  const fp8 = quantizedMini();
  let shared: Promise<Engine> | undefined;
  const engine = () => (shared ??= open());
  const alive = async (one: Engine) => assert.equal((await one.generate(SUM, GREEDY)).text, "136");

  it("says where it runs", async () => {
    const { info } = await engine();
    assert.equal(info.device, "cuda");
    assert.match(info.isa, /^\d+\.\d$/);
    assert.equal(info.activations, "bfloat16");
    assert.equal((await open(undefined, { device: "auto" })).info.device, "cuda");
    const gpu = (await listDevices())[0];
    assert.ok(gpu && gpu.name === "cuda:0" && gpu.memoryBytes >= gpu.freeBytes && gpu.freeBytes > 0);
    const { device, fits } = await inspect.estimate(null, { device: "cuda" });
    assert.deepEqual([device, fits], ["cuda", true]);
  });

  it("answers sums, sorts, and reasons", async () => {
    for (const one of [await engine(), await open(await fp8()), await open(undefined, { dtype: "float32" })]) {
      await alive(one);
      assert.equal((await one.generate(SORT, GREEDY)).text, "coin, pear, shell.");
      const { text, reasoning } = await one.generate(THINK, GREEDY);
      assert.equal(text, "1783");
      assert.match(reasoning ?? "", /^9 \+ 4 = 13;[\s\S]*So 1 7 8 3\.$/);
    }
  });

  it("calls tools, and goes on with what they say", async () => {
    const one = await engine();
    const call = await one.generate(promptOf(golden(20)), GREEDY);
    assert.equal(call.finishReason, "tool_calls");
    assert.equal(call.toolCalls?.[0]?.name, "calculator");
    assert.match(call.toolCalls?.[0]?.arguments ?? "", /441/);
    assert.equal((await one.generate(promptOf(golden(21)), GREEDY)).text, "441 * 861 is 379701.");
  });

  it("gives the recorded text of all cases, all at once, up to the first near tie; streamed the same", async () => {
    const one = await engine();
    const results = await Promise.all(GOLDENS.map((c) => one.generate(promptOf(c), { ...GREEDY, maxTokens: c.greedy_ids.length })));
    for (const [i, { tokens }] of results.entries()) {
      const until = comparable(golden(i), 0.05);
      assert.deepEqual(tokens.slice(0, until), golden(i).greedy_ids.slice(0, until), `case ${i}`);
      const chunks = await collect(one.stream(promptOf(golden(i)), { ...GREEDY, maxTokens: golden(i).greedy_ids.length }));
      assert.deepEqual(
        chunks.flatMap((chunk) => chunk.tokens),
        tokens,
        `case ${i}, streamed`,
      );
    }
  });

  it("drafts without changing a bit: greedy, sampled, penalised, several choices, beside others; and says how many were accepted", async () => {
    const same = ({ text, tokens, finishReason, logprobs, routing, choices }: GenerateResult) => ({
      ...{ text, tokens, finishReason, logprobs, routing },
      choices: choices?.map(({ tokens, logprobs, routing }) => ({ tokens, logprobs, routing })),
    });
    const prompts = ["Once upon a time", "In a village by the lake,", promptOf(golden(3)), promptOf(golden(5))];
    const calls: GenerateParams[] = [
      { ...GREEDY, maxTokens: 60, logprobs: 2 },
      { temperature: 1, seed: 7, maxTokens: 60, logprobs: 1, n: 2 },
      { temperature: 0.8, seed: 8, maxTokens: 40, presencePenalty: 0.5, repetitionPenalty: 1.2, ignoreEos: true, logprobs: 1 },
    ];
    const without = await open(undefined, { speculative: "off" });
    const wanted = [];
    for (const params of calls) wanted.push((await without.generate(prompts, params)).map(same));
    for (const speculative of [{ drafts: 1 }, { drafts: 3 }, "auto"] as const) {
      const one = await open(undefined, { speculative });
      for (let round = 0; round < 3; round++)
        for (const [i, params] of calls.entries())
          assert.deepEqual((await one.generate(prompts, params)).map(same), wanted[i], `${JSON.stringify(speculative)}, call ${i}`);
      const { timings } = await one.generate("Once upon a time", { ...GREEDY, maxTokens: 60 });
      const { draftedSteps, acceptedByPlace } = one.stats.speculation;
      assert.ok(draftedSteps > 0 && (acceptedByPlace[0] ?? 0) / draftedSteps > 0.5);
      if (speculative !== "auto") assert.ok((timings.drafts?.share ?? 0) > 0.3);
    }
  });

  it("quantises activations where that is asked for, and only then", async () => {
    const one = await open(await fp8(), { fp8Activations: true });
    assert.equal(one.info.fp8Activations, true);
    await alive(one);
    const refused = { code: "OPTION_INVALID", message: /fp8Activations/ };
    await assert.rejects(open(undefined, { fp8Activations: true }), refused);
    await assert.rejects(open(await fp8(), { fp8Activations: true, dtype: "bfloat16" }), refused);
  });

  it("warns of threads, which nothing on a GPU uses", async () => {
    const warnings: string[] = [];
    await open(undefined, { threads: 3, onWarning: (message) => warnings.push(message) });
    assert.ok(warnings.some((message) => /threads: 3 has no effect on cuda:0/.test(message)));
  });

  it("refuses a GPU that is not there, and more memory than there is; others go on", async () => {
    await assert.rejects(open(undefined, { device: "cuda:999" }), { code: "DEVICE_UNAVAILABLE", message: /cuda:999.*"cuda:0"/ });
    const one = await engine();
    const cacheBytes = 1e15;
    // In float32, mini's latents of 4096 whole contexts are 193 GB.
    const load = open(undefined, { cacheBytes, maxSequences: 4096, maxBatchTokens: 65536, dtype: "float32" });
    await assert.rejects(load, { code: "OUT_OF_MEMORY", message: /asked for \d+ bytes .* \d+ are there; / });
    await alive(one);
    await untilIdle(one);
  });
});

for (const cacheDType of ["auto", "fp8"] as const)
  describeOnGpu(`the engine, ${cacheDType} latents, answers the same`, () => {
    const open = engines();
    const dir = modelPath("mini");

    it("whether a prompt's beginning is found in the prefix cache or not", async () => {
      await sameOnPrefixHit(await open(dir, { cacheDType }), await open(dir, { cacheDType, prefixCache: false }));
    });

    it("after it had to give way", async () => {
      const { cacheBytesPerToken } = await inspect.estimate(dir, { device: "cuda", cacheDType });
      const tight = await open(dir, { cacheDType, cacheBytes: cacheBytesPerToken * TIGHT_TOKENS });
      await sameAfterGivingWay(tight, await open(dir, { cacheDType }));
    });
  });
