/**
 * Hyper-parameter transfer (the report's table for standard parameterisation): with rates and spreads set by it, a target s times wider
 * has its proxy's best rate; with the proxy's own rates and spreads it has another.
 * @module
 */

import { initialSpread } from "../train/parameters.js";
import { type Experiment, LAB_MODEL, labRun, mean } from "./experiment.js";

const PROXY_WIDTH = 16;

/** s, the report's. */
const TIMES_WIDER = 8;

export const transfer: Experiment = {
  name: "transfer",
  claim: "a target s times wider whose rates and variances follow the table has the best rate of its proxy; without the table it has not",
  run: async (lab) => {
    const steps = lab.brief ? 60 : 200;
    const seeds = lab.brief ? [1] : [1, 2, 3];
    const rates = lab.brief ? [0.005, 0.02, 0.08] : [0.00125, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08];
    const target = PROXY_WIDTH * TIMES_WIDER;
    const kinds = [
      { name: `proxy, width ${PROXY_WIDTH}`, width: PROXY_WIDTH, divisor: 1 },
      { name: `width ${target}, by the table`, width: target, divisor: TIMES_WIDER },
      { name: `width ${target}, without it`, width: target, divisor: 1 },
    ];
    const tried: Tried[] = [];
    for (const { name, width, divisor } of kinds) {
      const losses: number[] = [];
      for (const rate of rates) {
        const ofSeeds: number[] = [];
        for (const seed of seeds) {
          const run = labRun(steps, { seed, model: modelOf(width), ...settings(rate, divisor), schedule: { warmup: steps / 10 } });
          ofSeeds.push((await lab.train(run)).heldOutLoss);
        }
        losses.push(mean(ofSeeds));
      }
      tried.push({ name, losses });
    }
    const [proxy, byTable, without] = tried.map(({ losses }) => losses.indexOf(Math.min(...losses))) as [number, number, number];
    const times = (one: number) => Math.max(rates[one]! / rates[proxy]!, rates[proxy]! / rates[one]!);
    const [tableLosses, plainLosses] = [tried[1]!.losses, tried[2]!.losses];
    const cost = (losses: readonly number[]) => (losses[proxy]! - Math.min(...losses)).toFixed(3);
    return {
      table: [
        ["rate", ...tried.map(({ name }) => name)],
        ...rates.map((rate, i) => [String(rate), ...tried.map(({ losses }) => losses[i]!.toFixed(3))]),
      ],
      verdict:
        `of rates ${rates[1]! / rates[0]!} times apart the best is ${rates[proxy]} for the proxy, ${rates[byTable]} for the target by the table and ${rates[without]} without it; ` +
        `the proxy's best costs the target ${cost(tableLosses)} of held-out loss by the table and ${cost(plainLosses)} without it`,
      // Losses are flat around the best rate: one half or twice as large counts as the same, so without the table it must be off by more.
      agrees: times(byTable) <= 2 && times(without) >= 4,
      plot: {
        ...{ title: `Held-out loss after ${steps} steps, mean of ${seeds.length} seeds` },
        ...{ x: "rate of the embedding (logarithmic)", y: "held-out loss", logX: true },
        series: tried.map(({ name, losses }) => ({ name, points: rates.map((rate, i) => [rate, losses[i]!] as const) })),
      },
    };
  },
};

/** Held-out loss of each rate. */
interface Tried {
  name: string;
  losses: number[];
}

/** The model of the experiments at another width: ranks and FFNs with it, more heads, the same experts. */
function modelOf(width: number): Record<string, unknown> {
  const times = width / LAB_MODEL.hidden_size;
  const fields = [
    "hidden_size",
    "num_attention_heads",
    "q_lora_rank",
    "kv_lora_rank",
    "ffn_hidden_size",
    "expert_ffn_hidden_size",
  ] as const;
  return { ...LAB_MODEL, ...Object.fromEntries(fields.map((field) => [field, times * LAB_MODEL[field]])) };
}

/** The table's rows, from the proxy's: an embedding keeps all; hidden matrices' and the head's rate and variance are divided by s. Norms: as the embedding. */
function settings(rate: number, s: number) {
  const { embedding, hidden, head } = initialSpread({ hiddenSize: PROXY_WIDTH });
  return {
    rate: { embedding: rate, hidden: rate / s, head: rate / s, norm: rate },
    spread: { embedding, hidden: hidden / Math.sqrt(s), head: head / Math.sqrt(s) },
  };
}
