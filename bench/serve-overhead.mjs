/**
 * What a step costs beside the model: 64 answers at once over the bundled checkpoint's tokenizer, with a model that takes no time. First through
 * Engine.stream alone, then through the HTTP server as 64 streams that another process reads. Processor time of this process by step is the
 * figure; the wall clock stands beside it.
 *
 * With --step-us the model takes so long, one step after another as on a device, and what counts is how long before the end of the step under
 * way the next one is enqueued: as long as that is before, the device never waits. The median says it, whatever else the machine does.
 *
 *   node bench/serve-overhead.mjs [--batch 64] [--tokens 512] [--runs 5] [--step-us 250] [--json]        dist must be built
 */
import { fork } from "node:child_process";
import { Agent, request } from "node:http";
import { fileURLToPath } from "node:url";
import { argumentsOf, flag, text, wrongUsage } from "../scripts/arguments.mjs";

const SELF = fileURLToPath(import.meta.url);

/** A device without work: a step takes `stepMs` from its launch, or from the end of the one before it. */
class StubDevice {
  freeMs = 0;
  /** Of each step: how long before the end of the one before it it was launched; below zero: after. */
  earlyMs = [];

  constructor(stepMs) {
    this.stepMs = stepMs;
  }

  /** Resolves in a turn of the event loop when the step is over. */
  step() {
    const now = performance.now();
    if (this.freeMs > 0) this.earlyMs.push(this.freeMs - now);
    const endMs = Math.max(this.freeMs, now) + this.stepMs;
    this.freeMs = endMs;
    return new Promise((resolve) => {
      const look = () => (performance.now() < endMs ? setImmediate(look) : resolve());
      setImmediate(look);
    });
  }
}

/** A runner of given limits on such a device: each row's next token is one of some ordinary ones. */
function stubRunner(limits, device) {
  const nothing = () => undefined;
  const launch = async (sequences) => {
    await device.step();
    return sequences.map(({ position, tokens, sample }) => ({
      drawn: sample ? [{ token: 300 + (position % 200), logprob: 0, top: [] }] : [],
      ffnExperts: Array.from({ length: tokens?.length ?? 1 }, () => new Uint8Array(limits.numLayers).fill(4)),
    }));
  };
  return {
    ...{ limits, launch, step: launch, room: async () => undefined, close: async () => undefined },
    ...{ setSampling: nothing, setBlocks: nothing, setAllowed: nothing, copyBlock: nothing, copyHistory: nothing, setHistory: nothing },
    ...{ writeBlock: nothing, readBlock: async () => new Uint8Array() },
  };
}

async function stubEngine(batch, device) {
  const { Engine } = await import("../dist/index.js");
  const { checkDirectory, loadParts } = await import("../dist/engine/load.js");
  const { resolveOptions } = await import("../dist/engine/options.js");
  const options = { device: "cpu", threads: 1, maxSequences: batch, prefixCache: false, cacheBytes: 1 << 30 };
  const parts = await loadParts(checkDirectory(undefined), resolveOptions(options));
  return Engine.fromParts({ ...parts, runner: stubRunner(parts.runner.limits, device) });
}

/** Processor and wall time of this process by step of the engine, and how early steps were launched, in µs. */
async function measure(engine, device, work) {
  const [cpu, startMs, steps] = [process.cpuUsage(), performance.now(), engine.stats.steps];
  Object.assign(device, { freeMs: 0, earlyMs: [] });
  await work();
  const { user, system } = process.cpuUsage(cpu);
  const count = engine.stats.steps - steps;
  const wallUs = (1000 * (performance.now() - startMs)) / count;
  return { steps: count, cpuUs: (user + system) / count, wallUs, earlyUs: 1000 * median(device.earlyMs) };
}

const params = (tokens) => ({ maxTokens: tokens, temperature: 0, ignoreEos: true });

