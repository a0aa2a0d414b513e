/**
 * Loses the GPU in the way that its argument names, tries again, closes, works on the processor, and prints what came of it, as JSON. A process has
 * one GPU to lose, so lost.test.ts runs this program once for each way.
 */
import { Engine } from "../../ts/engine/engine.js";
import { loadParts } from "../../ts/engine/load.js";
import { resolveOptions } from "../../ts/engine/options.js";
import type { LongcatError } from "../../ts/errors.js";
import { openModel } from "../../ts/model/open.js";
import { Device } from "../../ts/runtime/device.js";
import { ops } from "../../ts/runtime/ops.js";
import { takeSlot } from "../helpers/goldens.js";
import { modelPath } from "../helpers/paths.js";
import { GPU_MODEL_OPTIONS } from "./gpu.js";

type Debug = "off" | "sync";
type Told = Pick<LongcatError, "code" | "message">[];

/** Runs each, one after another; what each failed with. */
async function failures(...attempts: (() => Promise<unknown>)[]): Promise<Told> {
  const told: Told = [];
  for (const attempt of attempts)
    await attempt().then(
      () => undefined,
      ({ code, message }: LongcatError) => told.push({ code, message }),
    );
  return told;
}

/** A kernel traps in a step of a model. */
async function inStep(debug: Debug): Promise<Told> {
  const { runner, close } = await openModel(modelPath("tiny-a"), { ...GPU_MODEL_OPTIONS, debug, trapOn: "rms_norm" });
  takeSlot(runner, 0, 0, 16);
  const step = () => runner.step([{ slot: 0, position: 0, tokens: [3, 4, 5], sample: true }]);
  const told = await failures(step, step, () => runner.device.done());
  await close();
  return told;
}

/** A recorded operation, which ran well when it was recorded, reads where no memory is: a token id was written that no table has. */
async function inReplay(debug: Debug): Promise<Told> {
  const device = Device.open({ device: "cuda", debug });
  const queue = device.queue();
  const [tokens, rows] = [device.tensor("int32", [1]), device.tensor("int32", [1])];
  const [table, out] = [device.tensor("float32", [4, 1024]), device.tensor("float32", [1, 1024])];
  queue.write(tokens, Int32Array.of(3));
  queue.write(rows, Int32Array.of(1));
  queue.fill(table, 0);
  const graph = await device.record(() => ops.embed(queue, { tokens, table, out, rows }));
  queue.write(tokens, Int32Array.of(2 ** 30));
  await queue.done();
  const replay = async () => {
    queue.replay(graph);
    await queue.done();
  };
  const told = await failures(replay, replay, () => device.done());
  await device.close();
  return told;
}

/** The engine's calls. */
async function inEngine(): Promise<Told> {
  const options = { ...resolveOptions({ device: "cuda", cacheBytes: 64 * 1024 * 1024 }), trapOn: "rms_norm" };
  const engine = Engine.fromParts(await loadParts(modelPath("tiny-a"), options));
  const generate = () => engine.generate({ tokens: [3, 4, 5] }, { maxTokens: 4 });
  const told = await failures(generate, generate, () => engine.score([3, 4, 5]));
  await engine.close();
  return told;
}

const WAYS: Readonly<Record<string, () => Promise<Told>>> = {
  "a step": () => inStep("off"),
  "a step, each operation awaited": () => inStep("sync"),
  "a replay": () => inReplay("off"),
  "a replay, each operation awaited": () => inReplay("sync"),
  "the engine": inEngine,
};

const told = await WAYS[process.argv[2] ?? ""]!();
// The processor goes on in the same process.
const cpu = Device.open({ device: "cpu", threads: 1 });
const [queue, tensor, read] = [cpu.queue(), cpu.tensor("float32", [4]), new Float32Array(4)];
queue.write(tensor, Float32Array.of(1, 2, 3, 4));
await queue.read(tensor, read);
await cpu.close();
console.log(JSON.stringify({ told, cpu: [...read] }));
