/**
 * Counters and histograms as Prometheus reads them. Names are vLLM's where the meaning is the same, so that its dashboards fit.
 * @module
 */

import { type IntervalHistogram, monitorEventLoopDelay } from "node:perf_hooks";
import type { EngineStats } from "../index.js";

const SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120];
const STEP_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1];

/** How often the event loop's delay is looked at. */
const LOOK_EVERY_MS = 10;

/** A label set as text: `{a="b"}`. */
function labels(values: Readonly<Record<string, string>>): string {
  const escaped = (text: string): string => text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n").replaceAll('"', '\\"');
  return `{${Object.entries(values)
    .map(([name, value]) => `${name}="${escaped(value)}"`)
    .join(",")}}`;
}

/** Counts by bucket. */
class Histogram {
  readonly #bounds: readonly number[];
  readonly #counts: number[];
  #sum = 0;

  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
    this.#counts = new Array<number>(bounds.length + 1).fill(0);
  }

  observe(value: number): void {
    const at = this.#bounds.findIndex((bound) => value <= bound);
    const i = at < 0 ? this.#bounds.length : at;
    this.#counts[i] = (this.#counts[i] as number) + 1;
    this.#sum += value;
  }

  lines(name: string, base: Readonly<Record<string, string>>): string[] {
    let total = 0;
    const buckets = [...this.#bounds.map(String), "+Inf"].map((le, i) => {
      total += this.#counts[i] as number;
      return `${name}_bucket${labels({ ...base, le })} ${total}`;
    });
    return [...buckets, `${name}_sum${labels(base)} ${this.#sum}`, `${name}_count${labels(base)} ${total}`];
  }
}

/** One metric of the page. */
interface Metric {
  name: string;
  type: "counter" | "gauge" | "histogram";
  help: string;
  lines(name: string, base: Readonly<Record<string, string>>): string[];
}

const plain = (name: string, type: Metric["type"], help: string, value: number): Metric => ({
  name,
  type,
  help,
  lines: (line, base) => [`${line}${labels(base)} ${value}`],
});

const byLabel = (
  name: string,
  help: string,
  label: readonly string[],
  counts: ReadonlyMap<string, number>,
  type: Metric["type"] = "counter",
): Metric => ({
  name,
  type,
  help,
  lines: (line, base) =>
    [...counts].map(([key, count]) => {
      const values = key.split("\n");
      return `${line}${labels({ ...base, ...Object.fromEntries(label.map((one, i) => [one, values[i] ?? ""])) })} ${count}`;
    }),
});

function add(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}

export class Metrics {
  readonly #responses = new Map<string, number>();
  readonly #finished = new Map<string, number>(["stop", "length", "tool_calls", "abort"].map((reason) => [reason, 0]));
  readonly #firstToken = new Histogram(SECONDS);
  readonly #betweenTokens = new Histogram(STEP_SECONDS);
  readonly #latency = new Histogram(SECONDS);
  readonly #delay: IntervalHistogram = monitorEventLoopDelay({ resolution: LOOK_EVERY_MS });
  #promptTokens = 0;

  constructor() {
    this.#delay.enable();
  }

  close(): void {
    this.#delay.disable();
  }

