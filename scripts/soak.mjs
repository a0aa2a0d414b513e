/**
 * A soak of `longcat serve`: at twice its capacity, with clients that vanish, send garbage or 100 MB, are slow or ask for the impossible,
 * bounded in time and number. It holds if the server never ends, /health is 200 throughout, every good request that was taken is answered as
 * it is alone, and afterwards cache blocks, handles and memory are back where they were.
 *
 *   node scripts/soak.mjs [--duration 180] [--requests 200000] [--seed 1] [--json]
 *
 * dist must be built (npm run build). Exit code 0 if it holds.
 */
import { spawn } from "node:child_process";
import { once, setMaxListeners } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { get } from "node:http";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { argumentsOf, flag, text, wrongUsage } from "./arguments.mjs";
import { CLIENTS, essence, post, QUESTIONS } from "./soak-clients.mjs";

const MAIN = join(dirname(dirname(fileURLToPath(import.meta.url))), "dist", "cli", "main.js");

/** The server's size: small, so that queue and cache are full all the time. 4 MiB are some 450 tokens: sequences give way to each other. */
const [SEQUENCES, QUEUE] = [8, 8];
const ARGS = ["--max-sequences", String(SEQUENCES), "--max-queue", String(QUEUE), "--cache-bytes", String(4 << 20), "--threads", "2"];
/** Clients at once: twice what may run and wait. */
const CLIENTS_AT_ONCE = 2 * (SEQUENCES + QUEUE);
const HEALTH_EVERY_MS = 100;
const HEALTH_WITHIN_MS = 2000;
/** Everything must be back so soon after the last client. */
const SETTLE_MS = 15_000;
/** What the resident memory may grow by between the warm-up's end and the soak's. A leak of one body of 100 MB shows. */
const MEMORY_GROWTH_BYTES = 64 * 1024 * 1024;
const MAX_PROBLEMS = 20;

/** The server as a child process. */
class SoakServer {
  port = 0;
  log = "";
  ended = false;

  async start() {
    this.child = spawn(process.execPath, [MAIN, "serve", "--port", "0", ...ARGS], { stdio: ["ignore", "ignore", "pipe"] });
    this.exit = once(this.child, "exit");
    this.child.on("exit", () => {
      this.ended = true;
    });
    this.child.stderr.setEncoding("utf8").on("data", (text) => {
      this.log = (this.log + text).slice(-20_000);
    });
    for (let i = 0; i < 600 && !/^ready: /m.test(this.log); i++) {
      if (this.ended) throw new Error(`the server did not start:\n${this.log}`);
      await sleep(100);
    }
    this.port = Number(/listening on http:\/\/127\.0\.0\.1:(\d+)/.exec(this.log)?.[1]);
  }

  /** Ends it by SIGTERM; its exit code. */
  async stop() {
    this.child.kill("SIGTERM");
    const [code] = await Promise.race([this.exit, sleep(40_000, ["it did not end within 40 s of SIGTERM"], { ref: false })]);
    if (!this.ended) this.child.kill("SIGKILL");
    return code;
  }

  /** @returns {Promise<{ status: number, text: string, ms: number }>} */
  get(path) {
    const startMs = performance.now();
    return new Promise((resolve, reject) => {
      const sent = get({ host: "127.0.0.1", port: this.port, path, agent: false, timeout: HEALTH_WITHIN_MS }, (response) => {
        let text = "";
        response.setEncoding("utf8").on("data", (piece) => {
          text += piece;
        });
        response.on("end", () => resolve({ status: response.statusCode, text, ms: performance.now() - startMs }));
      });
      sent.on("timeout", () => sent.destroy(new Error(`${path} was not answered within ${HEALTH_WITHIN_MS} ms`)));
      sent.on("error", reject);
    });
  }

