/** What a machine without a GPU says: no device is listed, "auto" is the processor, "cuda" is refused with what is missing. */
import { describe, expect, it } from "vitest";
import { Engine, inspect, listDevices } from "../../ts/index.js";
import { chooseDevice, findGpus } from "../../ts/runtime/gpus.js";

describe.skipIf(findGpus().devices.length > 0)("a machine without a GPU", () => {
  it("lists no devices; its processor is there all the same", async () => {
    expect(await listDevices()).toEqual([]);
    expect(await inspect.devices()).toEqual([]);
    expect(await inspect.processor()).toMatchObject({ name: "cpu", kind: "cpu" });
  });

  it("takes the processor for auto", () => {
    expect(chooseDevice("auto")).toEqual({ kind: "cpu" });
  });

  it.each(["cuda", "cuda:1"] as const)("refuses %s with what is missing", async (device) => {
    const { reason } = findGpus();
    expect(reason).toMatch(/driver|CUDA|GPU/);
    const refused = { code: "DEVICE_UNAVAILABLE", message: expect.stringContaining((reason as string).replace(/\.$/, "")) };
    await expect(Engine.load(undefined, { device })).rejects.toMatchObject(refused);
  });
});
