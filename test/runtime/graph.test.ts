/** Recording and replaying. */

import { expect, it } from "vitest";
import { ops } from "../../ts/runtime/ops.js";
import { bits, filled, numbers, openDevice, SmallProgram } from "./devices.js";

const { rows, width } = SmallProgram;

it("a replay gives the bits of an eager run, with other inputs and poisoned scratch", async () => {
  const device = openDevice();
  const queue = device.queue();
  const program = new SmallProgram(device, queue);
  const graph = await device.record(() => program.enqueue(queue));
  const recorded = await bits(queue, program.out);

  const results = [];
  for (const eager of [false, true]) {
    for (const seed of [1, 77]) {
      for (const tensor of [program.normed, program.hidden, program.out]) queue.fill(tensor, 0xff);
      queue.write(program.x, numbers(rows * width, seed));
      if (eager) program.enqueue(queue);
      else queue.replay(graph);
      results.push(await bits(queue, program.out));
    }
  }
  const [first, second, eagerFirst, eagerSecond] = results;
  expect(first).toEqual(recorded);
  expect(first).toEqual(eagerFirst);
  expect(second).toEqual(eagerSecond);
  expect(second).not.toEqual(first);
});

it("a device that poisons outputs and scratch before each operation gives the same bits", async () => {
  const results = [];
  for (const debug of ["off", "poison", "sync"] as const) {
    const device = openDevice({ debug });
    const queue = device.queue();
    const program = new SmallProgram(device, queue);
    const graph = await device.record(() => program.enqueue(queue));
    results.push(await bits(queue, program.out));
    queue.replay(graph);
    results.push(await bits(queue, program.out));
  }
  for (const result of results) expect(result).toEqual(results[0]);
});

it("poisoning spares a sum that is written in place", async () => {
  const device = openDevice({ debug: "poison" });
  const queue = device.queue();
  const { x, rows: live } = new SmallProgram(device, queue);
  const add = filled(device, queue, [rows, width], new Float32Array(rows * width).fill(1));
  const weight = filled(device, queue, [width], new Float32Array(width).fill(1));
  ops.rmsNorm(queue, { x, add, weight, sum: x, out: device.tensor("float32", [rows, width]), rows: live, eps: 0 });
  const sum = new Float32Array(rows * width);
  await queue.read(x, sum);
  expect(sum).toEqual(numbers(rows * width).map((value) => value + 1));
});

it("a recording keeps operations, fills and copies of all queues, not writes", async () => {
  const device = openDevice();
  const [queue, other] = [device.queue(), device.queue()];
  const [a, b] = [device.tensor("int32", [2]), device.tensor("int32", [2])];
  const graph = await device.record(() => {
    queue.write(a, Int32Array.of(5, 6));
    other.copy(a, 0, b, 0, 8);
    queue.fill(a, 0);
  });
  const read = async (tensor: typeof a) => [...(await bits(queue, tensor))];
  expect([await read(a), await read(b)]).toEqual([
    [0, 0],
    [5, 6],
  ]);
  queue.write(a, Int32Array.of(1, 2));
  queue.replay(graph);
  expect([await read(a), await read(b)]).toEqual([
    [0, 0],
    [1, 2],
  ]);
});

it("a graph keeps the memory that it names, until it and its last replay are gone", async () => {
  const device = openDevice();
  const queue = device.queue();
  const before = device.allocatedBytes;
  const from = device.tensor("int32", [1 << 18]);
  const to = device.tensor("int32", [1]);
  const graph = await device.record(() => queue.copy(from, 0, to, 0, 4));
  queue.write(from, Int32Array.of(42));
  from.release();
  queue.replay(graph);
  graph.release();
  expect((await bits(queue, to))[0]).toBe(42);
  await queue.done();
  expect(device.allocatedBytes - before).toBe(4);
  expect(() => queue.replay(graph)).toThrow(/no graph has id/);
});

it("a recording that throws leaves the device usable", async () => {
  const device = openDevice();
  const queue = device.queue();
  const tensor = device.tensor("int32", [1]);
  await expect(
    device.record(() => {
      throw new Error("mine");
    }),
  ).rejects.toThrow("mine");
  const graph = await device.record(() => queue.fill(tensor, 1));
  expect(() => device.native.beginRecord()).not.toThrow();
  expect(() => queue.replay(graph)).toThrow(/within a recording/);
  expect(() => device.native.beginRecord()).toThrow(/has begun already/);
  device.native.endRecord();
  expect(() => device.native.endRecord()).toThrow(/no recording/);
});

it("thousands of steps allocate nothing on the device and do not grow the process", async () => {
  const device = openDevice();
  const queue = device.queue();
  const program = new SmallProgram(device, queue);
  const graph = await device.record(() => program.enqueue(queue));
  const input = numbers(rows * width);
  const into = new Float32Array(rows * width);
  const steps = async (count: number) => {
    for (let i = 0; i < count; i++) {
      queue.write(program.x, input);
      queue.replay(graph);
      await queue.read(program.out, into);
    }
  };
  await steps(500);
  const [allocated, resident] = [device.allocatedBytes, process.memoryUsage.rss()];
  await steps(4000);
  expect(device.allocatedBytes).toBe(allocated);
  // The ring's slots and payload (18 MB) may still be touched for the first time, and V8 collects when it likes.
  expect(process.memoryUsage.rss() - resident).toBeLessThan(64 << 20);
});
