/** A GPU that is lost: everything is refused with the fault that lost it, and the process lives on. Nothing else may use the GPU here. */
import assert from "node:assert/strict";
import { it } from "node:test";
import { openModel } from "../../ts/model/open.js";
import { Device } from "../../ts/runtime/device.js";
import { modelPath } from "../helpers/paths.js";
import { describeOnGpu, GPU_MODEL_OPTIONS } from "./gpu.js";

const lost = { code: "CUDA_ERROR", message: /cudaError\w+: .*lost to this process/s };

describeOnGpu("a lost GPU", () => {
  it("refuses every step with the fault that lost it, closes, and leaves the CPU as it was", async () => {
    const { runner, close } = await openModel(modelPath("tiny-a"), { ...GPU_MODEL_OPTIONS, trapOn: "rms_norm" });
    runner.setSampling(0, {
      ...{ temperature: 0, topP: 1, topK: 0, minP: 0, repetitionPenalty: 1, presencePenalty: 0, frequencyPenalty: 0 },
      ...{ seed: 0, logprobs: -1, logitBias: new Map(), promptTokens: [] },
    });
    runner.setBlocks(0, 0, [0]);
    const step = () => runner.step([{ slot: 0, position: 0, tokens: [3, 4, 5], sample: true }]);
    await assert.rejects(step(), lost);
    await assert.rejects(step(), lost);
    await assert.rejects(runner.device.done(), lost);
    await close();

    const cpu = Device.open({ device: "cpu", threads: 1 });
    const tensor = cpu.tensor("float32", [4]);
    const queue = cpu.queue();
    queue.write(tensor, Float32Array.of(1, 2, 3, 4));
    const read = new Float32Array(4);
    await queue.read(tensor, read);
    assert.deepEqual([...read], [1, 2, 3, 4]);
    await cpu.close();
  });
});
