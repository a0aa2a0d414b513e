/** Who is let in where ranks arrive, and whom ranks believe (ts/parallel/introduction.ts, reception.ts, request-server.ts). */
import { createServer as createHttpServer } from "node:http";
import { connect, createServer, type AddressInfo, type Server, Socket } from "node:net";
import { serialize } from "node:v8";
import { afterEach, describe, expect, it, vi } from "vitest";
import { LongcatError } from "../../ts/errors.js";
import { Connection } from "../../ts/parallel/connection.js";
import { Control } from "../../ts/parallel/control.js";
import { type Challenge, challenge, dial, equal, introduce } from "../../ts/parallel/introduction.js";
import { Channel, Frame } from "../../ts/parallel/messages.js";
import { RequestServer } from "../../ts/parallel/request-server.js";

const [TOKEN, HOST] = ["secret", "127.0.0.1"];
const OVER = new LongcatError("ABORTED", "the test is over");

let open: (() => void)[] = [];
afterEach(() => {
  for (const close of open) close();
  open = [];
  vi.restoreAllMocks();
});

async function requestServer(ranks = 2): Promise<RequestServer> {
  const server = await RequestServer.listen({ ranks, token: TOKEN, address: HOST, port: 0 });
  open.push(() => server.close(OVER));
  return server;
}

/** A rank's connection, and all that its leader says there. */
async function arrive(port: number, rank: number, token = TOKEN) {
  const socket = await dial(HOST, port, 5000);
  open.push(() => socket.destroy());
  const connection = await introduce(socket, { channel: Channel.requests, rank, token }, 5000);
  const heard: [kind: number, words: string][] = [];
  const ended = new Promise<string>((onEnd) => connection.trust({ onFrame: (kind, body) => heard.push([kind, body.toString()]), onEnd }));
  return { connection, socket, heard, ended };
}

/** Somebody who listens as a leader does, and does as it likes with whoever comes. */
async function listener(meet: (socket: Socket) => void): Promise<number> {
  const server: Server = createServer(meet);
  await new Promise<void>((resolve) => server.listen(0, HOST, resolve));
  open.push(() => server.close());
  return (server.address() as AddressInfo).port;
}

