/**
 * The server's HTTP interface, as much of it as the chat needs: models, and a streamed answer.
 * @module
 */

/** The server refused or failed: its status (0 in mid-stream) and its own words. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** @param {string} key The API key; "" sends none. */
function headers(key) {
  return { "content-type": "application/json", ...(key === "" ? {} : { authorization: `Bearer ${key}` }) };
}

/** The response, or its error. */
async function request(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The server can't be reached.");
  }
  if (response.ok) return response;
  const text = await response.text();
  let message = text;
  try {
    message = JSON.parse(text).error.message;
  } catch {
    // Not ours: the text is what there is to say.
  }
  throw new ApiError(response.status, message || `The server answered ${response.status}.`);
}

/** The name of the model that is served. */
export async function modelName(key) {
  const response = await request("v1/models", { headers: headers(key) });
  return (await response.json()).data[0].id;
}

/**
 * A chat's answer, piece by piece.
 * @param {object} body Fields of /v1/chat/completions beyond `stream`.
 * @returns {AsyncGenerator<object>} The stream's frames, parsed.
 */
export async function* streamChat(body, { key, signal }) {
  const options = { method: "POST", headers: headers(key), body: JSON.stringify({ ...body, stream: true }), signal };
  const response = await request("v1/chat/completions", options);
  let ended = false;
  for await (const data of events(response.body)) {
    if (data === "[DONE]") {
      ended = true;
      break;
    }
    const frame = JSON.parse(data);
    if (frame.error) throw new ApiError(0, frame.error.message);
    yield frame;
  }
  if (!ended) throw new ApiError(0, "The answer broke off.");
}

/** The data of each server-sent event. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const blocks = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const data = block.split("\n").filter((line) => line.startsWith("data:"));
        if (data.length > 0) yield data.map((line) => line.slice(5).trimStart()).join("\n");
      }
    }
  } finally {
    reader.cancel().catch(() => undefined);
  }
}
