/** Steps that a runner refuses, and what a step needs of the device's ring. */
import { afterEach, describe, expect, it, vi } from "vitest";
import { COMMANDS_PER_LAYER } from "../../ts/model/layer.js";
import { type OpenedModel, openModel } from "../../ts/model/open.js";
import { checkRing } from "../../ts/model/runner.js";
import { Queue } from "../../ts/runtime/device.js";
import { modelPath } from "../helpers/fixtures.js";
import { takeSlot } from "../helpers/goldens.js";
import { refused } from "../helpers/mini.js";
import { TEST_MODEL_OPTIONS } from "../helpers/models.js";
import { tokens } from "../helpers/runs.js";

const opened: OpenedModel[] = [];
afterEach(async () => {
  vi.restoreAllMocks();
  for (const model of opened.splice(0)) await model.close();
});

async function open(name: Parameters<typeof modelPath>[0], options: Partial<typeof TEST_MODEL_OPTIONS> = {}): Promise<OpenedModel> {
  const model = await openModel(modelPath(name), { ...TEST_MODEL_OPTIONS, ...options });
  opened.push(model);
  return model;
}

describe("a step", () => {
  it("of prompts behind decodes is refused, and the runner goes on", async () => {
    const { runner } = await open("tiny-a");
    takeSlot(runner, 0, 0, 16, 0);
    takeSlot(runner, 1, 1, 16, 0);
    const [first] = await runner.step([{ slot: 0, position: 0, tokens: [5, 6, 7], sample: true }]);
    const decode = { slot: 0, position: 3, tokens: null, sample: true };
    const prompt = { slot: 1, position: 0, tokens: [5, 6, 7], sample: true };
    await expect(runner.step([decode, prompt])).rejects.toThrow(refused("INTERNAL", "a prompt behind a decode"));
    const [again] = await runner.step([prompt, decode]);
    expect(again).toEqual(first);
  });

  it("forces the tokens of as many slots as there are, and draws again afterwards", async () => {
    const { runner } = await open("tiny-a", { maxSequences: 4096, maxBatchTokens: 4096 });
    const { maxSequences } = runner.limits;
    for (let slot = 0; slot < maxSequences; slot++) {
      await runner.room();
      takeSlot(runner, slot, slot, 16, 0);
    }
    const prompts = Array.from({ length: maxSequences }, (_, slot) => ({ slot, position: 0, tokens: [5], sample: true }));
    const drawn = await runner.step(prompts);
    const forced = await runner.step(prompts.map((prompt) => ({ ...prompt, forceNext: 7 + (prompt.slot % 3) })));
    expect(tokens(forced)).toEqual(prompts.map(({ slot }) => 7 + (slot % 3)));
    expect(tokens(await runner.step(prompts))).toEqual(tokens(drawn));
  });
});

describe("launches", () => {
  const decode = (position: number) => ({ slot: 0, position, tokens: null, sample: true });

  it("made before the results of those before are there give the tokens of steps that are awaited", async () => {
    const { runner } = await open("tiny-a");
    const prompt = { slot: 0, position: 0, tokens: [5, 6, 7], sample: true };
    takeSlot(runner, 0, 0, 16, 2);
    const awaited = [await runner.step([prompt])];
    for (let position = 3; position < 8; position++) awaited.push(await runner.step([decode(position)]));
    // A fresh runner records its graph while further steps are enqueued.
    for (const one of [runner, (await open("tiny-a")).runner]) {
      takeSlot(one, 0, 0, 16, 2);
      await one.room();
      const launched = [one.launch([prompt])];
      for (let position = 3; position < 8; position++) launched.push(one.launch([decode(position)]));
      // What is set now is for later steps, also where it says how results are read.
      takeSlot(one, 0, 0, 16, 0);
      expect(await Promise.all(launched)).toEqual(awaited);
      expect(one.recordedGraphs).toBe(1);
    }
  });

  it("of a step that is scored go on by themselves, and room() waits for them", async () => {
    const { runner } = await open("tiny-a", { maxBatchTokens: 256 });
    const tokens = Array.from({ length: 200 }, (_, i) => 5 + (i % 50));
    const scored = { slot: 0, position: 0, tokens, sample: false, scoreTargets: [...tokens.slice(1), -1] };
    takeSlot(runner, 0, 0, 256);
    const [alone] = await runner.step([scored]);
    await runner.room();
    const launched = runner.launch([scored]);
    await expect(runner.launch([scored])).rejects.toThrow(refused("INTERNAL", "await room() before"));
    await runner.room();
    const next = runner.launch([scored]);
    expect([await launched, await next]).toEqual([[alone], [alone]]);
  });
});

describe("the ring", () => {
  it.each(["mini", "tiny-lite-a"] as const)("takes as many commands of a step of %s as are counted", async (name) => {
    const { runner } = await open(name);
    const commands = (["enqueue", "write", "fill", "copy"] as const).map((method) => vi.spyOn(Queue.prototype, method));
    const part = (slot: number, tokens: number[] | null, position: number) => ({
      slot,
      position,
      tokens,
      sample: true,
      forceNext: position + 5,
    });
    const count = async (...parts: ReturnType<typeof part>[]): Promise<number> => {
      for (const spy of commands) spy.mockClear();
      await runner.step(parts);
      return commands.reduce((sum, spy) => sum + spy.mock.calls.length, 0);
    };
    takeSlot(runner, 0, 0, 32, 0);
    takeSlot(runner, 1, 2, 32, 0);
    const counted = COMMANDS_PER_LAYER.cpu * runner.config.numLayers;
    const attentions = 2 * runner.config.numLayers;
    for (const commandsOfStep of [await count(part(0, [5, 6], 0)), await count(part(0, null, 2))]) {
      expect(commandsOfStep).toBeGreaterThan(counted - attentions);
      expect(commandsOfStep).toBeLessThanOrEqual(counted + 32 - attentions);
    }
    const mixed = await count(part(1, [5, 6], 0), part(0, null, 3));
    expect(mixed).toBeGreaterThan(counted);
    expect(mixed).toBeLessThanOrEqual(counted + 32);
    expect(runner.device.roomCommands).toBeGreaterThanOrEqual(1000);
  });

  it("is too small for a model of very many layers, which is said before anything is loaded", () => {
    for (const [kind, most] of [
      ["cpu", 110],
      ["cuda", 88],
    ] as const) {
      const device = { kind, roomCommands: 1792 };
      expect(() => checkRing(device, { numLayers: most }, { maxDrafts: 0 })).not.toThrow();
      expect(() => checkRing(device, { numLayers: most + 1 }, { maxDrafts: 0 })).toThrow(
        refused("CHECKPOINT_UNSUPPORTED", `num_layers is ${most + 1}: not supported; at most ${most} are`),
      );
    }
  });
});

describe("progress", () => {
  it.each(["mini", "tiny-a", "tiny-lite-a"] as const)("of a load of %s reaches the total, and never passes it", async (name) => {
    const steps: [number, number][] = [];
    const { checkpoint } = await open(name, { maxDrafts: 1, onProgress: (done, total) => steps.push([done, total]) });
    expect(steps.at(-1)).toEqual([checkpoint.bytes, checkpoint.bytes]);
    expect(steps.map(([done]) => done)).toEqual(steps.map(([done]) => done).sort((a, b) => a - b));
  });

  it("counts no draft head where there are no drafts", async () => {
    let last: [number, number] = [0, 0];
    const { checkpoint } = await open("mini", { onProgress: (done, total) => (last = [done, total]) });
    expect(last[0]).toBe(last[1]);
    expect(last[1]).toBeLessThan(checkpoint.bytes);
  });
});