  response(route: string, status: number): void {
    add(this.#responses, `${route}\n${status}`);
  }

  /** A choice has ended; `abort` for an answer that nobody waited for. */
  finished(reason: string): void {
    add(this.#finished, reason);
  }

  firstToken(seconds: number): void {
    this.#firstToken.observe(seconds);
  }

  betweenTokens(seconds: number): void {
    this.#betweenTokens.observe(seconds);
  }

  answered(promptTokens: number, seconds: number): void {
    this.#promptTokens += promptTokens;
    this.#latency.observe(seconds);
  }

  /** The page of `/metrics`. `stats` is absent while the model loads. */
  page(model: string, stats: EngineStats | undefined): string {
    const base = { model_name: model };
    const metrics = [...(stats === undefined ? [] : engineMetrics(stats)), ...this.#requestMetrics(), ...this.#processMetrics()];
    const lines = metrics.flatMap(({ name, type, help, lines: of }) => [
      `# HELP ${name} ${help}`,
      `# TYPE ${name} ${type}`,
      ...of(name, base),
    ]);
    return `${lines.join("\n")}\n`;
  }

  #requestMetrics(): Metric[] {
    const histogram = (name: string, help: string, of: Histogram): Metric => ({
      name,
      type: "histogram",
      help,
      lines: (line, base) => of.lines(line, base),
    });
    return [
      plain("vllm:prompt_tokens_total", "counter", "Prompt tokens of finished requests.", this.#promptTokens),
      byLabel("vllm:request_success_total", "Finished choices, by what ended them.", ["finished_reason"], this.#finished),
      histogram("vllm:time_to_first_token_seconds", "From a request to its first token.", this.#firstToken),
      histogram("vllm:inter_token_latency_seconds", "Between tokens of streams of one choice.", this.#betweenTokens),
      histogram("vllm:e2e_request_latency_seconds", "From a request to the end of its answer.", this.#latency),
      byLabel("longcat_http_responses_total", "Answers, by route and status.", ["route", "status"], this.#responses),
    ];
  }

  #processMetrics(): Metric[] {
    // Node's histogram has the time between two looks: a stall is what is beyond their interval.
    const delay = Math.max(0, this.#delay.max / 1e6 - LOOK_EVERY_MS) / 1000;
    this.#delay.reset();
    return [
      plain("longcat_event_loop_delay_max_seconds", "gauge", "Longest stall of the event loop since the last look.", delay),
      plain("process_resident_memory_bytes", "gauge", "Resident memory of this process.", process.memoryUsage.rss()),
    ];
  }
}

function engineMetrics(stats: EngineStats): Metric[] {
  return [
    plain("vllm:num_requests_running", "gauge", "Sequences that run.", stats.runningSequences),
    plain("vllm:num_requests_waiting", "gauge", "Sequences that wait.", stats.waitingSequences),
    plain("vllm:kv_cache_usage_perc", "gauge", "Share of cache blocks in use, 0 to 1.", stats.blocksInUse / Math.max(1, stats.numBlocks)),
    plain("vllm:generation_tokens_total", "counter", "Generated tokens.", stats.generatedTokens),
    plain("vllm:prefix_cache_queries_total", "counter", "Prompt tokens looked for in the prefix cache.", stats.prefixQueryTokens),
    plain("vllm:prefix_cache_hits_total", "counter", "Prompt tokens found in the prefix cache.", stats.prefixHitTokens),
    plain("vllm:num_preemptions_total", "counter", "Times that a sequence gave way for want of cache.", stats.preemptions),
    ...speculationMetrics(stats.speculation),
    plain("longcat_steps_total", "counter", "Steps of the engine.", stats.steps),
    plain("longcat_step_seconds_total", "counter", "Time in which a step was under way.", stats.stepSeconds),
    plain("longcat_device_idle_seconds_total", "counter", "Time between steps although there was work.", stats.idleSeconds),
    plain("longcat_cache_blocks_in_use", "gauge", "Cache blocks in use.", stats.blocksInUse),
    ...rankMetrics(stats.ranks ?? []),
  ];
}

/** What each of several ranks does; under names of their own, so that nothing is counted twice. */
function rankMetrics(ranks: readonly EngineStats[]): Metric[] {
  const byRank = (name: string, type: Metric["type"], help: string, of: (stats: EngineStats) => number): Metric =>
    byLabel(name, help, ["rank"], new Map(ranks.map((stats, rank) => [String(rank), of(stats)])), type);
  if (ranks.length === 0) return [];
  return [
    byRank("longcat_rank_requests_running", "gauge", "Sequences that run, by rank.", (stats) => stats.runningSequences),
    byRank("longcat_rank_requests_waiting", "gauge", "Sequences that wait, by rank.", (stats) => stats.waitingSequences),
    byRank("longcat_rank_cache_blocks_in_use", "gauge", "Cache blocks in use, by rank.", (stats) => stats.blocksInUse),
    byRank("longcat_rank_prompt_tokens_total", "counter", "Prompt tokens that ran, by rank.", (stats) => stats.promptTokens),
    byRank("longcat_rank_generation_tokens_total", "counter", "Generated tokens, by rank.", (stats) => stats.generatedTokens),
    byRank(
      "longcat_rank_prefix_cache_hits_total",
      "counter",
      "Prompt tokens found in the prefix cache, by rank.",
      (stats) => stats.prefixHitTokens,
    ),
    byRank("longcat_rank_steps_total", "counter", "Steps in which the rank had rows of its own, by rank.", (stats) => stats.steps),
    byRank(
      "longcat_rank_idle_seconds_total",
      "counter",
      "Time between steps although there was work, by rank.",
      (stats) => stats.idleSeconds,
    ),
  ];
}

function speculationMetrics({ drafts, speedup, ...counts }: EngineStats["speculation"]): Metric[] {
  const byPlace = new Map(counts.acceptedByPlace.map((count, place) => [String(place), count]));
  return [
    plain("vllm:spec_decode_num_drafts_total", "counter", "Steps of a sequence that verified drafts.", counts.draftedSteps),
    plain("vllm:spec_decode_num_draft_tokens_total", "counter", "Drafts that were verified.", counts.draftTokens),
    plain("vllm:spec_decode_num_accepted_tokens_total", "counter", "Drafts that were accepted.", counts.acceptedTokens),
    byLabel("vllm:spec_decode_num_accepted_tokens_per_pos_total", "Accepted drafts, by place in a step.", ["position"], byPlace),
    plain("longcat_drafts", "gauge", "Drafts that a sequence's step verifies now; 0: speculation is off.", drafts),
    // What was not measured is not told.
    ...(speedup === undefined
      ? []
      : [plain("longcat_speculation_speedup", "gauge", "How much faster tokens come with drafts than without.", speedup)]),
  ];
}