  /** What it holds now. */
  async holds() {
    const { text } = await this.get("/metrics");
    const value = (name) => Number(new RegExp(`^${name}(?:\\{.*\\})? (.*)$`, "m").exec(text)?.[1]);
    const status = readFileSync(`/proc/${this.child.pid}/status`, "utf8");
    return {
      running: value("vllm:num_requests_running"),
      waiting: value("vllm:num_requests_waiting"),
      blocks: value("longcat_cache_blocks_in_use"),
      preemptions: value("vllm:num_preemptions_total"),
      tokens: value("vllm:generation_tokens_total"),
      stallMs: 1000 * value("longcat_event_loop_delay_max_seconds"),
      memoryBytes: 1024 * Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1]),
      threads: Number(/^Threads:\s+(\d+)/m.exec(status)?.[1]),
      handles: readdirSync(`/proc/${this.child.pid}/fd`).length,
    };
  }

  /** The same once nothing runs and connections are gone; undefined if that does not happen in time. */
  async settled(handles) {
    for (const endMs = Date.now() + SETTLE_MS; Date.now() < endMs; await sleep(200)) {
      const now = await this.holds();
      if (now.running === 0 && now.waiting === 0 && now.blocks === 0 && now.handles <= handles) return now;
    }
    return undefined;
  }
}

/** Repeats numbers for a seed: a linear congruential generator of 48 bits, as drand48. */
function seeded(seed) {
  let state = (BigInt(seed) << 16n) + 0x330en;
  return () => {
    state = (state * 0x5deece66dn + 0xbn) & ((1n << 48n) - 1n);
    return Number(state >> 16n) / 2 ** 32;
  };
}

/** Clients for some seconds. `counts`, `healthMs` and `problems` are added to. */
async function load(server, { expected, durationS, requests, random, counts, healthMs, problems }) {
  const ending = new AbortController();
  setMaxListeners(0, ending.signal);
  const timer = setTimeout(() => ending.abort(), 1000 * durationS);
  const running = Object.fromEntries(CLIENTS.map(({ name }) => [name, 0]));
  const over = () => ending.signal.aborted || server.ended || problems.length >= MAX_PROBLEMS || counts.requests >= requests;
  const pick = () => {
    const there = CLIENTS.filter(({ name, most }) => running[name] < most);
    let at = random() * there.reduce((sum, { weight }) => sum + weight, 0);
    return there.find(({ weight }) => (at -= weight) < 0) ?? there[0];
  };
  const one = async () => {
    while (!over()) {
      const { name, client } = pick();
      running[name]++;
      counts.requests++;
      try {
        const saw = await client({ server, random, expected, until: ending.signal });
        const key = `${name}: ${saw}`;
        counts[key] = (counts[key] ?? 0) + 1;
      } catch (error) {
        // What was under way when time was up is nobody's fault.
        if (!ending.signal.aborted && problems.length < MAX_PROBLEMS) problems.push(`${name}: ${error.message}`);
      }
      running[name]--;
    }
  };
  const done = Promise.all(Array.from({ length: CLIENTS_AT_ONCE }, one));
  await Promise.all([done, watchHealth(server, over, healthMs, problems)]);
  clearTimeout(timer);
}

/** /health is 200 all the time, and soon. `healthMs` gets how long each answer took. */
async function watchHealth(server, over, healthMs, problems) {
  while (!over()) {
    try {
      const { status, ms } = await server.get("/health");
      healthMs.push(ms);
      if (status !== 200) problems.push(`/health was ${status}`);
    } catch (error) {
      problems.push(`health: ${error.message}`);
    }
    await sleep(HEALTH_EVERY_MS);
  }
}

/** Each question alone. */
async function askAlone(server) {
  const answers = [];
  for (const { path, body } of QUESTIONS) {
    const { status, text } = await post(server, path, body);
    if (status !== 200) throw new Error(`${path} ${JSON.stringify(body)} was answered ${status}: ${text}`);
    answers.push(essence(JSON.parse(text)));
  }
  return answers;
}

