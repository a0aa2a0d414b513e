/** `longcat bench serve`: what is sent, what is measured, what is refused. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, it } from "vitest";
import { isLoopback, loopbackTarget } from "../../ts/bench/loopback.js";
import { exponential, parseLengths, seededRandom } from "../../ts/bench/random.js";
import { drawArrivals, type Measured } from "../../ts/bench/serve-load.js";
import { latency, reportLoad } from "../../ts/bench/serve-report.js";
import { Engine } from "../../ts/index.js";
import { ApiServer } from "../../ts/server/index.js";
import { temporaryFolder } from "../helpers/fixtures.js";
import { refused } from "../helpers/mini.js";
import { longcat } from "./longcat.js";

const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

interface Asked {
  prompt: number[];
  max_tokens: number;
  [field: string]: unknown;
}

/** A server that waits `firstMs` and then sends a token every `eachMs`; what it was asked is kept. */
async function scripted(firstMs: number, eachMs: number, refuse: (index: number) => boolean = () => false) {
  const asked: Asked[] = [];
  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (request.url === "/v1/models") return void response.end(JSON.stringify({ data: [{ id: "scripted" }] }));
    let text = "";
    for await (const piece of request) text += String(piece);
    const body = JSON.parse(text) as Asked;
    asked.push(body);
    if (refuse(asked.length - 1)) return void response.writeHead(429, { "retry-after": "1" }).end('{"error":{"message":"full"}}');
    response.writeHead(200, { "content-type": "text/event-stream" });
    for (let i = 0; i < body.max_tokens; i++) {
      await sleep(i === 0 ? firstMs : eachMs);
      response.write(`data: ${JSON.stringify({ choices: [{ index: 0, text: "x" }] })}\n\n`);
    }
    const usage = {
      prompt_tokens: body.prompt.length,
      completion_tokens: body.max_tokens,
      prompt_tokens_details: { cached_tokens: body.prompt.length / 2 },
    };
    response.end(`data: ${JSON.stringify({ choices: [], usage })}\n\ndata: [DONE]\n\n`);
  }
  const server = createServer((request, response) => void answer(request, response));
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked };
}

const bench = (url: string, ...args: string[]) => longcat(["bench", "serve", "--url", url, ...args]);

describe("the load", () => {
  const plan = { rate: 50, durationS: 20, promptTokens: parseLengths("p", "uniform:5:9"), outputTokens: parseLengths("o", "7"), seed: 3 };

  it("arrives as a Poisson process: the mean gap and its spread are both 1 / rate", () => {
    const random = seededRandom(1);
    const gaps = Array.from({ length: 20_000 }, () => exponential(50, random));
    const mean = gaps.reduce((sum, gap) => sum + gap, 0) / gaps.length;
    const spread = Math.sqrt(gaps.reduce((sum, gap) => sum + (gap - mean) ** 2, 0) / gaps.length);
    // Three standard errors of 20000 draws are 2 %.
    expect(mean * 50).toBeCloseTo(1, 1);
    expect(spread * 50).toBeCloseTo(1, 1);
  });

  it("is the same for the same seed and another for another", () => {
    const load = (seed: number) => drawArrivals({ ...plan, sharedPrefix: 4, seed });
    expect(load(3)).toEqual(load(3));
    expect(load(4)).not.toEqual(load(3));
  });

  it("has the lengths that were asked for, behind one shared prefix", () => {
    const arrivals = drawArrivals({ ...plan, sharedPrefix: 4 });
    expect(arrivals.length).toBeGreaterThan(800);
    expect(new Set(arrivals.map(({ prompt }) => prompt.length))).toEqual(new Set([9, 10, 11, 12, 13]));
    expect(new Set(arrivals.map(({ prompt }) => prompt.slice(0, 4).join())).size).toBe(1);
    expect(new Set(arrivals.map(({ prompt }) => prompt.slice(4).join())).size).toBe(arrivals.length);
  });

  it("draws a lognormal's median, never beyond its largest", () => {
    const random = seededRandom(2);
    const { draw } = parseLengths("p", "lognormal:64:0.8:200");
    const drawn = Array.from({ length: 4001 }, () => draw(random)).sort((a, b) => a - b);
    expect(drawn[2000]).toBeGreaterThan(58);
    expect(drawn[2000]).toBeLessThan(70);
    expect([Math.min(...drawn) >= 1, Math.max(...drawn)]).toEqual([true, 200]);
  });

  it.each(["", "0", "-1", "1.5", "uniform:5", "uniform:9:5", "lognormal:64:0:100", "normal:1:2", "64:65", "1e9"])("refuses %j", (text) => {
    expect(() => parseLengths("prompt-tokens", text)).toThrow(refused("OPTION_INVALID", "prompt-tokens"));
  });
});

