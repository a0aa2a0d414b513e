/**
 * The chat: sends messages, shows the answer as it comes, keeps the conversation over a reload.
 * @module
 */

import { ApiError, modelName, streamChat } from "./api.js";
import { encodeToken, Figures } from "./routing.js";
import { loadKey, loadMessages, loadSettings, saveKey, saveMessages, saveSettings } from "./store.js";
import { MessageView, showFigures, watchTokens } from "./view.js";

const byId = (id) => document.getElementById(id);
const log = byId("log");
const scroller = log.closest("main");

/** Milliseconds between two writes of a growing answer. */
const SAVE_EVERY_MS = 1000;

const state = {
  messages: loadMessages(),
  key: loadKey(),
  model: undefined,
  topK: loadSettings().topK,
  /** Aborts the answer that is coming. */
  running: undefined,
  figures: undefined,
  views: [],
};

// ---- what is seen

function redraw() {
  state.views = state.messages.map((message) => new MessageView(message));
  log.replaceChildren(...state.views.map(({ node }) => node));
  state.figures = new Figures(state.messages);
  showFigures(state.figures, state.topK);
  drawFeet();
  byId("empty").hidden = state.messages.length > 0;
  scroller.scrollTop = scroller.scrollHeight;
}

/** Only the last answer can be asked for again. */
function drawFeet() {
  for (const [i, view] of state.views.entries()) {
    const { note, fault } = state.messages[i];
    const last = i === state.messages.length - 1 && !state.running;
    view.foot({ note, fault, retry: last ? retry : undefined });
  }
}

function setRunning(controller) {
  state.running = controller;
  byId("send").hidden = controller !== undefined;
  byId("stop").hidden = controller === undefined;
  byId("clear").disabled = controller !== undefined;
}

const say = (text) => {
  byId("status").textContent = text;
};

/** Keeps the newest line in sight unless the reader has scrolled up. */
function following(change) {
  const atEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 40;
  change();
  if (atEnd) scroller.scrollTop = scroller.scrollHeight;
}

// ---- an answer

/** What the model is asked: the conversation and what the settings say. */
function requestBody() {
  const { temperature, maxTokens, thinking } = loadSettings();
  return {
    model: state.model,
    // An answer that failed before its first word is no part of the conversation.
    messages: state.messages
      .filter(({ role, content }) => role === "user" || content !== "")
      .map(({ role, content }) => ({ role, content })),
    routing: true,
    ...(temperature !== undefined && { temperature }),
    ...(maxTokens !== undefined && { max_tokens: maxTokens }),
    ...(thinking && { enable_thinking: true }),
  };
}

/** Asks for an answer to the messages so far and shows it as it comes. */
async function answer() {
  const controller = new AbortController();
  setRunning(controller);
  const body = requestBody();
  const message = { role: "assistant", content: "", reasoning: "", pieces: [] };
  const view = new MessageView(message);
  following(() => {
    state.messages.push(message);
    state.views.push(view);
    log.append(view.node);
    view.waiting = true;
    drawFeet();
  });
  try {
    await readAnswer(message, view, streamChat(body, { key: state.key, signal: controller.signal }));
  } catch (error) {
    if (controller.signal.aborted) message.note = "Stopped.";
    else fail(message, error);
  }
  setRunning(undefined);
  saveMessages(state.messages);
  following(() => {
    view.waiting = false;
    drawFeet();
  });
  say(message.fault ?? message.note ?? "The answer is there.");
}

/** Takes in the frames of one answer. */
async function readAnswer(message, view, frames) {
  const pieces = new Pieces();
  let [firstMs, count, savedMs] = [0, 0, performance.now()];
  const add = (piece) => {
    message.pieces.push(piece);
    if (piece.kind === "text") message.content += piece.text;
    else message.reasoning += piece.text;
    state.figures.add(piece.tokens);
    following(() => view.add(piece));
  };
  const rest = () => pieces.end().forEach(add);
  try {
    for await (const { choices } of frames) {
      const choice = choices?.[0];
      if (choice === undefined) continue;
      const counts = choice.routing?.ffn_experts ?? [];
      learnTopK(choice.routing?.top_k);
      pieces.take(choice.delta ?? {}, counts.map(encodeToken)).forEach(add);
      firstMs ||= performance.now();
      count += counts.length;
      const seconds = (performance.now() - firstMs) / 1000;
      showFigures(state.figures, state.topK, count > 1 && seconds > 0 ? (count - 1) / seconds : undefined);
      if (choice.finish_reason === "length") message.note = "Ended at the limit.";
      if (performance.now() - savedMs > SAVE_EVERY_MS) {
        saveMessages(state.messages);
        savedMs = performance.now();
      }
    }
  } finally {
    rest();
    showFigures(state.figures, state.topK);
  }
}