/** The whole soak; its report, with `problems` empty if it holds. */
async function soak({ durationS, requests, seed }) {
  const server = new SoakServer();
  await server.start();
  const problems = [];
  const counts = { requests: 0 };
  const healthMs = [];
  const report = { durationS, seed, clients: CLIENTS_AT_ONCE, capacity: SEQUENCES + QUEUE, counts, problems };
  try {
    const expected = await askAlone(server);
    const fresh = await server.holds();
    const plan = { expected, requests, random: seeded(seed), counts, healthMs, problems };
    // Buffers, code and pools are as large as they get after some seconds of the same.
    await load(server, { ...plan, durationS: Math.min(60, durationS / 3) });
    const before = await server.settled(fresh.handles);
    if (before !== undefined) await load(server, { ...plan, durationS: durationS - Math.min(60, durationS / 3) });
    const after = await server.settled(fresh.handles);
    Object.assign(report, { fresh, before, after, healthMs: percentiles(healthMs) });
    if (after === undefined)
      problems.push(`it did not come to rest: ${JSON.stringify(await server.holds())}, fresh ${JSON.stringify(fresh)}`);
    else {
      if (after.memoryBytes - before.memoryBytes > MEMORY_GROWTH_BYTES)
        problems.push(`memory grew from ${before.memoryBytes} to ${after.memoryBytes} bytes`);
      if (after.threads > fresh.threads) problems.push(`threads grew from ${fresh.threads} to ${after.threads}`);
    }
    const again = await askAlone(server);
    for (const [i, answer] of again.entries()) if (answer !== expected[i]) problems.push(`afterwards question ${i} has another answer`);
    if (!(counts["good: right"] > 0)) problems.push("no good request was answered");
  } catch (error) {
    problems.push(error.message);
  }
  if (server.ended) problems.push(`the server ended (exit code ${server.child.exitCode}, signal ${server.child.signalCode})`);
  else {
    const code = await server.stop();
    if (code !== 0) problems.push(`SIGTERM ended it with ${code}`);
  }
  if (problems.length > 0) report.log = server.log;
  return report;
}

/** Nearest ranks. */
function percentiles(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share) => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)];
  return { p50: at(0.5), p99: at(0.99), max: at(1) };
}

function describe({ durationS, clients, capacity, counts, healthMs = {}, before, after, problems, log }) {
  const megabytes = (holds) => (holds === undefined ? "?" : `${Math.round(holds.memoryBytes / 2 ** 20)} MiB`);
  const { requests, ...kinds } = counts;
  const ms = (value) => `${value?.toFixed(0) ?? "?"} ms`;
  return [
    `${clients} clients on a capacity of ${capacity} for ${durationS} s: ${requests} requests, ${after?.tokens ?? "?"} tokens, ${after?.preemptions ?? "?"} preemptions`,
    ...Object.entries(kinds)
      .sort()
      .map(([name, count]) => `  ${name.padEnd(22)} ${count}`),
    `/health ${ms(healthMs.p50)} in the middle, p99 ${ms(healthMs.p99)}, slowest ${ms(healthMs.max)}; memory ${megabytes(before)} after the warm-up, ${megabytes(after)} at the end`,
    ...(problems.length === 0 ? ["It holds."] : ["It does not hold:", ...problems.map((problem) => `  ${problem}`), "", log ?? ""]),
  ].join("\n");
}

const USAGE = "node scripts/soak.mjs [--duration SECONDS] [--requests N] [--seed N] [--json]";
const { values } = argumentsOf(USAGE, { duration: text("180"), requests: text("200000"), seed: text("1"), json: flag });
const [durationS, requests, seed] = [values.duration, values.requests, values.seed].map(Number);
if (![durationS, requests].every((value) => value > 0) || !Number.isSafeInteger(seed))
  wrongUsage(USAGE, "--duration and --requests are numbers above 0, --seed is a whole number");
const report = await soak({ durationS, requests, seed });
process.stdout.write(values.json ? `${JSON.stringify(report, null, 2)}\n` : `${describe(report)}\n`);
process.exitCode = report.problems.length === 0 ? 0 : 1;
