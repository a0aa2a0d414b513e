/** Engine options: what is accepted, what is refused, and with which words. */
import { describe, expect, it } from "vitest";
import { DEFAULT_OPTIONS, type EngineOptions, resolveOptions } from "../../ts/engine/options.js";
import { LongcatError } from "../../ts/errors.js";

const resolve = (options: unknown) => resolveOptions(options as EngineOptions);

describe("engine options", () => {
  it("have defaults; undefined and null mean absent", () => {
    expect(resolve(undefined)).toEqual(DEFAULT_OPTIONS);
    expect(resolve(null)).toEqual(DEFAULT_OPTIONS);
    expect(resolve({ device: null, threads: undefined, prefixCache: null, parallel: null })).toEqual(DEFAULT_OPTIONS);
  });

  it("take every value of the contract", () => {
    const given = {
      device: "cuda:1",
      dtype: "float32",
      threads: 3,
      maxBatchTokens: 8,
      maxSequences: 2,
      cacheBytes: 1e6,
      cacheDType: "fp8",
      ngram: "device",
      fp8Activations: true,
    };
    expect(resolve(given)).toMatchObject(given);
    expect(
      resolve({ parallel: { expert: 1 }, prefixCache: true, speculative: "auto", debug: "poison", batchInvariant: false }),
    ).toMatchObject({
      ...{ prefixCache: true, speculative: "auto", debug: "poison", batchInvariant: false },
    });
    expect(resolve({}).speculative).toBe("auto");
    for (const speculative of ["off", { drafts: 1 }, { drafts: 4 }]) expect(resolve({ speculative })).toMatchObject({ speculative });
    expect(resolve({ prefixCache: false }).prefixCache).toBe(false);
    expect(resolve({ prefixCache: "all" }).prefixCache).toBe("all");
  });

  it.each<[Record<string, unknown>, string]>([
    [{ maxSequenses: 1 }, 'unknown option "maxSequenses": did you mean maxSequences?'],
    [{ max_batch_tokens: 1 }, 'unknown option "max_batch_tokens": did you mean maxBatchTokens?'],
    [{ zzz: 1 }, 'unknown option "zzz": known are device, dtype'],
    [{ parallel: { tensor: 2 } }, 'unknown option of parallel "tensor"'],
    [{ parallel: 2 }, "parallel: 2 is not accepted; give an object"],
    [{ parallel: { expert: 0 } }, "parallel.expert: 0 is not accepted; give a whole number of at least 1"],
    [{ parallel: { expert: 1.5 } }, "parallel.expert: 1.5"],
    [{ parallel: { expert: 2, exchange: "mpi" } }, 'parallel.exchange: "mpi" is not accepted; give "auto" or "peer" or "nccl"'],
    [{ parallel: { expert: 2, dispatchDType: "int8" } }, 'parallel.dispatchDType: "int8" is not accepted; give "auto" or "fp8"'],
    [
      { parallel: { expert: 2, timeoutMs: 1999 } },
      'parallel.timeoutMs: 1999 is not accepted; give a whole number from 2000 to 86400000 (milliseconds), or "auto"',
    ],
    [
      { parallel: { expert: 2, joinTimeoutMs: 999 } },
      "parallel.joinTimeoutMs: 999 is not accepted; give a whole number from 1000 to 86400000",
    ],
    [{ device: "gpu" }, 'device: "gpu" is not accepted; give "auto", "cpu", "cuda" or "cuda:N"'],
    [{ device: "cuda:-1" }, 'device: "cuda:-1"'],
    [{ dtype: "float16" }, 'dtype: "float16" is not accepted; give "auto" or "bfloat16" or "float32"'],
    [{ threads: 0 }, 'threads: 0 is not accepted; give a whole number from 1 to 1024, or "auto"'],
    [{ threads: "4" }, 'threads: "4"'],
    [{ threads: Number.NaN }, "threads: NaN"],
    [{ maxSequences: 1.5 }, "maxSequences: 1.5"],
    [{ maxBatchTokens: 0 }, "maxBatchTokens: 0"],
    [{ cacheBytes: -1 }, "cacheBytes: -1"],
    [{ cacheDType: "float8" }, 'cacheDType: "float8" is not accepted; give "auto" or "fp8"'],
    [{ prefixCache: "yes" }, 'prefixCache: "yes" is not accepted; give true, false or "all"'],
    [{ speculative: { drafts: 5 } }, "speculative.drafts: 5 is not accepted; give a whole number from 1 to 4"],
    [{ speculative: { drafts: 0 } }, "speculative.drafts: 0"],
    [{ speculative: {} }, "speculative.drafts: undefined"],
    [{ speculative: 2 }, 'speculative: 2 is not accepted; give "auto", "off" or { drafts: 1 … 4 }'],
    [{ batchInvariant: "true" }, 'batchInvariant: "true"'],
    [{ debug: true }, "debug: true"],
    [{ ngram: "disk" }, 'ngram: "disk"'],
    [{ fp8Activations: 1 }, "fp8Activations: 1"],
    [{ signal: {} }, "signal: {} is not accepted; give an AbortSignal"],
    [{ onProgress: "print" }, 'onProgress: "print" is not accepted; give a function'],
  ])("refuse %j", (options, message) => {
    expect(() => resolve(options)).toThrow(expect.objectContaining({ code: "OPTION_INVALID", message: expect.stringContaining(message) }));
  });

  it("of ranks have defaults of their own", () => {
    const absent = { exchange: "auto", dispatchDType: "auto", joinTimeoutMs: "auto", timeoutMs: "auto" };
    for (const parallel of [{}, { expert: 1 }, { expert: null, exchange: null }])
      expect(resolve({ parallel }).parallel).toEqual({ expert: 1, ...absent });
    expect(resolve({ parallel: { expert: 8 } }).parallel).toEqual({ expert: 8, ...absent });
    const given = { expert: 2, exchange: "nccl", dispatchDType: "fp8", joinTimeoutMs: 1000, timeoutMs: 2000 };
    expect(resolve({ parallel: given }).parallel).toEqual(given);
    expect(resolve({ device: "cpu", parallel: { expert: 2, exchange: "peer" } }).parallel).toMatchObject({ exchange: "peer" });
    for (const device of ["auto", "cpu", "cuda"]) expect(resolve({ device, parallel: { expert: 2 } })).toMatchObject({ device });
  });

  it("refuse what excludes each other, with the reason", () => {
    expect(() => resolve({ device: "cpu", ngram: "device" })).toThrow('ngram: "device" needs a GPU, and device is "cpu"');
    expect(() => resolve({ device: "cpu", fp8Activations: true })).toThrow('fp8Activations: true needs a GPU, and device is "cpu"');
    expect(() => resolve({ speculative: { drafts: 2 }, maxBatchTokens: 2 })).toThrow(
      "speculative: 2 drafts make 3 rows of a sequence, and maxBatchTokens is 2; give it 3 or more",
    );
    expect(() => resolve({ device: "cuda:1", parallel: { expert: 2 } })).toThrow(
      'device: "cuda:1" is one GPU, and parallel.expert is 2: each rank has its own; give "cuda", "auto" or "cpu"',
    );
    expect(() => resolve({ device: "cpu", parallel: { expert: 2, exchange: "nccl" } })).toThrow('parallel.exchange: "nccl" needs GPUs');
    for (const one of [{ exchange: "peer" }, { dispatchDType: "fp8" }, { timeoutMs: 3000 }, { joinTimeoutMs: 3000 }])
      expect(() => resolve({ parallel: one })).toThrow(`parallel.${Object.keys(one)[0]}: needs several ranks, and parallel.expert is 1`);
    expect(resolve({ device: "cuda:1", parallel: { expert: 1 } })).toMatchObject({ device: "cuda:1" });
    expect(resolve({ maxBatchTokens: 1 })).toMatchObject({ speculative: "auto" });
    // The load knows what "auto" means.
    expect(resolve({ ngram: "device", fp8Activations: true })).toMatchObject({ ngram: "device", fp8Activations: true });
  });

  it("refuse anything that is not a record", () => {
    for (const options of [5, "cpu", [], new Map(), () => 0])
      expect(() => resolve(options)).toThrow(expect.objectContaining({ code: "OPTION_INVALID" }) && LongcatError);
  });
});
