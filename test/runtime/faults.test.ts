/** An operation that fails when it is run: who is told what, and what still works. */

import { expect, it } from "vitest";
import { LongcatError } from "../../ts/errors.js";
import { ops } from "../../ts/runtime/ops.js";
import { bits, openDevice, SmallProgram } from "./devices.js";

const fault = (where: string) =>
  expect.objectContaining({ code: "INTERNAL", message: expect.stringMatching(`^operation "swiglu_mlp" ${where} failed: .`) });

it("rejects done() and read() after it, naming operation and queue", async () => {
  const device = openDevice({ faultOn: "swiglu_mlp" });
  device.queue();
  const queue = device.queue();
  const program = new SmallProgram(device, queue);
  program.enqueue(queue);
  const settled = await Promise.allSettled([queue.done(), bits(queue, program.out), device.queue().done()]);
  expect(settled.map(({ status }) => status)).toEqual(["rejected", "rejected", "rejected"]);
  for (const result of settled) {
    expect((result as PromiseRejectedResult).reason).toBeInstanceOf(LongcatError);
    expect((result as PromiseRejectedResult).reason).toEqual(fault("on queue 1"));
  }
});

it("operations behind it do not run; writes do; what was done before is reported as done", async () => {
  const device = openDevice({ faultOn: "swiglu_mlp" });
  const queue = device.queue();
  const program = new SmallProgram(device, queue);
  const before = queue.done();
  program.enqueue(queue);
  queue.fill(program.normed, 0);
  ops.rmsNorm(queue, {
    x: program.x,
    weight: program.x.view("float32", [SmallProgram.width]),
    out: program.normed,
    rows: program.rows,
    eps: 1,
  });
  queue.fill(program.hidden, 0x11);
  const told = queue.done();
  await before;
  await expect(told).rejects.toEqual(fault("on queue 0"));
  expect((await bits(queue, program.normed)).every((value) => value === 0)).toBe(true);
  expect((await bits(queue, program.hidden)).every((value) => value === 0x11111111)).toBe(true);
});

it("what is enqueued after the news runs as ever", async () => {
  const device = openDevice({ faultOn: "swiglu_mlp" });
  const queue = device.queue();
  const program = new SmallProgram(device, queue);
  for (let round = 0; round < 3; round++) {
    program.enqueue(queue);
    await expect(queue.done()).rejects.toEqual(fault("on queue 0"));
    ops.rmsNorm(queue, {
      x: program.x,
      weight: program.x.view("float32", [SmallProgram.width]),
      out: program.normed,
      rows: program.rows,
      eps: 1,
    });
    await queue.done();
    expect((await bits(queue, program.normed)).some((value) => value !== 0)).toBe(true);
  }
});

it("names the graph, in recording and in replaying", async () => {
  const device = openDevice({ faultOn: "swiglu_mlp" });
  const queue = device.queue();
  const program = new SmallProgram(device, queue);
  await expect(device.record(() => program.enqueue(queue))).rejects.toEqual(fault("on queue 0"));
  device.native.beginRecord();
  program.enqueue(queue);
  const graph = device.native.endRecord();
  await expect(queue.done()).rejects.toEqual(fault("on queue 0"));
  device.native.replay(0, graph);
  await expect(queue.done()).rejects.toEqual(fault("of graph 2 on queue 0"));
});

it('debug "sync" throws at the call', async () => {
  const device = openDevice({ faultOn: "swiglu_mlp", debug: "sync" });
  const queue = device.queue();
  const program = new SmallProgram(device, queue);
  expect(() => program.enqueue(queue)).toThrow(fault("on queue 0"));
  await queue.done();
});