async function streamAll(engine, batch, tokens) {
  const read = async () => {
    for await (const _ of engine.stream("Once upon a time", params(tokens)));
  };
  await Promise.all(Array.from({ length: batch }, read));
}

/** In the other process: reads so many streams to their ends. */
async function client(url, batch, tokens) {
  const agent = new Agent({ keepAlive: true });
  const body = JSON.stringify({ prompt: "Once upon a time", max_tokens: tokens, temperature: 0, ignore_eos: true, stream: true });
  const read = () =>
    new Promise((resolve, reject) => {
      const headers = { "content-type": "application/json", "content-length": Buffer.byteLength(body) };
      const sent = request(`${url}/v1/completions`, { method: "POST", agent, headers }, (response) => {
        if (response.statusCode !== 200) reject(new Error(`the server answered ${response.statusCode}`));
        response.resume().on("end", resolve).on("error", reject);
      });
      sent.on("error", reject);
      sent.end(body);
    });
  process.on("message", async () => {
    await Promise.all(Array.from({ length: batch }, read));
    process.send("read");
  });
  process.send("there");
}

const next = (child) => new Promise((resolve) => child.once("message", resolve));

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

/** The run of median processor time; the first run warms up and does not count. */
async function medianRun(runs, run) {
  const results = [];
  for (let i = 0; i <= runs; i++) results.push(await run());
  const counted = results.slice(1);
  return Object.fromEntries(Object.keys(counted[0]).map((name) => [name, median(counted.map((result) => result[name]))]));
}

/** The figures of one way, in a line. The device's looks take processor time, which then says nothing. */
function line(name, { batch, runs, stepUs }, { cpuUs, wallUs, earlyUs, steps }) {
  const figures = stepUs > 0 ? `a step is launched ${earlyUs.toFixed(0)} µs before the end of the one before it` : `${cpuUs.toFixed(0)} µs of processor a step`;
  return `${name}, batch ${batch}: ${figures}, ${wallUs.toFixed(0)} µs by the clock (${steps} steps, median of ${runs})`;
}

async function main({ batch, tokens, runs, stepUs, json }) {
  const { ApiServer } = await import("../dist/server/index.js");
  const device = new StubDevice(stepUs / 1000);
  const engine = await stubEngine(batch, device);
  const alone = await medianRun(runs, () => measure(engine, device, () => streamAll(engine, batch, tokens)));
  const server = await ApiServer.listen({ port: 0 });
  server.serve(engine);
  const child = fork(SELF, ["--client", server.url, "--batch", String(batch), "--tokens", String(tokens)]);
  await next(child);
  const served = await medianRun(runs, () =>
    measure(engine, device, async () => {
      child.send("read");
      await next(child);
    }),
  );
  child.disconnect();
  await server.drain();
  await engine.close();
  if (json) return console.log(JSON.stringify({ batch, tokens, runs, stepUs, engine: alone, server: served }, null, 2));
  for (const [name, figures] of Object.entries({ "Engine.stream": alone, "HTTP streams": served }))
    console.log(line(name, { batch, runs, stepUs }, figures));
}

const USAGE = "node bench/serve-overhead.mjs [--batch 64] [--tokens 512] [--runs 5] [--step-us 250] [--json]";
const { values } = argumentsOf(USAGE, {
  ...{ batch: text("64"), tokens: text("512"), runs: text("5"), "step-us": text("0"), json: flag },
  // What its own child is called with.
  client: { type: "string" },
});
const [batch, tokens, runs, stepUs] = [values.batch, values.tokens, values.runs, values["step-us"]].map(Number);
if (![batch, tokens, runs].every((value) => Number.isInteger(value) && value > 0) || !(stepUs >= 0))
  wrongUsage(USAGE, "--batch, --tokens and --runs are whole numbers from 1, --step-us is a number from 0");
if (values.client !== undefined) await client(values.client, batch, tokens);
else await main({ batch, tokens, runs, stepUs, json: values.json });
