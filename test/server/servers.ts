/**
 * Servers for tests: over the bundled checkpoint or over a fake runner, with OpenAI's own client and with raw sockets.
 */
import { connect, type Socket } from "node:net";
import OpenAI from "openai";
import { expect } from "vitest";
import { Engine } from "../../ts/engine/engine.js";
import type { EngineOptions } from "../../ts/engine/options.js";
import type { EngineStats } from "../../ts/engine/types.js";
import { ApiServer, type PageFile, type ServerOptions } from "../../ts/server/index.js";

export interface Served {
  server: ApiServer;
  engine: Engine;
  url: string;
  client: OpenAI;
}

export type ServeOptions = ServerOptions & { engine?: EngineOptions; pages?: Map<string, PageFile> };

/** Starts servers and stops them all at the end. */
export function servers() {
  const started: Served[] = [];
  const over = async (engine: Engine, options: ServeOptions = {}): Promise<Served> => {
    const { engine: _, pages, ...rest } = options;
    const server = await ApiServer.listen({ port: 0, drainTimeoutMs: 0, onLog: () => undefined, ...rest }, pages);
    server.serve(engine);
    const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: rest.apiKey ?? "none", maxRetries: 0 });
    const served = { server, engine, url: server.url, client };
    started.push(served);
    return served;
  };
  return {
    over,
    mini: async (options: ServeOptions = {}): Promise<Served> =>
      over(await Engine.load(undefined, { device: "cpu", threads: 2, cacheBytes: 64 * 1024 * 1024, ...options.engine }), options),
    closeAll: async (): Promise<void> => {
      for (const { server, engine } of started.splice(0)) {
        await server.drain();
        await engine.close();
      }
    },
  };
}

/** POSTs JSON, as an object or as the text of one. */
export async function post(url: string, path: string, body: unknown, headers: Record<string, string> = {}) {
  const response = await fetch(url + path, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers },
    body: typeof body === "string" ? body : JSON.stringify(body),
  });
  const text = await response.text();
  // biome-ignore lint/suspicious/noExplicitAny: answers are looked at field by field
  const json: any = response.headers.get("content-type")?.startsWith("application/json") ? JSON.parse(text) : undefined;
  return { status: response.status, headers: response.headers, text, json };
}

/** The data of each frame of a stream, in order. */
export function framesOf(text: string): string[] {
  expect(text.endsWith("\n\n"), "every frame ends in a blank line").toBe(true);
  return text
    .split("\n\n")
    .slice(0, -1)
    .map((frame) => {
      expect(frame).toMatch(/^data: [^\n]*$/);
      return frame.slice("data: ".length);
    });
}

/** A connection of bytes. */
export class Raw {
  readonly socket: Socket;
  text = "";
  readonly closed: Promise<void>;

  constructor(url: string) {
    const { hostname, port } = new URL(url);
    this.socket = connect({ host: hostname, port: Number(port), allowHalfOpen: true });
    this.socket.setEncoding("utf8").on("data", (piece: string) => {
      this.text += piece;
    });
    this.socket.on("error", () => undefined);
    this.closed = new Promise((resolve) => {
      this.socket.on("end", resolve).on("close", () => resolve());
    });
  }

  send(text: string | Uint8Array): this {
    this.socket.write(text);
    return this;
  }

  post(path: string, body: unknown, headers = ""): this {
    const json = JSON.stringify(body);
    return this.send(
      `POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n${headers}Content-Length: ${Buffer.byteLength(json)}\r\n\r\n${json}`,
    );
  }

  /** Resolves when what has come matches. */
  async until(pattern: RegExp): Promise<void> {
    await until(
      () => pattern.test(this.text),
      () => `${pattern} in ${JSON.stringify(this.text.slice(-300))}`,
    );
  }
}

/** Resolves when the condition holds; fails after ten seconds. */
export async function until(condition: () => boolean | Promise<boolean>, what: string | (() => string) = "the condition"): Promise<void> {
  const end = performance.now() + 10_000;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`waited too long for ${typeof what === "string" ? what : what()}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

export const isIdle = ({ runningSequences, waitingSequences, blocksInUse }: EngineStats): boolean =>
  runningSequences === 0 && waitingSequences === 0 && blocksInUse === 0;

/** Nothing runs any more, and the server answers as ever. */
export async function alive({ engine, url }: Served): Promise<void> {
  await until(() => isIdle(engine.stats), "the engine to be idle");
  const sum = { messages: [{ role: "user", content: "Compute 56 + 80." }], temperature: 0 };
  expect((await post(url, "/v1/chat/completions", sum)).json.choices[0].message.content).toBe("136");
  expect((await fetch(`${url}/health`)).status).toBe(200);
}
