/** The bounded queue, failures in mid-stream, faults, drains and signals (B19, B23). */
import { type ChildProcess, spawn } from "node:child_process";
import OpenAI from "openai";
import { afterAll, afterEach, describe, expect, it } from "vitest";
import type { Engine } from "../../ts/engine/engine.js";
import { LongcatError } from "../../ts/errors.js";
import type { Chunk, GenerateParams } from "../../ts/index.js";
import { longcat, MAIN } from "../cli/longcat.js";
import { framesOf, isIdle, post, servers, until } from "./servers.js";

const { mini, over, closeAll } = servers();
afterAll(closeAll);
const CHAT = "/v1/chat/completions";
const sum = { messages: [{ role: "user" as const, content: "Compute 56 + 80." }], temperature: 0 };
const endless = { ...sum, max_tokens: 3500, ignore_eos: true };

describe("the queue", () => {
  it("is bounded: 429 with Retry-After beyond it, and those inside get their answers", async () => {
    const served = await mini({ maxQueue: 2, engine: { maxSequences: 2 } });
    const answers = await Promise.all(Array.from({ length: 12 }, () => post(served.url, CHAT, sum)));
    const refused = answers.filter(({ status }) => status === 429);
    expect(refused.length).toBeGreaterThanOrEqual(1);
    for (const { json, headers } of refused) {
      expect(json.error).toMatchObject({ type: "rate_limit_error", code: "overloaded" });
      expect(Number(headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
    }
    const good = answers.filter(({ status }) => status === 200);
    expect(good.length + refused.length).toBe(12);
    for (const { json } of good) expect(json.choices[0].message.content).toBe("136");
    // Choices count, and one request that is larger than the queue enters when it is alone.
    expect((await post(served.url, CHAT, { ...sum, n: 8 })).status).toBe(200);
    await expect(served.client.chat.completions.create({ model: "mini", ...sum })).resolves.toBeDefined();
  });

  it("500 streams, 32 at once: one finish and one [DONE] in each", async () => {
    const served = await mini();
    let left = 500;
    const work = async (): Promise<void> => {
      while (left-- > 0) {
        const frames = framesOf((await post(served.url, CHAT, { ...sum, stream: true })).text);
        expect(frames.filter((frame) => frame === "[DONE]")).toHaveLength(1);
        expect(frames.at(-1)).toBe("[DONE]");
        expect(frames.filter((frame) => /"finish_reason":"stop"/.test(frame))).toHaveLength(1);
      }
    };
    await Promise.all(Array.from({ length: 32 }, work));
    await until(() => isIdle(served.engine.stats));
  });
});

/** An engine that fails after three chunks. */
function failing(engine: Engine, error: Error): Engine {
  return new Proxy(engine, {
    get: (target, name) => {
      if (name === "generate")
        return (prompt: string, params: GenerateParams, onChunk: (chunk: Chunk) => void) => {
          let count = 0;
          return target.generate(prompt, params, (chunk) => {
            if (++count === 3) throw error;
            onChunk(chunk);
          });
        };
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

describe("failures", () => {
  it("in mid-stream: one error frame, no finish, no [DONE]; OpenAI's client throws", async () => {
    const { engine } = await mini();
    const logged: string[] = [];
    const { url, client } = await over(failing(engine, new Error("a secret of the inside")), { onLog: (line) => void logged.push(line) });
    const { text } = await post(url, CHAT, { ...sum, stream: true });
    const frames = framesOf(text).map((frame) => JSON.parse(frame));
    expect(frames.at(-1)).toEqual({ error: { message: expect.any(String), type: "server_error", param: null, code: "internal" } });
    expect(frames.filter(({ error }) => error !== undefined)).toHaveLength(1);
    expect(text).not.toMatch(/DONE|"finish_reason":"|secret/);
    expect(logged.join()).toContain("secret");
    const stream = await client.chat.completions.create({ model: "mini", ...sum, stream: true });
    const read = async () => {
      for await (const chunk of stream) expect(chunk.choices).toHaveLength(1);
    };
    await expect(read()).rejects.toBeInstanceOf(OpenAI.APIError);
    expect((await fetch(`${url}/health`)).status).toBe(200);
  });

  it("after a fault of the device nothing is taken any more, and health says why", async () => {
    const { engine } = await mini();
    const { url } = await over(failing(engine, new LongcatError("CUDA_ERROR", "an illegal address")));
    await post(url, CHAT, { ...sum, stream: true });
    const health = await fetch(`${url}/health`);
    expect([health.status, await health.json()]).toEqual([503, { status: "failed", reason: "an illegal address" }]);
    expect((await fetch(`${url}/health?live`)).status).toBe(200);
    const { status, json } = await post(url, CHAT, sum);
    expect([status, json.error.code]).toEqual([503, "unhealthy"]);
  });
});

describe("a drain", () => {
  it("takes nothing new and lets answers end; those that do not in time end with an error", async () => {
    const { server, url, engine } = await mini({ drainTimeoutMs: 300 });
    const stream = post(url, CHAT, { ...endless, stream: true });
    const whole = post(url, CHAT, endless);
    await until(() => engine.stats.runningSequences === 2);
    const drained = server.drain();
    const health = await fetch(`${url}/health`);
    expect([health.status, await health.json()]).toEqual([503, { status: "draining" }]);
    const refused = await post(url, CHAT, sum);
    expect([refused.status, refused.json.error.code, refused.headers.get("retry-after")]).toEqual([503, "server_draining", "5"]);
    const frames = framesOf((await stream).text);
    expect(JSON.parse(frames.at(-1) ?? "").error.code).toBe("server_draining");
    expect([(await whole).status, (await whole).json.error.code]).toEqual([503, "server_draining"]);
    await drained;
    await until(() => isIdle(engine.stats));
    await expect(fetch(`${url}/health`)).rejects.toThrow();
  });

  it("ends at once when nothing is under way", async () => {
    const { server, url } = await mini({ drainTimeoutMs: 30_000 });
    await fetch(`${url}/health`);
    const start = performance.now();
    await server.drain();
    expect(performance.now() - start).toBeLessThan(5000);
  });
});

describe("longcat serve", () => {
  const children: ChildProcess[] = [];
  afterEach(() => {
    for (const child of children.splice(0)) child.kill("SIGKILL");
  });

  /** Starts the program; its address once the model is there. */
  async function start(...args: string[]) {
    const child = spawn(process.execPath, [MAIN, "serve", "--port", "0", "--device", "cpu", "--threads", "2", ...args], { stdio: "pipe" });
    children.push(child);
    let stderr = "";
    child.stderr.setEncoding("utf8").on("data", (piece: string) => (stderr += piece));
    const exit = new Promise<number | null>((resolve) => child.on("close", resolve));
    await until(
      () => /ready: mini/.test(stderr),
      () => stderr,
    );
    return { child, exit, url: /listening on (\S+)/.exec(stderr)?.[1] ?? "", log: () => stderr };
  }

  it("SIGTERM: answers under way end, then exit 0", async () => {
    const { child, exit, url, log } = await start();
    const answer = post(url, CHAT, { ...endless, max_tokens: 200, stream: true });
    await until(async () =>
      / [1-9]\d*$/m.test(/^vllm:num_requests_running.*$/m.exec(await (await fetch(`${url}/metrics`)).text())?.[0] ?? ""),
    );
    child.kill("SIGTERM");
    const frames = framesOf((await answer).text);
    expect(frames.at(-1)).toBe("[DONE]");
    expect(await exit).toBe(0);
    expect(log()).toContain("draining");
  });

  it("a second signal exits at once; Ctrl-C drains and gives 130", async () => {
    const first = await start();
    const answer = post(first.url, CHAT, { ...endless, stream: true }).catch(() => undefined);
    await until(async () =>
      / [1-9]\d*$/m.test(/^vllm:num_requests_running.*$/m.exec(await (await fetch(`${first.url}/metrics`)).text())?.[0] ?? ""),
    );
    first.child.kill("SIGTERM");
    await until(() => /draining/.test(first.log()));
    first.child.kill("SIGTERM");
    expect(await first.exit).toBe(143);
    await answer;
    const second = await start();
    second.child.kill("SIGINT");
    expect(await second.exit).toBe(130);
  });

  it("serves the page, with --api-key too", async () => {
    const { child, exit, url } = await start("--api-key", "secret", "--model-name", "mini");
    const page = await fetch(`${url}/`);
    expect([page.status, page.headers.get("content-type")]).toEqual([200, "text/html; charset=utf-8"]);
    expect((await fetch(`${url}/v1/models`)).status).toBe(401);
    child.kill("SIGTERM");
    expect(await exit).toBe(0);
  });

  it("what cannot be is refused with a line", async () => {
    expect(await longcat(["serve", "--api-key", ""])).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/^error: OPTION_INVALID: apiKey: an empty key/),
    });
    expect(await longcat(["serve", "--port", "99999"])).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/^error: OPTION_INVALID: port/),
    });
    expect(await longcat(["serve", "--port", "0", "--model", "nowhere"])).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/error: CHECKPOINT_INVALID/),
    });
    expect(await longcat(["serve", "--api-key-file", "/no/such/file"])).toMatchObject({ code: 2 });
  });
});
