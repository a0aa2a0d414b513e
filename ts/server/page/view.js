/**
 * How messages and their tokens look, and the card that shows a token's layers.
 * @module
 */

import { decodeToken, meanExperts } from "./routing.js";

const byId = (id) => document.getElementById(id);

/** An element with a class, a text and children. */
function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

/** A number with one digit behind the point, in the reader's language. */
export const oneDigit = (value) => value.toLocaleString(undefined, { minimumFractionDigits: 1, maximumFractionDigits: 1 });

/** One message in the log. Only an answer has pieces, thoughts and a foot. */
export class MessageView {
  #message;
  #body = element("div", "text");
  #reasoning = element("div", "text");
  #thoughts = element("details", "reasoning", element("summary", "", "Thoughts"), this.#reasoning);
  #foot = element("div", "foot");

  /** @param {object} message As store.js describes it. */
  constructor(message) {
    this.#message = message;
    this.node = element("li", message.role);
    this.node.setAttribute("aria-label", message.role === "user" ? "You" : "Answer");
    this.#thoughts.open = true;
    this.#thoughts.hidden = true;
    this.node.append(this.#thoughts, this.#body, this.#foot);
    this.#drawAll();
  }

  #drawAll() {
    const { content, reasoning, pieces } = this.#message;
    if (pieces) for (const piece of pieces) this.add(piece);
    else {
      this.#body.textContent = content;
      this.#reasoning.textContent = reasoning ?? "";
      this.#thoughts.hidden = !reasoning;
    }
  }

  /** A piece that has just come. */
  add(piece) {
    const thought = piece.kind === "reasoning";
    if (thought) this.#thoughts.hidden = false;
    (thought ? this.#reasoning : this.#body).append(pieceNode(piece, this.node.querySelector(".token") === null));
  }

  set waiting(waits) {
    this.#body.classList.toggle("waiting", waits);
    this.node.setAttribute("aria-busy", String(waits));
  }

  /** What stands below: a note, a fault, a button to ask again. */
  foot({ note, fault, retry }) {
    const button = element("button", "retry", "Retry");
    button.type = "button";
    button.addEventListener("click", () => retry());
    this.#foot.replaceChildren(
      ...(retry ? [button] : []),
      ...(note ? [element("span", "", note)] : []),
      ...(fault ? [element("span", "fault", fault)] : []),
    );
  }
}

/** A piece's span: coloured by its tokens' experts. A token without text (an end token, half a character) is a dot. */
function pieceNode({ text, tokens }, first) {
  if (tokens.length === 0) return document.createTextNode(text);
  const span = element("span", text === "" ? "token unseen-text" : "token", text === "" ? "·" : text);
  span.style.setProperty("--share", meanExperts(tokens));
  span.dataset.tokens = tokens.join(" ");
  span.tabIndex = first ? 0 : -1;
  span.setAttribute("aria-describedby", "detail");
  return span;
}

/** Figures in the head, and the scale of all colours. */
export function showFigures(figures, topK, speed) {
  byId("routing").hidden = figures.tokens === 0;
  if (figures.tokens === 0) return;
  const { low, high, mean } = figures;
  byId("zero-share").textContent = topK ? (1 - mean / topK).toLocaleString(undefined, { style: "percent" }) : "?";
  byId("mean-experts").textContent = topK ? `${oneDigit(mean)} of ${topK}` : oneDigit(mean);
  byId("token-count").textContent = figures.tokens.toLocaleString();
  byId("speed").textContent = speed ? `, ${oneDigit(speed)} a second` : "";
  byId("scale-low").textContent = oneDigit(low);
  byId("scale-high").textContent = oneDigit(high);
  document.documentElement.style.setProperty("--low", low);
  document.documentElement.style.setProperty("--range", Math.max(high - low, 0.01));
}

/** Shows a token's layers while it is pointed at or has the focus; arrow keys go from token to token. */
export function watchTokens(log, topK) {
  let shown;
  const show = (token) => {
    if (token === shown) return;
    shown?.classList.remove("shown");
    shown = token ?? undefined;
    byId("detail").hidden = shown === undefined;
    if (shown === undefined) return;
    shown.classList.add("shown");
    byId("detail").replaceChildren(...detail(shown, topK()));
    place(byId("detail"), shown);
  };
  const tokenOf = (event) => (event.target instanceof Element ? event.target.closest(".token") : null);
  log.addEventListener("pointerover", (event) => show(tokenOf(event)));
  log.addEventListener("pointerleave", () => show(null));
  log.addEventListener("focusin", (event) => {
    const token = tokenOf(event);
    if (token === null) return;
    for (const other of token.closest("li").querySelectorAll('.token[tabindex="0"]')) other.tabIndex = -1;
    token.tabIndex = 0;
    show(token);
  });
  log.addEventListener("focusout", () => show(null));
  const scroller = log.closest("main");
  scroller.addEventListener("scroll", () => shown && (isWithin(shown, scroller) ? place(byId("detail"), shown) : show(null)), {
    passive: true,
  });
  log.addEventListener("keydown", (event) => {
    const token = tokenOf(event);
    if (token === null) return;
    if (event.key === "Escape") return show(null);
    const tokens = [...token.closest("li").querySelectorAll(".token")];
    const at = tokens.indexOf(token);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tokens.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    tokens[to]?.focus();
  });
}

/** Whether some of the token can be seen in the part of the log that is in view. */
function isWithin(token, scroller) {
  const [at, view] = [token.getBoundingClientRect(), scroller.getBoundingClientRect()];
  return at.bottom > view.top && at.top < view.bottom;
}

/** The card's content: for each token of the piece its mean, and for the piece's layers a bar. */
function detail(span, topK) {
  const tokens = span.dataset.tokens.split(" ");
  const layers = tokens.map(decodeToken);
  const mean = meanExperts(tokens);
  const text = span.classList.contains("unseen-text") ? "a token without text" : JSON.stringify(span.textContent);
  const many = tokens.length > 1 ? ` (${tokens.length} tokens)` : "";
  const of = topK ? ` of ${topK}` : "";
  const head = element("p", "", element("strong", "", text), `${many}: ${oneDigit(mean)}${of} FFN experts a layer`);
  const numLayers = layers[0].length;
  const rows = element("div", numLayers > 12 ? "layers many" : "layers");
  for (let layer = 0; layer < numLayers; layer++) {
    const counts = layers.map((token) => token[layer]);
    const bar = element("span", "bar");
    bar.style.setProperty(
      "--share",
      counts.reduce((sum, count) => sum + count, 0) / counts.length / (topK || Math.max(...layers.flat(), 1)),
    );
    rows.append(element("span", "", `layer ${layer}`), bar, element("span", "", `${counts.join(" + ")}${of}`));
  }
  return [head, rows];
}

/** Puts the card over the token, or under it where it would leave the log; always within the window. */
function place(card, token) {
  // A token that begins with a space may be broken over two lines: the longer part counts.
  const [at] = [...token.getClientRects()].sort((a, b) => b.width - a.width);
  const { width, height } = card.getBoundingClientRect();
  const x = Math.min(Math.max(at.left, 8), document.documentElement.clientWidth - width - 8);
  const above = at.top - height - 6;
  card.style.setProperty("--x", `${x}px`);
  card.style.setProperty("--y", `${above > token.closest("main").getBoundingClientRect().top ? above : at.bottom + 6}px`);
}
