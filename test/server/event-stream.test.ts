/** What a client that reads slowly costs: its frames are kept, for as long as each write leaves within the time-out. */
import { once } from "node:events";
import { createServer, type ServerResponse } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { afterEach, expect, it } from "vitest";
import { EventStream } from "../../ts/server/event-stream.js";

/** More than the kernel's buffers of a connection take. */
const LONG = JSON.stringify("x".repeat(32 << 20));

const closers: (() => void)[] = [];
afterEach(() => {
  for (const close of closers.splice(0)) close();
});

/** A stream of events, and the socket of a client that reads nothing yet. */
async function connected(
  writeTimeoutMs: number,
): Promise<{ events: EventStream; response: ServerResponse; client: Socket; stalls: () => number }> {
  let stalls = 0;
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const client = connect((server.address() as AddressInfo).port, "127.0.0.1").pause();
  client.on("error", () => undefined);
  client.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
  const [, response] = (await once(server, "request")) as [unknown, ServerResponse];
  closers.push(() => {
    client.destroy();
    server.closeAllConnections();
    server.close();
  });
  const options = { writeTimeoutMs, keepAliveMs: 60_000 };
  return { events: new EventStream(response, options, () => stalls++), response, client, stalls: () => stalls };
}

it("a client that reads a little of a write, but not all of it within the time-out, is cut", async () => {
  const { events, response, client, stalls } = await connected(400);
  let read = 0;
  const sips = setInterval(() => {
    read += (client.read(1024) as Buffer | null)?.length ?? 0;
  }, 20);
  closers.push(() => clearInterval(sips));
  events.send(LONG);
  await once(response, "close");
  expect([stalls(), read > 0]).toEqual([1, true]);
});

it("one that stops for less than the time-out gets every frame, in order", async () => {
  const { events, client, stalls } = await connected(20_000);
  const parts: Buffer[] = [];
  events.send(LONG);
  setTimeout(() => client.on("data", (part: Buffer) => parts.push(part)).resume(), 100);
  await new Promise((resolve) => setTimeout(resolve, 20));
  for (let i = 0; i < 3; i++) events.send(`${i}`);
  await events.done();
  while (!Buffer.concat(parts.slice(-8)).includes("[DONE]")) await once(client, "data");
  const text = Buffer.concat(parts).toString();
  expect(stalls()).toBe(0);
  expect(text.slice(text.lastIndexOf("x") + 1).replace(/\r\n[0-9a-f]+\r\n/g, "")).toContain('"\n\ndata: 0\n\ndata: 1\n\ndata: 2\n\n');
  expect(text.indexOf("data: 0\n")).toBeGreaterThan(LONG.length);
});