describe("the figures", () => {
  it("percentiles are the nearest rank", () => {
    const values = Array.from({ length: 100 }, (_, i) => 100 - i);
    expect(latency(values)).toEqual({ count: 100, mean: 50.5, p50: 50, p95: 95, p99: 99, max: 100 });
    expect(latency([])).toEqual({ count: 0, mean: null, p50: null, p95: null, p99: null, max: null });
  });

  it("goodput counts what met both limits, of all that arrived", () => {
    const one = (ttft: number, each: number, outcome: Measured["outcome"] = "ok"): Measured => ({
      ...{ outcome, sentMs: 0, frameMs: [ttft, ttft + each, ttft + 2 * each], endMs: ttft + 2 * each, lateMs: 0, atS: 0, askedTokens: 3 },
      ...{ promptTokens: 10, cachedTokens: 5, completionTokens: 3 },
    });
    const report = reportLoad([one(10, 5), one(200, 5), one(10, 50), one(10, 5, "failed")], 2, { ttftMs: 100, tpotMs: 20 });
    expect(report).toMatchObject({ requests: 4, ok: 3, failed: 1, goodputPerSecond: 0.5, goodShare: 0.25, cachedShare: 0.5 });
    expect(report.outputTokensPerSecond).toBe(4.5);
    expect(report.interTokenMs).toMatchObject({ count: 6, p50: 5, max: 50 });
  });
});

describe("against a server", () => {
  it("measures first token and gaps, and sends OpenAI's fields", async () => {
    const { url, asked } = await scripted(60, 20);
    const svg = join(temporaryFolder(), "load.svg");
    const args = ["--rate", "20", "--duration", "1.5", "--prompt-tokens", "8", "--output-tokens", "5", "--json", "--svg", svg];
    const { code, stdout, stderr } = await bench(url, ...args);
    expect([code, stderr]).toEqual([0, ""]);
    const report = JSON.parse(stdout) as Record<string, Record<string, number>> & { requests: number; ok: number; cachedShare: number };
    expect(report.requests).toBe(asked.length);
    expect(report.requests).toBeGreaterThan(10);
    expect([report.ok, report.cachedShare]).toEqual([report.requests, 0.5]);
    // The script's pauses and what two busy cores add.
    expect(report["ttftMs"]!["p50"]).toBeGreaterThanOrEqual(59);
    expect(report["ttftMs"]!["p50"]).toBeLessThan(160);
    expect(report["interTokenMs"]!["p50"]).toBeGreaterThanOrEqual(18);
    expect(report["interTokenMs"]!["count"]).toBe(4 * report.requests);
    expect(asked[0]).toEqual({
      ...{ model: "scripted", prompt: expect.any(Array), max_tokens: 5, temperature: 0, stream: true },
      ...{ stream_options: { include_usage: true }, ignore_eos: true },
    });
    expect(readFileSync(svg, "utf8")).toMatch(/^<svg [\s\S]*time to first token[\s\S]*<\/svg>\n$/);
  });

  it("does not wait for answers before it sends the next request", async () => {
    const { url, asked } = await scripted(1500, 1);
    const running = bench(url, "--rate", "20", "--duration", "1", "--output-tokens", "2", "--plain", "--json");
    await expect.poll(() => asked.length, { timeout: 20_000 }).toBeGreaterThan(8);
    const report = JSON.parse((await running).stdout) as { wallS: number; ok: number; requests: number };
    expect(report.ok).toBe(report.requests);
    expect(report.wallS).toBeLessThan(6);
    expect(asked.every((body) => !("ignore_eos" in body))).toBe(true);
  });

  it("keeps so many under way where a number at a time is asked for", async () => {
    const { url, asked } = await scripted(20, 10);
    const { code, stdout } = await bench(url, "--concurrency", "3", "--duration", "1", "--output-tokens", "4", "--json");
    const report = JSON.parse(stdout) as { ok: number; requests: number; wallS: number };
    expect([code, report.ok]).toEqual([0, report.requests]);
    expect(asked.length).toBe(report.requests);
    // Three at a time, of 50 ms at least.
    expect(report.requests).toBeGreaterThan(6);
    expect(report.requests).toBeLessThanOrEqual(3 * Math.ceil(report.wallS / 0.05));
  });

  it("counts refusals apart and says why", async () => {
    const { url } = await scripted(1, 1, (index) => index % 2 === 1);
    const { code, stdout } = await bench(url, "--rate", "20", "--duration", "1", "--output-tokens", "2");
    expect(code).toBe(0);
    expect(stdout).toMatch(/^requests {3}\d+: \d+ answered, [1-9]\d* refused, 0 failed/);
    expect(stdout).toMatch(/^error: 429: .*full/m);
    expect(stdout).toMatch(/^first token {5}/m);
  });

  it("measures longcat's own server, its prefix cache included", async () => {
    const engine = await Engine.load(undefined, { device: "cpu", threads: 1, prefixCache: true });
    const server = await ApiServer.listen({ port: 0 });
    server.serve(engine);
    const args = ["--rate", "5", "--duration", "2", "--shared-prefix", "256", "--prompt-tokens", "8", "--output-tokens", "4", "--json"];
    const { code, stdout } = await bench(server.url, ...args);
    await server.drain();
    await engine.close();
    const report = JSON.parse(stdout) as { ok: number; requests: number; failed: number; cachedShare: number };
    expect([code, report.failed, report.ok]).toEqual([0, 0, report.requests]);
    expect(report.cachedShare).toBeGreaterThan(0.3);
  });
});

