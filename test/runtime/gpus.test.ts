/** Which GPU a device's name means, where some of those that there are cannot be used. */
import { expect, it } from "vitest";
import { chooseDevice, type FoundGpus, withoutEffect } from "../../ts/runtime/gpus.js";

const gpu = (ordinal: number) => ({
  ...{ ordinal, name: "NVIDIA H100 80GB HBM3", capability: "9.0", multiprocessors: 132 },
  ...{ memoryBytes: 80e9, freeBytes: 79e9 },
});
const OLD = "cuda:0: Tesla T4 has compute capability 7.5, and at least 8.0 is needed";
const find = (devices: FoundGpus["devices"], reason: string | null) => () => ({ devices, reason });

it.each(["auto", "cuda", "cuda:1"])("%s is the first GPU that can be used", (device) => {
  expect(chooseDevice(device, find([gpu(1), gpu(2)], OLD))).toEqual({ kind: "cuda", gpu: gpu(1) });
});

it.each([
  ["cuda:0", [gpu(1)], OLD, `there is only one GPU that can be used (${OLD}); give "cuda:1" or "auto"`],
  ["cuda:2", [gpu(0), gpu(1)], null, 'there are only 2 GPUs; give "cuda:0", "cuda:1" or "auto"'],
  ["cuda:0", [], OLD, `${OLD}; give "cpu" or "auto"`],
  ["cuda", [], null, 'no GPU was found; give "cpu" or "auto"'],
])("refuses %s with what there is", (device, devices, reason, message) => {
  const refused = { code: "DEVICE_UNAVAILABLE", message: `device "${device}": ${message}` };
  expect(() => chooseDevice(device, find(devices, reason))).toThrow(expect.objectContaining(refused));
});

it("tells which options change nothing on a device", () => {
  const [cpu, cuda] = [{ kind: "cpu" } as const, { kind: "cuda", gpu: gpu(1) } as const];
  expect(withoutEffect(cpu, { threads: 3 })).toEqual([]);
  expect(withoutEffect(cpu, { batchInvariant: false })).toEqual([expect.stringMatching(/^batchInvariant: false has no effect on the CPU/)]);
  expect(withoutEffect(cuda, { batchInvariant: false, threads: "auto" })).toEqual([]);
  expect(withoutEffect(cuda, { threads: 3 })).toEqual(["threads: 3 has no effect on cuda:1: only the CPU's operations use threads"]);
});
