/** The server as a program's own: `longcat-node/server`. */
import { afterAll, describe, expect, it, vi } from "vitest";
import { Engine, LongcatError } from "../../ts/index.js";
import { ApiServer, pageFiles } from "../../ts/server/index.js";
import { FakeGroup, groupEngine } from "../engine/fake-group.js";
import { post } from "./servers.js";

const sum = { messages: [{ role: "user", content: "Compute 56 + 80." }], temperature: 0 };
const CHAT = "/v1/chat/completions";
const engines: Engine[] = [];
const load = async (): Promise<Engine> => {
  const engine = await Engine.load(undefined, { device: "cpu", threads: 2, cacheBytes: 16 * 1024 * 1024, maxSequences: 4 });
  engines.push(engine);
  return engine;
};
afterAll(() => Promise.all(engines.map((engine) => engine.close())));
const listen = (onLog: (line: string) => void = () => undefined) => ApiServer.listen({ port: 0, onLog });

describe("ApiServer", () => {
  it("listens before there is an engine, answers with it, and leaves it to its owner", async () => {
    const server = await ApiServer.listen({ port: 0 }, pageFiles());
    const health = await fetch(`${server.url}/health`);
    expect([health.status, await health.json(), server.model]).toEqual([503, { status: "loading" }, undefined]);
    expect((await post(server.url, CHAT, sum)).json.error).toMatchObject({ type: "overloaded_error", code: "loading" });
    expect((await fetch(`${server.url}/`)).headers.get("content-type")).toBe("text/html; charset=utf-8");
    const engine = await load();
    server.serve(engine);
    expect(server.model).toBe("mini");
    expect((await post(server.url, CHAT, sum)).json.choices[0].message.content).toBe("136");
    await server.drain();
    expect((await engine.generate({ messages: sum.messages as [] }, { temperature: 0 })).text).toBe("136");
  });

  it("without pages has none", async () => {
    const server = await listen();
    expect((await fetch(`${server.url}/`)).status).toBe(404);
    await server.drain();
  });

  it("answers with another engine once it is given one, after a fault too", async () => {
    const [first, second] = [await load(), await load()];
    const server = await listen();
    const broken = new Proxy(first, {
      get: (target, name) => {
        if (name === "generate") return () => Promise.reject(new LongcatError("CUDA_ERROR", "an illegal address"));
        const value: unknown = Reflect.get(target, name, target);
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
    server.serve(broken);
    expect((await post(server.url, CHAT, sum)).status).toBe(500);
    expect((await fetch(`${server.url}/health`)).status).toBe(503);
    server.serve(first);
    expect((await post(server.url, CHAT, sum)).json.choices[0].message.content).toBe("136");
    server.serve(second);
    await first.close();
    expect((await post(server.url, CHAT, sum)).json.choices[0].message.content).toBe("136");
    await server.drain();
  });

  it("is not healthy once its engine is closed", async () => {
    const engine = await load();
    const server = await listen();
    server.serve(engine);
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
    await engine.close();
    const health = await fetch(`${server.url}/health`);
    expect([health.status, await health.json()]).toEqual([503, { status: "closed", reason: "the engine is closed" }]);
    expect((await fetch(`${server.url}/health?live`)).status).toBe(200);
    const { status, json } = await post(server.url, CHAT, sum);
    expect([status, json.error.code]).toEqual([503, "disposed"]);
    expect((await fetch(`${server.url}/metrics`)).status).toBe(200);
    await server.drain();
  });

  it("is not healthy once its engine has lost a rank, whether or not somebody called", async () => {
    const group = new FakeGroup(2);
    const engine = groupEngine(group);
    const logged: string[] = [];
    const server = await listen((line) => logged.push(line));
    server.serve(engine);
    const ask = () => post(server.url, "/v1/completions", { prompt: "hello", max_tokens: 40 });
    expect((await ask()).status).toBe(200);
    const metrics = await (await fetch(`${server.url}/metrics`)).text();
    for (const rank of [0, 1])
      expect(metrics).toMatch(
        new RegExp(`^longcat_rank_generation_tokens_total\\{model_name="fake",rank="${rank}"\\} ${rank === 0 ? 40 : 0}$`, "m"),
      );
    expect(metrics).toMatch(/^# TYPE longcat_rank_requests_running gauge$/m);
    group.silent = true;
    const underWay = [ask(), ask()];
    while (group.calls.length < 3) await new Promise((resolve) => setImmediate(resolve));
    const running = /^vllm:num_requests_(running|waiting)\{.*\} (?!0$)/m;
    vi.spyOn(group, "stats").mockReturnValue({ ...engine.stats, runningSequences: 2, waitingSequences: 1, blocksInUse: 3 });
    expect(await (await fetch(`${server.url}/metrics`)).text()).toMatch(running);
    group.lose(1);
    for (const { status, json } of await Promise.all(underWay)) expect([status, json.error.code]).toEqual([500, "comm_error"]);
    expect(logged).toEqual(["error: the engine has failed and answers no more until it is loaded anew: COMM_ERROR: rank 1 is lost"]);
    expect(await (await fetch(`${server.url}/metrics`)).text()).not.toMatch(running);
    const health = await fetch(`${server.url}/health`);
    expect([health.status, await health.json()]).toEqual([503, { status: "failed", reason: "rank 1 is lost" }]);
    const { status, json, headers } = await ask();
    expect([status, json.error.code, json.error.message]).toEqual([503, "unhealthy", "the engine has failed: rank 1 is lost"]);
    expect([json.error.type, headers.get("x-should-retry"), headers.get("retry-after")]).toEqual(["server_error", "false", null]);
    expect(logged).toHaveLength(1);
    const other = await listen();
    other.serve(engine);
    expect((await fetch(`${other.url}/health`)).status).toBe(503);
    await Promise.all([server.drain(), other.drain(), engine.close()]);
  });

  it.each([undefined, null, {}, "mini"])("refuses %j in place of an engine", async (value) => {
    const server = await listen();
    expect(() => server.serve(value as never)).toThrow(expect.objectContaining({ code: "OPTION_INVALID" }));
    expect(await (await fetch(`${server.url}/health`)).json()).toEqual({ status: "loading" });
    await server.drain();
  });

  it("is disposed of by a drain", async () => {
    const server = await listen();
    const { url } = server;
    await server[Symbol.asyncDispose]();
    expect(server.draining).toBe(true);
    await expect(fetch(`${url}/health`)).rejects.toThrow();
  });
});
