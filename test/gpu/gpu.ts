/** What the tests of a GPU share. Where there is none, each says so and skips itself. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe } from "node:test";
import { type OpenedModel, type OpenModelOptions, openModel } from "../../ts/model/open.js";
import { quantizeCheckpoint } from "../../ts/model/quantize.js";
import { Device } from "../../ts/runtime/device.js";
import { findGpus } from "../../ts/runtime/gpus.js";
import { TEST_MODEL_OPTIONS } from "../helpers/models.js";
import { type ModelName, modelPath } from "../helpers/paths.js";

/** A suite that needs a GPU. */
export function describeOnGpu(name: string, suite: () => void): void {
  const { devices, reason } = findGpus();
  describe(name, { skip: devices.length === 0 ? `needs a GPU: ${reason ?? "none was found"}` : false }, suite);
}

/** A suite that needs several; `lacking`: what else there is none of. */
export function describeOnGpus(count: number, name: string, suite: () => void, lacking: string | false = false): void {
  const { length } = findGpus().devices;
  const skip = length < count ? `needs ${count} GPUs, there are ${length}` : lacking;
  describe(`${name} on ${count} GPUs`, { skip }, suite);
}

/** Why GPUs cannot be joined by NCCL here; false: they can. */
export async function whyNoNccl(): Promise<string | false> {
  const device = Device.open({ threads: 1 });
  try {
    device.ncclUniqueId();
    return false;
  } catch (error) {
    return (error as Error).message;
  } finally {
    await device.close();
  }
}

/** Options under which models are opened on the GPU. */
export const GPU_MODEL_OPTIONS: OpenModelOptions = { ...TEST_MODEL_OPTIONS, device: "cuda", threads: "auto" };

/** A folder of mini in block FP8, made by our own quantiser and removed when the suite ends. Call it in a suite. */
export function quantizedMini(): () => Promise<string> {
  let folder: string | undefined;
  after(() => {
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
  });
  return async () => {
    if (folder === undefined) {
      folder = mkdtempSync(join(tmpdir(), "longcat-gpu-"));
      await quantizeCheckpoint(modelPath("mini"), join(folder, "mini-fp8"));
    }
    return join(folder, "mini-fp8");
  };
}

/** Opens models, which are closed when the suite ends. Call it in a suite. */
export function models(): { open(dir: ModelName | { dir: string }, options?: Partial<OpenModelOptions>): Promise<OpenedModel> } {
  const opened: OpenedModel[] = [];
  after(async () => {
    for (const model of opened.splice(0)) await model.close();
  });
  return {
    open: async (name, options = {}) => {
      const model = await openModel(typeof name === "string" ? modelPath(name) : name.dir, { ...GPU_MODEL_OPTIONS, ...options });
      opened.push(model);
      return model;
    },
  };
}
