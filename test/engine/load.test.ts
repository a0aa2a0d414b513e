/** A load that fails or is aborted leaves nothing open. */
import { afterEach, beforeEach, describe, expect, it, type MockInstance, vi } from "vitest";
import { Engine } from "../../ts/engine/engine.js";
import type { EngineOptions } from "../../ts/engine/options.js";
import type { EngineInfo } from "../../ts/engine/types.js";
import { Runner } from "../../ts/model/runner.js";
import { ChatTemplate, Tokenizer } from "../../ts/text/index.js";
import { refused } from "../helpers/mini.js";

const OPTIONS = { device: "cpu", threads: 1, cacheBytes: 16 * 1024 * 1024 } as const;

let closeRunner: MockInstance;
let closeTokenizer: MockInstance;
beforeEach(() => {
  closeRunner = vi.spyOn(Runner.prototype, "close");
  closeTokenizer = vi.spyOn(Tokenizer.prototype, "close");
});
afterEach(() => vi.restoreAllMocks());

describe("a load", () => {
  it("that is aborted when the text side is there closes it and the model", async () => {
    const controller = new AbortController();
    const load = ChatTemplate.load.bind(ChatTemplate);
    vi.spyOn(ChatTemplate, "load").mockImplementation((dir, tokenizer) => {
      controller.abort();
      return load(dir, tokenizer);
    });
    await expect(Engine.load(undefined, { ...OPTIONS, signal: controller.signal })).rejects.toThrow(refused("ABORTED"));
    expect(closeRunner).toHaveBeenCalledTimes(1);
    expect(closeTokenizer).toHaveBeenCalledTimes(1);
  });

  it("whose engine cannot be made closes them too", async () => {
    const setAllowed = Runner.prototype.setAllowed;
    let calls = 0;
    vi.spyOn(Runner.prototype, "setAllowed").mockImplementation(function (this: Runner, ids) {
      // The runner's own call is the first, the engine's the second.
      if (++calls === 2) throw new Error("the ids cannot be set");
      setAllowed.call(this, ids);
    });
    await expect(Engine.load(undefined, OPTIONS)).rejects.toThrow("the ids cannot be set");
    expect(calls).toBe(2);
    expect(closeRunner).toHaveBeenCalledTimes(1);
    expect(closeTokenizer).toHaveBeenCalledTimes(1);
  });

  it("warns of demands that change nothing, and of nothing else", async () => {
    const warningsOf = async (options: EngineOptions): Promise<[string[], EngineInfo]> => {
      const warnings: string[] = [];
      await using engine = await Engine.load(undefined, { ...OPTIONS, ...options, onWarning: (message) => warnings.push(message) });
      return [warnings, engine.info];
    };
    expect((await warningsOf({ batchInvariant: true, ngram: "auto" }))[0]).toEqual([]);
    const [warnings, info] = await warningsOf({ batchInvariant: false, ngram: "host" });
    expect(warnings).toEqual([
      "batchInvariant: false has no effect on the CPU: its bits are the same in any batch",
      'ngram: "host" has no effect on this model: it has no n-gram tables',
    ]);
    expect(info).toMatchObject({ batchInvariant: true, ngram: "none" });
  });

  it("of an engine for which there is not enough memory says what would fit", async () => {
    const cacheBytes = Number.MAX_SAFE_INTEGER;
    await expect(Engine.load(undefined, { ...OPTIONS, cacheBytes, maxSequences: 4096 })).rejects.toThrow(
      refused("OUT_OF_MEMORY", "are there; cacheBytes: "),
    );
    expect(closeRunner).not.toHaveBeenCalled();
  });
});
