/** GPUs joined by NCCL, two ranks in one process. Skipped where there are not two, or no NCCL. */

import { describe, expect, it } from "vitest";
import { Device } from "../../ts/runtime/device.js";
import { findGpus } from "../../ts/runtime/gpus.js";

function nccl(): boolean {
  const device = Device.open({ threads: 1 });
  try {
    return device.ncclUniqueId().length === 128;
  } catch {
    return false;
  } finally {
    void device.close();
  }
}

describe.skipIf(findGpus().devices.length < 2 || !nccl())("two GPUs joined by NCCL", () => {
  const join = async () => {
    const devices = [0, 1].map((gpu) => Device.open({ device: `cuda:${gpu}` }));
    const id = devices[0]!.ncclUniqueId();
    return { devices, communicators: await Promise.all(devices.map((device, rank) => device.joinNccl({ rank, ranks: 2, id }))) };
  };

  it("carry bytes, have no failure, and are given back", async () => {
    const { devices, communicators } = await join();
    for (const microseconds of await Promise.all(communicators.map((communicator) => communicator.measure(64 * 12288)))) {
      expect(microseconds).toBeGreaterThan(1);
    }
    expect(communicators.map((communicator) => communicator.failure())).toEqual([null, null]);
    await expect(devices[0]!.joinNccl({ rank: 0, ranks: 1, id: devices[0]!.ncclUniqueId() })).rejects.toMatchObject({ code: "INTERNAL" });
    await Promise.all(devices.map((device) => device.close()));
    await Promise.all(communicators.map((communicator) => communicator.close()));
  });

  it("end when a rank gives up that the other waits for", async () => {
    const { devices, communicators } = await join();
    const measured = communicators[0]!.measure(1 << 20); // alone
    setTimeout(() => communicators[0]!.abort(), 200);
    await expect(
      Promise.race([
        measured.then(
          () => "ended",
          () => "ended",
        ),
        new Promise((ended) => setTimeout(ended, 20_000, "stuck")),
      ]),
    ).resolves.toBe("ended");
    communicators[1]!.abort();
    await Promise.all(devices.map((device) => device.close()));
  });
});
