/** GPUs joined by NCCL, two ranks in one process. Skipped where there are not two, or no NCCL. */
import assert from "node:assert/strict";
import { it } from "node:test";
import type { Communicator } from "../../ts/runtime/communicator.js";
import { Device } from "../../ts/runtime/device.js";
import { describeOnGpus, whyNoNccl } from "./gpu.js";

/** A rank that nobody waits for any more has so long to end. */
const END_MS = 20_000;

function suite(): void {
  async function join(): Promise<{ devices: Device[]; communicators: Communicator[] }> {
    const devices = [0, 1].map((gpu) => Device.open({ device: `cuda:${gpu}` }));
    const id = devices[0]!.ncclUniqueId();
    return { devices, communicators: await Promise.all(devices.map((device, rank) => device.joinNccl({ rank, ranks: 2, id }))) };
  }

  it("carries bytes, has no failure, and is given back", async () => {
    const { devices, communicators } = await join();
    for (const microseconds of await Promise.all(communicators.map((communicator) => communicator.measure(64 * 12288))))
      assert.ok(microseconds > 1, `${microseconds} µs`);
    for (const communicator of communicators) assert.equal(communicator.failure(), null);
    const id = devices[0]!.ncclUniqueId();
    await assert.rejects(devices[0]!.joinNccl({ rank: 0, ranks: 1, id }), { code: "INTERNAL" });
    await Promise.all(devices.map((device) => device.close()));
    await Promise.all(communicators.map((communicator) => communicator.close()));
  });

  it("ends when a rank gives up that the other waits for", { timeout: END_MS }, async () => {
    const { devices, communicators } = await join();
    const measured = communicators[0]!.measure(1 << 20); // alone
    setTimeout(() => communicators[0]!.abort(), 200);
    await Promise.allSettled([measured]);
    communicators[1]!.abort();
    await Promise.all(devices.map((device) => device.close()));
  });
}

describeOnGpus(2, "NCCL", suite, await whyNoNccl());
