/** Tensors and queues: order, ranges, back-pressure, closing. */

import { describe, expect, it } from "vitest";
import { LongcatError } from "../../ts/errors.js";
import { ops } from "../../ts/runtime/ops.js";
import { bits, filled, hasIsa, ISAS, numbers, openDevice, SmallProgram } from "./devices.js";

const internal = (words: RegExp) => expect.objectContaining({ code: "INTERNAL", message: expect.stringMatching(words) });

describe("tensors", () => {
  it("start at zero", async () => {
    const device = openDevice();
    const all = await bits(device.queue(), device.tensor("float32", [3, 100_000]));
    expect(all.every((value) => value === 0)).toBe(true);
  });

  it("are seen through views and columns", async () => {
    const device = openDevice();
    const queue = device.queue();
    const matrix = filled(
      device,
      queue,
      [3, 4],
      Float32Array.from({ length: 12 }, (_, i) => i),
    );
    const row = new Float32Array(4);
    await queue.read(matrix.view("float32", [4], 16), row);
    expect([...row]).toEqual([4, 5, 6, 7]);
    const columns = matrix.columns(1, 3);
    expect(columns).toMatchObject({ shape: [3, 2], rowStride: 4, bytes: 24 });
    queue.fill(columns, 0);
    const all = new Float32Array(12);
    await queue.read(matrix, all);
    expect([...all]).toEqual([0, 0, 0, 3, 4, 0, 0, 7, 8, 0, 0, 11]);
  });

  it("refuse views that reach beyond them, overlap themselves or are not aligned", () => {
    const device = openDevice();
    const tensor = device.tensor("float32", [4, 4]);
    expect(() => tensor.view("float32", [5, 4])).toThrow(internal(/bytes 0 to 80 within a tensor of 64 bytes/));
    expect(() => tensor.view("float32", [1], 64)).toThrow(internal(/within a tensor/));
    expect(() => tensor.view("float32", [1], 2)).toThrow(internal(/not aligned/));
    expect(() => tensor.view("float32", [2, 4], 0, 3)).toThrow(internal(/rows overlap/));
    expect(() => tensor.view("float32", [2 ** 40, 2 ** 40])).toThrow(internal(/./));
    expect(() => tensor.view("float32", [-1])).toThrow(internal(/entry is -1/));
    expect(() => tensor.columns(2, 5)).toThrow(internal(/columns 2 to 5/));
  });

  it("that cannot be had say what was asked for and what is there", () => {
    const device = openDevice();
    for (const shape of [[2 ** 42], [2 ** 50, 2 ** 20]]) {
      expect(() => device.tensor("float32", shape)).toThrow(
        expect.objectContaining({ code: "OUT_OF_MEMORY", message: expect.stringMatching(/asked for/) }),
      );
    }
    expect(() => device.tensor("float32", [2 ** 42])).toThrow(/asked for 17592\.19 GB .*, [\d.]+ (GB|MB) are there/);
  });

  it("give their memory back once nothing needs it", async () => {
    const device = openDevice();
    const queue = device.queue();
    const before = device.allocatedBytes;
    const tensor = device.tensor("float32", [1 << 20]);
    expect(device.allocatedBytes - before).toBe(4 << 20);
    queue.fill(tensor, 1);
    const byte = new Uint8Array(1);
    const read = queue.read(tensor, byte);
    tensor.release();
    await read;
    expect(byte[0]).toBe(1);
    await queue.done();
    expect(device.allocatedBytes).toBe(before);
    expect(() => queue.fill(tensor, 0)).toThrow(internal(/no tensor has id/));
  });

  it("do not answer to the number of a released one", () => {
    const device = openDevice();
    const first = device.tensor("float32", [1]);
    first.release();
    const second = device.tensor("float32", [1]);
    expect(second.id).not.toBe(first.id);
    expect(() => first.view("float32", [1])).toThrow(internal(/released/));
  });

  it("stack without a copy, if they are alike", () => {
    const device = openDevice();
    const before = device.allocatedBytes;
    const parts = [1, 2, 3].map(() => device.tensor("bfloat16", [2, 2]));
    expect(device.stack(parts).shape).toEqual([3, 2, 2]);
    expect(device.allocatedBytes - before).toBe(24);
    expect(() => device.stack([parts[0]!, device.tensor("bfloat16", [4])])).toThrow(internal(/differ/));
    expect(() => device.stack([])).toThrow(LongcatError);
  });

  it("convert to bfloat16 by rounding to nearest, ties to even, and back exactly", async () => {
    const device = openDevice();
    const queue = device.queue();
    const values = Float32Array.of(1, 1 + 2 ** -8, 1 + 3 * 2 ** -8, -(1 + 2 ** -8 + 2 ** -20), 1e-40, Number.POSITIVE_INFINITY);
    const narrow = device.convert(filled(device, queue, [6], values), undefined, "bfloat16");
    const back = new Float32Array(6);
    await queue.read(device.convert(narrow, undefined, "float32"), back);
    expect([...back].slice(0, 4)).toEqual([1, 1, 1 + 2 ** -6, -(1 + 2 ** -7)]);
    expect(back[5]).toBe(Number.POSITIVE_INFINITY);
    expect(() => device.convert(narrow, undefined, "int32")).toThrow(internal(/cannot convert to int32/));
  });
});