describe("is sent to this machine only", () => {
  it.each([
    "http://192.0.2.1:80",
    "http://example.com",
    "https://127.0.0.1",
    "http://0.0.0.0:80",
    "http://128.0.0.1",
    "ftp://localhost",
    "x",
  ])("refuses %s before anything is sent", async (url) => {
    const { code, stdout, stderr } = await bench(url, "--json");
    expect([code, stdout]).toEqual([1, ""]);
    expect(stderr).toMatch(/^error: OPTION_INVALID: url: /);
  });

  it("takes 127.0.0.0/8, ::1 and localhost", async () => {
    expect(await loopbackTarget("http://localhost:81/v1/")).toMatchObject({ port: 81, prefix: "" });
    expect(await loopbackTarget("http://[::1]:81/api/v1")).toMatchObject({ address: "::1", prefix: "/api" });
    expect(await loopbackTarget("http://127.1.2.3")).toMatchObject({ address: "127.1.2.3", port: 80 });
    expect(["127.0.0.1", "::1", "::ffff:127.0.0.1", "127.0.0.1.evil.example", "::2"].map(isLoopback)).toEqual([
      true,
      true,
      true,
      false,
      false,
    ]);
  });

  it("says that nothing answers", async () => {
    const { code, stderr } = await bench("http://127.0.0.1:9", "--json");
    expect([code, stderr]).toEqual([1, expect.stringMatching(/^error: OPTION_INVALID: url: no OpenAI-compatible server answers there/)]);
  });

  it("says that a key is wanted", async () => {
    const server = await ApiServer.listen({ port: 0, apiKey: "secret" });
    const { code, stderr } = await bench(server.url);
    await server.drain();
    expect([code, stderr]).toEqual([
      1,
      expect.stringMatching(/^error: OPTION_INVALID: url: the server wants a key: give --api-key \(.*401/),
    ]);
  });

  it("ends with 1 where no request was answered", async () => {
    const { url } = await scripted(1, 1, () => true);
    const { code, stdout } = await bench(url, "--rate", "20", "--duration", "0.5");
    expect([code, stdout]).toEqual([1, expect.stringMatching(/^requests {3}\d+: 0 answered/)]);
  });

  it("looks at the picture's folder before anything is sent", async () => {
    const { url, asked } = await scripted(1, 1);
    const { code, stderr } = await bench(url, "--svg", "/nowhere/a.svg");
    expect([code, stderr, asked]).toEqual([1, expect.stringMatching(/^error: OPTION_INVALID: --svg \/nowhere\/a\.svg: ENOENT/), []]);
  });

  it.each([
    [[], /needs --url/],
    [["--url", "http://127.0.0.1:1", "--rate", "0"], /--rate: 0/],
    [["--url", "http://127.0.0.1:1", "--seed", "-1"], /--seed: -1/],
    [["--url", "http://127.0.0.1:1", "--rate", "1", "--concurrency", "1"], /exclude each other/],
  ])("wrong usage %j", async (args, message) => {
    const { code, stderr } = await longcat(["bench", "serve", ...args]);
    expect([code, stderr]).toEqual([2, expect.stringMatching(message)]);
  });
});
