/**
 * `longcat bench serve`: an open-loop load against an OpenAI-compatible server on this machine.
 * @module
 */

import { CompletionClient, KeyWanted } from "../bench/completion-client.js";
import { loopbackTarget } from "../bench/loopback.js";
import { parseLengths } from "../bench/random.js";
import { loadChart } from "../bench/serve-chart.js";
import { type LoadPlan, runLoad } from "../bench/serve-load.js";
import { type Latency, type LoadReport, reportLoad } from "../bench/serve-report.js";
import { LongcatError } from "../index.js";
import { numberOr } from "./bench-flags.js";
import { chartFile, writeChart } from "./chart-file.js";
import { type Command, JSON_FLAG } from "./command.js";
import { type ParsedFlags, UsageError } from "./flags.js";
import { interruptible } from "./interrupt.js";
import { alignColumns, note, print, printJson } from "./output.js";

const DEFAULTS = { rate: 4, duration: 30, prompt: "uniform:32:128", output: "uniform:16:64", ttft: 500, tpot: 50, timeout: 120 };

export const benchServeCommand: Command = {
  usage: [
    "bench serve --url http://127.0.0.1:PORT [--rate R | --concurrency N] [--duration S] [--prompt-tokens LENGTHS] [--output-tokens LENGTHS] …",
  ],
  about:
    "Sends streamed completions of random token ids to a server on this machine; other addresses are refused. Requests arrive as a Poisson\n" +
    "process and do not wait for each other (open loop). LENGTHS is 64, uniform:16:256 or lognormal:64:0.8:512 (median, sigma, largest).\n" +
    "Goodput counts requests whose first token and whose later tokens, on average, came within the limits. The same seed sends the same load.",
  flags: [
    { name: "url", kind: "text", value: "URL", help: "the server, http://127.0.0.1:8000 for instance" },
    { name: "rate", kind: "number", value: "R", help: `requests a second, on average (default ${DEFAULTS.rate})` },
    { name: "concurrency", kind: "number", value: "N", help: "instead of a rate: N at a time, each sent when one has ended (closed loop)" },
    { name: "duration", kind: "number", value: "S", help: `seconds in which requests arrive (default ${DEFAULTS.duration})` },
    { name: "prompt-tokens", kind: "text", value: "LENGTHS", help: `tokens of a prompt (default ${DEFAULTS.prompt})` },
    { name: "output-tokens", kind: "text", value: "LENGTHS", help: `tokens of an answer (default ${DEFAULTS.output})` },
    { name: "shared-prefix", kind: "number", value: "N", help: "tokens that all prompts begin with, before those drawn (default 0)" },
    { name: "seed", kind: "number", value: "N", help: "of the load (default 0)" },
    { name: "ttft-limit", kind: "number", value: "MS", help: `goodput: most time to the first token (default ${DEFAULTS.ttft})` },
    { name: "tpot-limit", kind: "number", value: "MS", help: `goodput: most time a later token, on average (default ${DEFAULTS.tpot})` },
    { name: "timeout", kind: "number", value: "S", help: `seconds until a request has failed (default ${DEFAULTS.timeout})` },
    { name: "model", kind: "text", value: "NAME", help: "the model's id (default: the first of /v1/models)" },
    { name: "api-key", kind: "text", value: "K", help: "sent as Authorization: Bearer K" },
    { name: "plain", kind: "flag", help: "OpenAI's own fields only: no ignore_eos, so answers may end early" },
    { name: "svg", kind: "text", value: "FILE", help: "write the distributions of latencies as a picture" },
    JSON_FLAG,
  ],
  maxPositionals: 0,
  run: (flags) => interruptible((signal) => bench(flags, signal)),
};

/** The exit code: 1 where not one request was answered. */
async function bench(flags: ParsedFlags, signal: AbortSignal): Promise<number> {
  const url = flags.text("url");
  if (url === undefined) throw new UsageError("bench serve needs --url, the address of a server on this machine");
  const limits = {
    ttftMs: positive(flags, "ttft-limit", DEFAULTS.ttft),
    tpotMs: positive(flags, "tpot-limit", DEFAULTS.tpot),
  };
  const drawn = loadOf(flags);
  const svg = chartFile(flags);
  const target = await loopbackTarget(url);
  const client = new CompletionClient(target, flags.text("api-key"));
  try {
    const plan: LoadPlan = { ...drawn, model: flags.text("model") ?? (await modelOf(client)) };
    if (!flags.on("json")) note(`${describePlan(plan)} to ${target.url}`);
    const { requests, wallS } = await runLoad(client, plan, signal);
    signal.throwIfAborted();
    const report = reportLoad(requests, wallS, limits);
    const load = { ...plan, url: target.url, promptTokens: plan.promptTokens.written, outputTokens: plan.outputTokens.written };
    if (flags.on("json")) await printJson({ load, ...report });
    else await print(describe(report));
    writeChart(svg, () => loadChart(describePlan(plan), requests, report));
    return report.ok === 0 ? 1 : 0;
  } catch (error) {
    if (signal.aborted) throw new LongcatError("ABORTED", "the bench was interrupted", { cause: error });
    throw error;
  } finally {
    client.close();
  }
}