describe("a queue", () => {
  it("keeps the order of writes, fills, copies and reads, across queues", async () => {
    const device = openDevice();
    const [first, second] = [device.queue(), device.queue()];
    const [a, b] = [device.tensor("int32", [4]), device.tensor("int32", [4])];
    const seen: number[][] = [];
    const look = async (tensor: typeof a) => {
      const into = new Int32Array(4);
      await second.read(tensor, into);
      seen.push([...into]);
    };
    const reads = [];
    first.write(a, Int32Array.of(1, 2, 3, 4));
    second.wait(first.signal());
    reads.push(look(a));
    first.write(a, Int32Array.of(9), 8);
    first.copy(a, 4, b, 0, 8);
    reads.push(look(a), look(b));
    first.fill(a, 0xff);
    reads.push(look(a));
    await Promise.all(reads);
    expect(seen).toEqual([
      [1, 2, 3, 4],
      [1, 2, 9, 4],
      [2, 9, 0, 0],
      [-1, -1, -1, -1],
    ]);
  });

  it("takes what is written at the call", async () => {
    const device = openDevice();
    const queue = device.queue();
    const data = Float32Array.of(1);
    const tensor = filled(device, queue, [1], data);
    data[0] = 2;
    const into = new Float32Array(1);
    await queue.read(tensor, into);
    expect(into[0]).toBe(1);
  });

  it("moves pieces of any size, from DataViews and parts of arrays too", async () => {
    const device = openDevice();
    const queue = device.queue();
    for (const count of [1, 1000, 300_000, 3_000_000]) {
      const data = numbers(count + 2, count);
      const tensor = device.tensor("float32", [count]);
      queue.write(tensor, data.subarray(1, count + 1));
      const into = new Float32Array(count);
      await queue.read(tensor, new DataView(into.buffer));
      expect(Buffer.compare(Buffer.from(into.buffer), Buffer.from(data.buffer, 4, count * 4))).toBe(0);
    }
  });

  it("refuses bytes outside of a tensor", async () => {
    const device = openDevice();
    const queue = device.queue();
    const tensor = device.tensor("int32", [4]);
    expect(() => queue.write(tensor, new Int32Array(5))).toThrow(internal(/write: bytes 0 to 20 of a tensor of 16 bytes/));
    expect(() => queue.write(tensor, new Int32Array(1), 2 ** 52)).toThrow(internal(/write/));
    expect(() => queue.copy(tensor, 8, tensor, 0, 12)).toThrow(internal(/copy, source/));
    await expect(queue.read(tensor, new Int32Array(1), 16)).rejects.toThrow(internal(/read: bytes 16 to 20/));
    await expect(queue.read(tensor, [] as unknown as Int32Array)).rejects.toThrow(internal(/typed array/));
  });

  it("pushes back when the ring is full, loses nothing, and says when there is room", async () => {
    const device = openDevice();
    const queue = device.queue();
    const large = device.tensor("uint8", [64 << 20]);
    const counter = device.tensor("int32", [1]);
    for (let i = 0; i < 20; i++) queue.fill(large, i);
    let written = 0;
    expect(queue.hasRoom(3000)).toBe(true);
    await expect(async () => {
      for (; written < 100_000; written++) queue.write(counter, Int32Array.of(written));
    }).rejects.toThrow(internal(/await queue\.room\(\)/));
    expect(written).toBeGreaterThan(3000);
    expect(queue.hasRoom(3000)).toBe(false);
    const value = new Int32Array(1);
    await queue.read(counter, value);
    expect(value[0]).toBe(written - 1);
    await queue.room();
    expect(queue.hasRoom(1700)).toBe(true);
  });

  it("settles room() for everybody who waits", async () => {
    const device = openDevice();
    const queue = device.queue();
    const large = device.tensor("uint8", [64 << 20]);
    const small = device.tensor("uint8", [1]);
    for (let i = 0; i < 20; i++) queue.fill(large, i);
    while (queue.hasRoom(1)) queue.fill(small, 1);
    await Promise.all([queue.room(), queue.room(), device.queue().room(), queue.done()]);
    expect(queue.hasRoom(1)).toBe(true);
  });

  it("survives a buffer that is taken away while it is read into", async () => {
    const device = openDevice();
    const queue = device.queue();
    const large = device.tensor("uint8", [32 << 20]);
    queue.fill(large, 1);
    const into = new Uint8Array(16);
    const read = queue.read(large, into);
    structuredClone(into.buffer, { transfer: [into.buffer] });
    await expect(read).rejects.toThrow(internal(/detached/));
  });
});