describe("an introduction", () => {
  it("lets in who knows the token, and shows it to nobody", async () => {
    const server = await requestServer(1);
    const written: Buffer[] = [];
    const { send } = Connection.prototype;
    vi.spyOn(Connection.prototype, "send").mockImplementation(function (this: Connection, kind, body) {
      written.push(Buffer.from(body ?? []));
      send.call(this, kind, body);
    });
    await arrive(server.port, 0);
    await server.ranks;
    expect(written.map(({ length }) => length)).toEqual([37, 64, 32]);
    expect(Buffer.concat(written).includes(TOKEN)).toBe(false);
  });

  it("is not believed twice: what a rank has once proved proves nothing the next time", async () => {
    const server = await requestServer(1);
    const bodies: Buffer[] = [];
    const { send } = Connection.prototype;
    const spy = vi.spyOn(Connection.prototype, "send").mockImplementation(function (this: Connection, kind, body) {
      if (kind === Frame.hello || kind === Frame.proof) bodies.push(Buffer.from(body!));
      send.call(this, kind, body);
    });
    const first = await arrive(server.port, 0);
    first.connection.destroy();
    spy.mockRestore();
    const replayed = await new Promise((resolve) => {
      const socket = connect(server.port, HOST);
      const again: Connection = new Connection(socket, {
        onFrame: (kind, body) => {
          if (kind === Frame.challenge) again.send(Frame.proof, bodies[1]!);
          else resolve([kind, body.toString()]);
        },
        onEnd: resolve,
      });
      again.send(Frame.hello, bodies[0]!);
    });
    expect(replayed).toEqual([Frame.refused, "this leader's group has another token"]);
  });

  it("with a leader that does not know the token reads no value of it", async () => {
    const value = serialize({ type: "setup", setup: {} });
    for (const kind of [Frame.value, Frame.challenge]) {
      const port = await listener((socket) => {
        const stranger = new Connection(socket, { onFrame: () => stranger.send(kind, value), onEnd: () => undefined });
      });
      await expect(arrive(port, 0)).rejects.toMatchObject({
        code: "COMM_ERROR",
        message: "refused: this leader's group has another token",
      });
    }
  });

  it("with a server of another kind is over at once", async () => {
    const server = createHttpServer();
    await new Promise<void>((resolve) => server.listen(0, HOST, resolve));
    open.push(() => server.close());
    const { port } = server.address() as AddressInfo;
    const startMs = performance.now();
    await expect(Control.join({ address: HOST, port, token: TOKEN, rank: 1, ranks: 2, connectMs: 20_000 })).rejects.toMatchObject({
      code: "COMM_ERROR",
      message: `rank 1 of 2: what listens at ${HOST}:${port} is no leader of ranks; MASTER_PORT says where a leader is looked for`,
    });
    expect(performance.now() - startMs).toBeLessThan(5000);
  });

  it("is followed by all that the leader says, also what comes with its first word", async () => {
    const port = await listener((socket) => {
      let asked: Challenge | undefined;
      const leader = new Connection(socket, {
        onFrame: (kind, body) => {
          if (kind === Frame.hello) {
            asked = challenge(body, TOKEN);
            leader.send(Frame.challenge, asked!.body);
          } else if (asked !== undefined && equal(body, asked.proof)) {
            socket.cork();
            leader.sendValue(Frame.value, { type: "setup", setup: { directory: "there" } });
            leader.send(Frame.beat);
            leader.sendValue(Frame.value, { type: "started" });
            socket.uncork();
          }
        },
        onEnd: () => undefined,
      });
    });
    const control = await Control.join({ address: HOST, port, token: TOKEN, rank: 0, ranks: 1, connectMs: 5000 });
    expect(control.setup).toEqual({ directory: "there" });
    await control.started;
    await control.close();
  });

  it("of one who keeps its side open is over when it was refused", async () => {
    const server = await requestServer(1);
    const socket = connect({ port: server.port, host: HOST, allowHalfOpen: true });
    open.push(() => socket.destroy());
    const hello = new Connection(socket, { onFrame: () => undefined, onEnd: () => undefined });
    hello.send(Frame.hello, Buffer.alloc(1));
    await new Promise((resolve) => socket.once("end", resolve));
    // A side that was closed for good answers what still comes with a reset; one that merely has nothing to say takes it.
    const reset = new Promise((resolve) => socket.once("error", resolve));
    const timer = setInterval(() => socket.write("more"), 20);
    expect(await reset).toMatchObject({ code: expect.stringMatching(/EPIPE|ECONNRESET/) });
    clearInterval(timer);
  });
});

it("a stranger does not keep the process alive", async () => {
  const sockets = (): number => process.getActiveResourcesInfo().filter((name) => name === "TCPSocketWrap").length;
  const server = await requestServer(1);
  await vi.waitFor(() => expect(sockets()).toBe(0)); // of tests before
  const arrived = vi.spyOn(Socket.prototype, "setKeepAlive");
  const socket = connect(server.port, HOST).unref();
  open.push(() => socket.destroy());
  await vi.waitFor(() => expect(arrived).toHaveBeenCalled());
  expect(sockets()).toBe(0);
});

describe("the leader's main thread", () => {
  it("takes one connection of a rank", async () => {
    const server = await requestServer();
    await arrive(server.port, 0);
    const second = await arrive(server.port, 0);
    await second.ended;
    expect(second.heard).toEqual([[Frame.refused, "rank 0 of 2 has connected already"]]);
  });

  it("is told when a rank's connection breaks", async () => {
    const server = await requestServer();
    const ranks = [await arrive(server.port, 0), await arrive(server.port, 1)];
    await server.ranks;
    ranks[1]!.socket.resetAndDestroy();
    expect(await server.broken).toEqual({ rank: 1, why: expect.stringMatching(/^its connection (was closed|broke: read ECONNRESET)$/) });
  });
});