function loadOf(flags: ParsedFlags): Omit<LoadPlan, "model"> {
  if (flags.text("rate") !== undefined && flags.text("concurrency") !== undefined)
    throw new UsageError("--rate and --concurrency exclude each other");
  return {
    rate: positive(flags, "rate", DEFAULTS.rate),
    concurrency: numberOr(flags, "concurrency", 1, 10_000, undefined),
    durationS: positive(flags, "duration", DEFAULTS.duration),
    promptTokens: parseLengths("prompt-tokens", flags.text("prompt-tokens") ?? DEFAULTS.prompt),
    outputTokens: parseLengths("output-tokens", flags.text("output-tokens") ?? DEFAULTS.output),
    sharedPrefix: numberOr(flags, "shared-prefix", 0, 1_000_000, 0),
    seed: numberOr(flags, "seed", 0, 2 ** 32 - 1, 0),
    timeoutS: positive(flags, "timeout", DEFAULTS.timeout),
    ignoreEos: !flags.on("plain"),
  };
}

function positive(flags: ParsedFlags, name: string, absent: number): number {
  const value = flags.number(name) ?? absent;
  if (!(value > 0 && value <= 1e6)) throw new UsageError(`--${name}: ${value} is not a number above 0 and up to 1000000`);
  return value;
}

async function modelOf(client: CompletionClient): Promise<string> {
  try {
    return await client.model();
  } catch (error) {
    const why =
      error instanceof KeyWanted
        ? `the server wants a key: give --api-key (${error.message})`
        : `no OpenAI-compatible server answers there: ${(error as Error).message}`;
    throw new LongcatError("OPTION_INVALID", `url: ${why}`, { cause: error });
  }
}

function describePlan({ rate, concurrency, durationS, promptTokens, outputTokens, sharedPrefix, seed }: LoadPlan): string {
  const pace = concurrency === undefined ? `${rate} requests/s` : `${concurrency} requests at a time`;
  const prefix = sharedPrefix > 0 ? `${sharedPrefix} shared and ` : "";
  return `${pace} for ${durationS} s, prompts ${prefix}${promptTokens.written}, answers ${outputTokens.written}, seed ${seed}`;
}

/** The table. */
function describe(report: LoadReport): string {
  const ms = (value: number | null) => (value === null ? "-" : value.toFixed(1));
  const row = (name: string, { mean, p50, p95, p99, max }: Latency) => [
    name,
    ...[mean, p50, p95, p99, max].map((value) => ms(value).padStart(9)),
  ];
  const { limits } = report;
  const lines = [
    `requests   ${report.requests}: ${report.ok} answered, ${report.refused} refused, ${report.failed} failed, in ${report.wallS.toFixed(1)} s`,
    `throughput ${report.requestsPerSecond.toFixed(2)} requests/s, ${report.outputTokensPerSecond.toFixed(0)} tokens/s out, ` +
      `${report.promptTokensPerSecond.toFixed(0)} tokens/s in (${(100 * report.cachedShare).toFixed(0)} % from the prefix cache)`,
    `goodput    ${report.goodputPerSecond.toFixed(2)} requests/s, ${(100 * report.goodShare).toFixed(0)} % of all ` +
      `(first token within ${limits.ttftMs} ms, later ones within ${limits.tpotMs} ms each)`,
    "",
    alignColumns([
      ["ms", ...["mean", "p50", "p95", "p99", "max"].map((head) => head.padStart(9))],
      row("first token", report.ttftMs),
      row("between tokens", report.interTokenMs),
      row("a later token", report.tpotMs),
      row("whole answer", report.endToEndMs),
      row("sent late", report.lateMs),
    ]),
  ];
  return `${[...lines, ...report.errors.map((error) => `error: ${error}`)].join("\n")}\n`;
}
