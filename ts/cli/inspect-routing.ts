/**
 * `longcat inspect routing`: how many FFN experts the tokens of texts choose, and which.
 * @module
 */

import { inspect, type LayerRouting, type RoutingAnalysis, type RoutingData } from "../index.js";
import { plotSvg } from "../train/plot.js";
import { chartFile, writeChart } from "./chart-file.js";
import { type Command, JSON_FLAG } from "./command.js";
import { BENCH_ENGINE_FLAGS, engineOptions } from "./engine-flags.js";
import type { ParsedFlags } from "./flags.js";
import { interruptible } from "./interrupt.js";
import { alignColumns, note, print, printJson } from "./output.js";
import { ProgressBar } from "./progress.js";
import { DATA_FLAGS, ROUTING_FORM, readData, splitWords } from "./routing-data.js";
import { routingPage } from "./routing-page.js";

/** Tokens of each data set that a page shows where nothing is said. */
const PAGE_TOKENS = 2000;
const MOST_TEXTS = 10_000;
/** Experts that a line of the table names. */
const NAMED = 3;

export const inspectRoutingCommand: Command = {
  usage: [`${ROUTING_FORM} [flags]`, "inspect routing [DIR] [--data NAME=FILE]… [--file FILE]… [--tokens 1,2,3] [flags]"],
  about:
    "Runs texts as prompts and prints how many FFN experts their tokens choose (the rest of top-k are zero experts), by data set and by layer: of a mean token,\n" +
    "the standard deviation between tokens, the share of zero experts; and the load of FFN experts, 1 being that of a mean one. Each TEXT is a data set\n" +
    'of its own; - is standard input. A file is one text; .jsonl has one a line: {"text"}, {"messages", "tools"?, "enable_thinking"?}, {"tokens"} or [ids],\n' +
    ".json one such document. Texts longer than the context are cut, and each piece sees nothing of those before it. The numbers depend on no batch size.\n" +
    "DIR is the checkpoint's folder; where all texts are files or ids it may be left out, and the bundled mini is meant.",
  flags: [
    ...DATA_FLAGS,
    {
      name: "html",
      kind: "text",
      value: "FILE",
      help: "writes a page of tokens, each coloured by its FFN experts, layer by layer on demand",
    },
    { name: "svg", kind: "text", value: "FILE", help: "writes a picture: FFN experts of a mean token by layer" },
    {
      ...{ name: "keep-tokens", kind: "number", value: "N" },
      help: `tokens of each data set given one by one, in the page (default ${PAGE_TOKENS}) and with --json (default 0 without --html)`,
    },
    ...BENCH_ENGINE_FLAGS.filter(({ name }) => name !== "model" && name !== "no-prefix-cache"),
    JSON_FLAG,
  ],
  maxPositionals: 1 + MOST_TEXTS,
  run: async (flags) => {
    const [html, svg] = [chartFile(flags, "html"), chartFile(flags)];
    const { directory, texts } = await splitWords(flags);
    const data = await readData(flags, texts);
    const keepTokens = flags.number("keep-tokens") ?? (html === undefined ? 0 : PAGE_TOKENS);
    const analysis = await analyse(flags, directory, data, keepTokens);
    if (flags.on("json")) await printJson(analysis);
    else await print(describeRouting(analysis));
    writeChart(html, () => routingPage(analysis), "html");
    writeChart(svg, () => chart(analysis));
    return undefined;
  },
};

async function analyse(flags: ParsedFlags, directory: string | undefined, data: RoutingData, keepTokens: number): Promise<RoutingAnalysis> {
  const { parallel: _, speculative: __, prefixCache: ___, ...options } = engineOptions(flags);
  const [loading, bar] = [new ProgressBar("Loading"), new ProgressBar("Routing")];
  try {
    return await interruptible((signal) =>
      inspect.routing(directory, data, {
        ...{ ...options, keepTokens, signal },
        onProgress: ({ doneBytes, totalBytes }) => loading.update(totalBytes === 0 ? 1 : doneBytes / totalBytes),
        onWarning: (message) => {
          loading.end();
          note(`warning: ${message}`);
        },
        onRouted: (done, total) => {
          loading.end();
          bar.update(done / total);
        },
      }),
    );
  } finally {
    loading.end();
    bar.end();
  }
}

/** Three blocks: the model, data sets, and their layers. */
export function describeRouting({ directory, numLayers, numExperts, numZeroExperts, topK, evenFfnExperts, data }: RoutingAnalysis): string {
  const model =
    `${directory}: ${numLayers} layers, each with ${numExperts} FFN experts and ${numZeroExperts} zero experts, of which a token chooses ${topK}; ` +
    `even use of all is ${evenFfnExperts.toFixed(2)} FFN experts`;
  const sets = data.map(({ name, texts, pieces, tokens, ffnExpertsPerToken, deviation, zeroExpertShare }) => [
    ...[name, texts, pieces, tokens, ...cells({ ffnExpertsPerToken, deviation, zeroExpertShare })],
  ]);
  const layers = data.flatMap(({ name, layers: each }) => each.map((layer, l) => [name, l, ...cells(layer), ...loadCells(layer)]));
  const head = ["FFN experts", "deviation", "zero experts"];
  return [
    model,
    alignColumns([["data", "texts", "pieces", "tokens", ...head], ...sets]),
    alignColumns([["data", "layer", ...head, "least load", "most", "variation", "busiest experts"], ...layers]),
    "",
  ].join("\n\n");
}

function cells({ ffnExpertsPerToken, deviation, zeroExpertShare }: Omit<LayerRouting, "load">): string[] {
  return [ffnExpertsPerToken.toFixed(3), deviation.toFixed(3), `${(100 * zeroExpertShare).toFixed(1)} %`];
}

function loadCells({ load: { tokens, mean, min, max, variation, busiest } }: LayerRouting): string[] {
  const share = (count: number) => (mean === 0 ? 0 : count / mean).toFixed(2);
  const named = busiest.slice(0, NAMED).map((expert) => `${expert} (${share(tokens[expert]!)})`);
  return [share(min), share(max), variation.toFixed(2), named.join(", ")];
}

/** A line a data set. */
function chart({ directory, data }: RoutingAnalysis): string {
  return plotSvg({
    ...{ title: `Routing of ${directory}`, x: "layer", y: "FFN experts of a mean token" },
    series: data.map(({ name, layers }) => ({ name, points: layers.map((layer, l) => [l, layer.ffnExpertsPerToken] as const) })),
  });
}
