// What the programs of the worker tests share: a device of the raw addon under load. The addon's path is in LONGCAT_ADDON.
import { createRequire } from "node:module";

export const addon = createRequire(import.meta.url)(process.env.LONGCAT_ADDON);

/** A device with a recorded graph of `rounds` matrix products, and a function that runs it and returns the sum of the result's bits. */
export function makeWork(rounds, threads = 2) {
  const names = addon.ops().map(({ name }) => name);
  const device = addon.openDevice({ kind: "cpu", threads });
  const [rows, width] = [4, 256];
  const tensor = (shape, data) => {
    const id = device.allocate(data instanceof Int32Array ? 3 : 0, shape, "device");
    if (data) device.write(0, id, 0, data);
    return id;
  };
  const x = tensor([rows, width], Float32Array.from({ length: rows * width }, (_, i) => Math.sin(i)));
  const weight = tensor([width, width], Float32Array.from({ length: width * width }, (_, i) => Math.cos(i) / 16));
  const live = tensor([1], Int32Array.of(rows));
  const out = tensor([rows, width]);
  device.beginRecord();
  for (let i = 0; i < rounds; i++) {
    const [from, to] = i % 2 ? [out, x] : [x, out];
    device.enqueue(0, names.indexOf("linear"), Int32Array.of(from, -1, weight, -1, -1, to, live, -1), new Float64Array(0));
  }
  const graph = device.endRecord();
  const run = async () => {
    device.replay(0, graph);
    const result = new Uint32Array(rows * width);
    await device.read(0, out, 0, result);
    return result.reduce((sum, bits) => (sum + bits) % 4294967291, 0);
  };
  return { device, graph, run };
}
