/** Who may ask: keys, hosts, origins; and options of the server that are refused. */
import { request } from "node:http";
import { afterAll, describe, expect, it } from "vitest";
import { LongcatError } from "../../ts/errors.js";
import { ApiServer, type ServerOptions } from "../../ts/server/index.js";
import { Engine } from "../../ts/engine/engine.js";
import { post, Raw, servers } from "./servers.js";

const { over, closeAll } = servers();
const engine = await Engine.load(undefined, { device: "cpu", threads: 1, cacheBytes: 16 * 1024 * 1024 });
const page = { type: "text/html; charset=utf-8", body: "<p>page</p>" };
afterAll(async () => {
  await closeAll();
  await engine.close();
});

/** A GET with headers that fetch would not send. */
function get(url: string, path: string, headers: Record<string, string>, method = "GET") {
  return new Promise<{ status: number; headers: Record<string, unknown>; text: string }>((resolve, reject) => {
    request(url + path, { method, headers }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (piece) => (text += piece));
      response.on("end", () => resolve({ status: response.statusCode ?? 0, headers: response.headers, text }));
    })
      .on("error", reject)
      .end();
  });
}

describe("without a key", () => {
  it.each([
    ["localhost", 200],
    ["LOCALHOST:99", 200],
    ["127.0.0.1:8000", 200],
    ["[::1]:8000", 200],
    ["evil.example", 403],
    ["localhost.evil.example", 403],
    ["127.0.0.1.evil.example", 403],
    ["localhost@evil.example", 403],
  ])("Host %j: %i", async (host, status) => {
    const { url } = await over(engine);
    for (const path of ["/health", "/v1/models"]) expect((await get(url, path, { Host: host })).status).toBe(status);
  });

  it("an empty Host: 403", async () => {
    const raw = new Raw((await over(engine)).url).send("GET /health HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n");
    await raw.closed;
    expect(raw.text).toMatch(/^HTTP\/1\.1 403/);
  });

  it("names of its own are allowed by option", async () => {
    const { url } = await over(engine, { allowedHosts: ["Chat.example"] });
    expect((await get(url, "/v1/models", { Host: "chat.example:8000" })).status).toBe(200);
    expect((await get(url, "/v1/models", { Host: "evil.example" })).status).toBe(403);
  });

  it("bound to every address, addresses in numbers are no foreign names", async () => {
    const { server } = await over(engine, { host: "0.0.0.0" });
    const url = `http://127.0.0.1:${new URL(server.url).port}`;
    expect((await get(url, "/health", { Host: "10.1.2.3:8000" })).status).toBe(200);
    expect((await get(url, "/health", { Host: "evil.example" })).status).toBe(403);
  });

  it("foreign origins get 403; the server's own page does not", async () => {
    const { url } = await over(engine);
    const own = new URL(url).host;
    for (const origin of ["https://evil.example", "null", `http://evil.example`, `http://localhost:1`])
      expect((await get(url, "/v1/models", { Origin: origin })).status, origin).toBe(403);
    expect((await get(url, "/v1/models", { Origin: `http://${own}` })).status).toBe(200);
  });

  it("allowed origins are told so, and asked beforehand", async () => {
    const { url } = await over(engine, { cors: ["https://chat.example"] });
    const origin = "https://chat.example";
    const allowed = await get(url, "/v1/models", { Origin: origin });
    expect([allowed.status, allowed.headers["access-control-allow-origin"], allowed.headers["vary"]]).toEqual([200, origin, "Origin"]);
    const asked = { Origin: origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type" };
    const preflight = await get(url, "/v1/chat/completions", asked, "OPTIONS");
    expect([preflight.status, preflight.headers["access-control-allow-headers"]]).toEqual([204, "content-type"]);
    expect((await get(url, "/v1/models", {})).headers["vary"]).toBe("Origin");
    expect((await get(url, "/v1/models", { Origin: "https://evil.example" }, "OPTIONS")).status).toBe(403);
    const refused = await get(url, "/v1/models", { Origin: "https://evil.example" });
    expect([refused.status, refused.headers["access-control-allow-origin"]]).toEqual([403, undefined]);
  });
});

describe("with a key", () => {
  it("opens everything but health and the page", async () => {
    const { url } = await over(engine, { apiKey: "secret", pages: new Map([["/", page]]) });
    for (const path of ["/health", "/health?live", "/"]) expect((await get(url, path, {})).status, path).toBe(200);
    for (const path of ["/v1/models", "/metrics", "/nothing"]) {
      const { status, headers, text } = await get(url, path, {});
      expect([status, headers["www-authenticate"], JSON.parse(text).error.type], path).toEqual([401, "Bearer", "authentication_error"]);
    }
    for (const key of ["Bearer wrong", "Bearer ", "Bearer", "secret", "Basic secret", "Bearer secret2"])
      expect((await get(url, "/v1/models", { Authorization: key })).status, key).toBe(401);
    expect((await get(url, "/v1/models", { Authorization: "Bearer secret" })).status).toBe(200);
    expect((await post(url, "/tokenize", { prompt: "12" }, { Authorization: "bearer secret" })).status).toBe(200);
  });

  it("hosts and origins matter no longer; a browser's page still needs leave to read", async () => {
    const { url } = await over(engine, { apiKey: "secret" });
    const { status, headers } = await get(url, "/v1/models", {
      Authorization: "Bearer secret",
      Host: "any.example",
      Origin: "https://any.example",
    });
    expect([status, headers["access-control-allow-origin"]]).toEqual([200, undefined]);
  });

  it("the page is served with its type, and does not need the model", async () => {
    const server = await ApiServer.listen({ port: 0, apiKey: "secret" }, new Map([["/", page]]));
    const { status, headers, text } = await get(server.url, "/", {});
    expect([status, headers["content-type"], text]).toEqual([200, page.type, page.body]);
    expect((await get(server.url, "/health", {})).text).toBe('{"status":"loading"}');
    const early = await get(server.url, "/v1/models", { Authorization: "Bearer secret" });
    expect([early.status, JSON.parse(early.text).error.code]).toEqual([503, "loading"]);
    await server.drain();
  });
});

describe("options", () => {
  const cases: [object, string][] = [
    [{ apiKey: "" }, "apiKey"],
    [{ apiKey: "a b" }, "apiKey"],
    [{ port: -1 }, "port"],
    [{ port: 1.5 }, "port"],
    [{ host: "" }, "host"],
    [{ host: "no.such.host.invalid" }, "host"],
    [{ cors: "https://chat.example" }, "cors"],
    [{ cors: ["chat.example"] }, "cors"],
    [{ cors: ["https://chat.example/path"] }, "cors"],
    [{ allowedHosts: "chat.example" }, "allowedHosts"],
    [{ allowedHosts: ["a b"] }, "allowedHosts"],
    [{ onLog: "stderr" }, "onLog"],
    [{ maxQueue: -1 }, "maxQueue"],
    [{ colour: 1 }, "colour"],
  ];
  it.each(cases)("%j is refused by name", async (options, name) => {
    const refused = await ApiServer.listen({ port: 0, ...options } as ServerOptions).catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(LongcatError);
    expect(refused).toMatchObject({ code: "OPTION_INVALID", message: expect.stringContaining(name) });
    expect(String((refused as Error).message)).not.toContain("a b is");
  });

  it("a port that is taken is an error, not an end of the process", async () => {
    const { server } = await over(engine);
    const port = Number(new URL(server.url).port);
    await expect(ApiServer.listen({ port })).rejects.toMatchObject({
      code: "OPTION_INVALID",
      message: expect.stringContaining("EADDRINUSE"),
    });
  });
});
