/**
 * The page with a server behind it that answers by a script: what it was asked is kept, how fast it answers is the test's to say.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { pageFiles } from "../../ts/server/page/index.js";

/** One frame: its text and, for each token, the FFN experts by layer. */
export interface Frame {
  content?: string;
  reasoning?: string;
  counts?: number[][];
}

export interface ChatServer {
  url: string;
  /** What the next answers are made of. */
  frames: Frame[];
  delayMs: number;
  /** Requests without this key are refused. */
  key: string | undefined;
  /** The next chat request fails with this message. */
  refuse: string | undefined;
  /** Bodies of all chat requests. */
  asked: Record<string, unknown>[];
  /** Chat requests whose client went away. */
  gone: number;
  /** Paths of all requests. */
  paths: string[];
  close(): Promise<void>;
}

export const TOP_K = 6;

/** 24 words whose tokens use 0 to 6 experts in either layer; the end token has no text. */
export const STORY: Frame[] = [
  ...Array.from({ length: 24 }, (_, i) => ({ content: `${i === 0 ? "" : " "}word${i}`, counts: [[i % 7, (i * 3) % 7]] })),
  { counts: [[3, 4]] },
];

export async function startChatServer(): Promise<ChatServer> {
  const files = pageFiles();
  const chat = { frames: STORY, delayMs: 5, key: undefined, refuse: undefined, asked: [], gone: 0, paths: [] } as unknown as ChatServer;
  const server = createServer((request, response) => {
    void serve(request, response);
  });

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = request.url ?? "/";
    chat.paths.push(path);
    const file = files.get(path);
    if (file !== undefined) return void response.writeHead(200, { "content-type": file.type, "cache-control": "no-cache" }).end(file.body);
    if (chat.key !== undefined && request.headers.authorization !== `Bearer ${chat.key}`) return fail(response, 401, "a key is needed");
    if (path === "/v1/models") return void json(response, 200, { object: "list", data: [{ id: "mini", object: "model" }] });
    if (path !== "/v1/chat/completions") return fail(response, 404, "no such route");
    let text = "";
    for await (const piece of request) text += String(piece);
    chat.asked.push(JSON.parse(text) as Record<string, unknown>);
    if (chat.refuse !== undefined) {
      const message = chat.refuse;
      chat.refuse = undefined;
      return fail(response, 400, message);
    }
    await answer(response);
  }

  async function answer(response: ServerResponse): Promise<void> {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.on("close", () => {
      if (!response.writableFinished) chat.gone++;
    });
    const send = (choice: object) => response.write(`data: ${JSON.stringify({ choices: [{ index: 0, ...choice }] })}\n\n`);
    send({ delta: { role: "assistant", content: "" } });
    for (const { content, reasoning, counts } of chat.frames) {
      await new Promise((resolve) => setTimeout(resolve, chat.delayMs));
      if (response.destroyed) return;
      const delta = { ...(content !== undefined && { content }), ...(reasoning !== undefined && { reasoning_content: reasoning }) };
      send({ delta, ...(counts && { routing: { ffn_experts: counts, top_k: TOP_K } }) });
    }
    send({ delta: {}, finish_reason: "stop" });
    response.end("data: [DONE]\n\n");
  }

  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  chat.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  chat.close = () => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(() => resolve()));
  };
  return chat;
}

function json(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
}

function fail(response: ServerResponse, status: number, message: string): void {
  json(response, status, { error: { message, type: "invalid_request_error", param: null, code: null } });
}