/** Puts text and tokens together: a token that writes nothing yet is shown with the text that it becomes part of. */
class Pieces {
  #tokens = [];
  #kind = "text";

  take(delta, tokens) {
    this.#tokens.push(...tokens);
    const calls = (delta.tool_calls ?? []).map(({ function: call = {} }) => (call.name ?? "") + (call.arguments ?? "")).join("");
    const written = [
      { kind: "reasoning", text: delta.reasoning_content ?? "" },
      { kind: "text", text: (delta.content ?? "") + calls },
    ].filter(({ text }) => text !== "");
    return written.map(({ kind, text }) => {
      const piece = { kind, text, tokens: this.#tokens };
      this.#tokens = [];
      this.#kind = kind;
      return piece;
    });
  }

  /** Tokens that never wrote anything, such as the end token. */
  end() {
    return this.#tokens.length === 0 ? [] : [{ kind: this.#kind, text: "", tokens: this.#tokens.splice(0) }];
  }
}

function learnTopK(topK) {
  if (topK === undefined || topK === state.topK) return;
  state.topK = topK;
  saveSettings({ ...loadSettings(), topK });
}

function fail(message, error) {
  message.fault = error instanceof ApiError ? error.message : `The page failed: ${error.message}`;
  if (error.status === 401) askForKey();
}

async function send() {
  const text = byId("prompt").value.trim();
  if (text === "" || state.running) return;
  byId("prompt").value = "";
  const message = { role: "user", content: text };
  state.messages.push(message);
  const view = new MessageView(message);
  state.views.push(view);
  log.append(view.node);
  byId("empty").hidden = true;
  scroller.scrollTop = scroller.scrollHeight;
  saveMessages(state.messages);
  await answer();
}

/** Asks again: the last answer makes way for a new one. */
async function retry() {
  if (state.running) return;
  if (state.messages.at(-1)?.role === "assistant") state.messages.pop();
  redraw();
  byId("prompt").focus();
  await answer();
}

function clear() {
  if (state.running) return;
  state.messages = [];
  saveMessages([]);
  redraw();
  byId("prompt").focus();
}

// ---- key and model

async function connect() {
  try {
    state.model = await modelName(state.key);
    byId("model").textContent = state.model;
    byId("key-form").hidden = true;
  } catch (error) {
    if (error.status === 401) askForKey();
    else byId("model").textContent = error.message;
  }
}

function askForKey() {
  byId("key-form").hidden = false;
  byId("key").focus();
  say("This server wants an API key.");
}

async function useKey(event) {
  event.preventDefault();
  state.key = byId("key").value;
  saveKey(state.key);
  await connect();
  if (!byId("key-form").hidden) byId("key-hint").textContent = "The server does not know this key.";
  else byId("prompt").focus();
}

// ---- settings

function showSettings() {
  const { temperature, maxTokens, thinking } = loadSettings();
  byId("temperature").value = temperature ?? "";
  byId("max-tokens").value = maxTokens ?? "";
  byId("thinking").checked = thinking === true;
}

function keepSettings() {
  const numberOf = (id) => (byId(id).value === "" ? undefined : byId(id).valueAsNumber);
  const settings = { temperature: numberOf("temperature"), maxTokens: numberOf("max-tokens"), thinking: byId("thinking").checked };
  saveSettings({ ...loadSettings(), ...settings });
}

// ---- start

byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  void send();
});
byId("prompt").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  void send();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && state.running && !event.target.closest?.(".token")) state.running.abort();
});
byId("stop").addEventListener("click", () => {
  state.running?.abort();
  byId("prompt").focus();
});
byId("clear").addEventListener("click", clear);
byId("key-form").addEventListener("submit", useKey);
byId("settings").addEventListener("change", keepSettings);
window.addEventListener("pagehide", () => {
  if (!state.running) return;
  const message = state.messages.at(-1);
  message.note = "Stopped.";
  saveMessages(state.messages);
});

watchTokens(log, () => state.topK);
showSettings();
redraw();
byId("prompt").focus();
await connect();