describe("operations", () => {
  it("check their arguments at the call", () => {
    const device = openDevice();
    const queue = device.queue();
    const { x, rows } = new SmallProgram(device, queue);
    const wrong = device.tensor("int32", [7]);
    expect(() => ops.rmsNorm(queue, { x, weight: wrong, out: x, rows, eps: 1e-5 })).toThrow(internal(/rms_norm/));
    expect(() => ops.rmsNorm(queue, { x, weight: undefined as never, out: x, rows, eps: 1e-5 })).toThrow(internal(/"weight" is missing/));
    expect(() => ops.rmsNorm(queue, { x, weight: wrong, out: x, rows } as never)).toThrow(internal(/"eps" is missing/));
    expect(() => queue.enqueue(999, new Int32Array(0), new Float64Array(0))).toThrow(internal(/number 999/));
    expect(() => queue.enqueue(0, new Int32Array(500), new Float64Array(0))).toThrow(internal(/too many/));
  });

  it("give the same bits for any number of threads", async () => {
    const results = [];
    for (const threads of [1, 2, 3, 7]) {
      const device = openDevice({ threads });
      const queue = device.queue();
      const program = new SmallProgram(device, queue);
      program.enqueue(queue);
      results.push(await bits(queue, program.out));
    }
    for (const result of results) expect(result).toEqual(results[0]);
  });

  for (const isa of ISAS)
    it.skipIf(!hasIsa(isa))(`run with ${isa} instructions, where the processor has them`, async () => {
      const device = openDevice({ isa });
      expect(device.isa).toBe(isa);
      const queue = device.queue();
      const program = new SmallProgram(device, queue);
      program.enqueue(queue);
      const out = new Float32Array(SmallProgram.rows * SmallProgram.width);
      await queue.read(program.out, out);
      expect(out.every((value) => Number.isFinite(value)) && out.some((value) => value !== 0)).toBe(true);
    });
});
