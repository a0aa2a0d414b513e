/**
 * Routing as one HTML file: tables, and each token coloured by the FFN experts that it chose, in a mean layer or in one. Nothing is loaded from elsewhere,
 * so it works from a disk; nothing of a text becomes markup.
 * @module
 */

import type { RoutedToken, RoutingAnalysis } from "../index.js";

/** The whole page. */
export function routingPage(analysis: RoutingAnalysis): string {
  const { directory, numLayers, numExperts, numZeroExperts, topK, evenFfnExperts, data } = analysis;
  const layers = Array.from({ length: numLayers }, (_, l) => l);
  const facts =
    `${numLayers} layers, each with ${numExperts} FFN experts and ${numZeroExperts} zero experts, of which a token chooses ${topK}; ` +
    `if all were chosen alike, ${evenFfnExperts.toFixed(2)} of them would be FFN experts.`;
  const head = ["data", "tokens", "FFN experts", "deviation", "zero experts", ...layers.map((l) => `layer ${l}`)];
  const rows = data.map(({ name, tokens, ffnExpertsPerToken, deviation, zeroExpertShare, layers: each }) => [
    ...[name, String(tokens), ffnExpertsPerToken.toFixed(2), deviation.toFixed(2), `${(100 * zeroExpertShare).toFixed(1)} %`],
    ...each.map((layer) => layer.ffnExpertsPerToken.toFixed(2)),
  ]);
  const options = ["mean of all layers", ...layers.map((l) => `layer ${l}`)];
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>Routing of ${escapeHtml(directory)}</title>
<style>${STYLE}</style>
<h1>Routing of ${escapeHtml(directory)}</h1>
<p>${escapeHtml(facts)}</p>
<div class="wide"><table>
<tr>${head.map((cell) => `<th>${escapeHtml(cell)}</th>`).join("")}</tr>
${rows.map((row) => `<tr>${row.map((cell) => `<td>${escapeHtml(cell)}</td>`).join("")}</tr>`).join("\n")}
</table></div>
<p><label>Colour: FFN experts, <select id="layer">${options.map((name, i) => `<option value="${i - 1}">${name}</option>`).join("")}</select></label>
<span id="least"></span> <span id="scale"></span> <span id="most"></span></p>
<noscript><p>Colours need this page's script.</p></noscript>
${data.map(({ name, tokens, kept }) => section(name, tokens, kept)).join("\n")}
<script>${SCRIPT}</script>
</html>
`;
}

function section(name: string, tokens: number, kept: readonly (readonly RoutedToken[])[]): string {
  const shown = kept.reduce((sum, piece) => sum + piece.length, 0);
  const part = shown < tokens ? ` <small>the first ${shown} of ${tokens} tokens</small>` : "";
  return `<h2>${escapeHtml(name)}${part}</h2>\n${kept.map((piece) => `<p class="text">${piece.map(span).join("")}</p>`).join("\n")}`;
}

/** One token. What it chose goes along as numbers; the script does the rest. */
function span(token: RoutedToken): string {
  const { className, label } = appearance(token);
  return `<span class="${className}" data-id="${token.token}" data-ffn="${token.ffnExperts.join(",")}">${escapeHtml(label)}</span>`;
}

/** How a token looks: as its text; one that does not end a character as its bytes; one without either as its id. */
function appearance({ token, text, bytes, special }: RoutedToken): { className: string; label: string } {
  if (special) return { className: "t special", label: visible(text) };
  if (text !== "") return { className: "t", label: visible(text) };
  const label = bytes.length > 0 ? bytes.map((byte) => byte.toString(16).toUpperCase().padStart(2, "0")).join(" ") : `#${token}`;
  return { className: "t raw", label };
}

/** Line breaks keep breaking, behind a sign; other control characters, and those that turn the direction of writing, become their numbers. */
function visible(text: string): string {
  return text
    .replaceAll(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, (sign) =>
      sign === "\n" || sign === "\t" || sign === "\u200d" ? sign : `\\u${sign.codePointAt(0)!.toString(16).padStart(4, "0")}`,
    )
    .replaceAll("\n", "↵\n");
}

const ENTITIES: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };

function escapeHtml(text: string): string {
  return text.replaceAll(/[&<>"']/g, (sign) => ENTITIES[sign]!);
}

const STYLE = `
body { font: 15px/1.5 system-ui, sans-serif; color: #111; background: #fff; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.3rem; overflow-wrap: anywhere } h2 { font-size: 1.1rem } small { font-weight: normal; color: #555 }
.wide { overflow-x: auto } table { border-collapse: collapse } th, td { padding: .15rem .6rem; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left } tr + tr { border-top: 1px solid #ddd }
#scale { display: inline-block; width: 8rem; height: .8rem; background: linear-gradient(90deg, rgb(214 84 16 / 0), rgb(214 84 16 / .85)); border: 1px solid #ccc }
.text { white-space: pre-wrap; overflow-wrap: anywhere; border-left: 3px solid #ddd; padding-left: .8rem }
.t { unicode-bidi: isolate; border-radius: 2px; box-shadow: 0 0 0 .5px #ddd }
.special, .raw { font: .8em ui-monospace, monospace; color: #444; border: 1px solid #999; padding: 0 .2em }
.raw { border-style: dotted }
`;

/** Colours run from the least to the most that any token of the page has, so that data sets compare. */
const SCRIPT = `
const tokens = [...document.querySelectorAll(".t")].map((span) => ({ span, ffn: span.dataset.ffn.split(",").map(Number) }));
const mean = (ffn) => ffn.reduce((sum, n) => sum + n, 0) / ffn.length;
const select = document.getElementById("layer");
function paint() {
  const layer = Number(select.value);
  const values = tokens.map(({ ffn }) => (layer < 0 ? mean(ffn) : ffn[layer]));
  const least = values.reduce((a, b) => Math.min(a, b), Infinity), most = values.reduce((a, b) => Math.max(a, b), -Infinity);
  tokens.forEach(({ span }, i) => {
    const share = most > least ? (values[i] - least) / (most - least) : 0;
    span.style.backgroundColor = "rgb(214 84 16 / " + (0.85 * share).toFixed(3) + ")";
  });
  document.getElementById("least").textContent = tokens.length ? least.toFixed(2) : "";
  document.getElementById("most").textContent = tokens.length ? most.toFixed(2) : "";
}
for (const { span, ffn } of tokens)
  span.addEventListener("pointerenter", () => {
    span.title = "token " + span.dataset.id + ": " + mean(ffn).toFixed(2) + " FFN experts; by layer " + ffn.join(" ");
  });
select.addEventListener("change", paint);
paint();
`;
