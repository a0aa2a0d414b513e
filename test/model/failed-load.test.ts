/** What a load that fails behind its exchange leaves open. */
import { expect, it, vi } from "vitest";
import type { Communicator } from "../../ts/runtime/communicator.js";
import type { Exchange } from "../../ts/model/exchange.js";
import { openModel } from "../../ts/model/open.js";
import { Device } from "../../ts/runtime/device.js";
import { TEST_MODEL_OPTIONS } from "../helpers/models.js";
import { modelPath } from "../helpers/paths.js";

const closed: string[] = [];

vi.mock("../../ts/model/open-exchange.js", async (original) => ({
  ...(await original<object>()),
  openExchange: async () =>
    ({ nccl: { communicator: { close: async () => closed.push("communicator") } as unknown as Communicator } }) as unknown as Exchange,
}));

it("closes the communicator, then the device", async () => {
  const close = Device.prototype.close;
  vi.spyOn(Device.prototype, "close").mockImplementation(function (this: Device) {
    closed.push("device");
    return close.call(this);
  });
  const parallel = {
    ...{ rank: 0, ranks: 2, gather: async (_: string, bytes: Uint8Array) => [bytes, bytes] },
    lockstep: { agree: () => Promise.reject(new Error("no rounds")) },
  };
  const broken = new Error("the bar is broken");
  const onProgress = (): never => {
    throw broken;
  };
  await expect(openModel(modelPath("tiny-a"), { ...TEST_MODEL_OPTIONS, parallel, onProgress })).rejects.toBe(broken);
  expect(closed).toEqual(["communicator", "device"]);
});
