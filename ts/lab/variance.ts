/**
 * Variances at initialisation (Eq. 6 to 8): MLA's scale factors bring queries and keys that come through narrow latents to the variance
 * of those that do not, and γ brings the sum of finely cut experts to that of whole ones.
 * @module
 */

import type { Tensor } from "../runtime/device.js";
import type { Forwarded } from "../train/trainer.js";
import { type Experiment, LAB_MODEL, labRun, mean, type Outcome } from "./experiment.js";

/** Wide enough for latents eight times narrower, and experts cut in eight. */
const MODEL = {
  ...LAB_MODEL,
  ...{ hidden_size: 128, num_layers: 1, vocab_size: 512, num_attention_heads: 4, qk_nope_head_dim: 32, qk_rope_head_dim: 16 },
  ...{ n_routed_experts: 4, zero_expert_num: 0, moe_topk: 2, expert_ffn_hidden_size: 128 },
};

/** Sequences of 34 tokens, most of them different. */
const TASK = { kind: "copy", symbols: 508, length: 16 };

/** How many times narrower latents are than the hidden state; and m, the parts that an expert is cut in. */
const TIMES = [1, 2, 4, 8];

/** Variances this near to what they should be count as that: they differ by chance from seed to seed. */
const TOLERANCE = 0.2;

/** What is measured, in a model's first layer. */
const NAMES = ["q^C", "q^R", "k^C", "k^R", "experts"] as const;
type Variances = Record<(typeof NAMES)[number], number>;

export const variance: Experiment = {
  name: "variance",
  claim:
    "at initialisation the variances of queries and of k^C go with the widths of their latents, that of k^R with the hidden one; the scale " +
    "factors make them one. Experts cut in m parts give 1 / m² of the variance, with γ = m the same",
  run: async (lab) => {
    const seeds = lab.brief ? [1, 2] : [1, 2, 3, 4, 5, 6, 7, 8];
    const over = async (changes: Record<string, unknown>): Promise<Variances> => {
      const all: Variances[] = [];
      for (const seed of seeds) all.push(await lab.atStart(labRun(1, { seed, model: { ...MODEL, ...changes }, task: TASK }), variancesOf));
      return Object.fromEntries(NAMES.map((name) => [name, mean(all.map((one) => one[name]))])) as Variances;
    };
    const rows: Row[] = [];
    for (const times of TIMES) {
      const narrow = { q_lora_rank: MODEL.hidden_size / times, kv_lora_rank: MODEL.hidden_size / times };
      const fine = {
        ...{ n_routed_experts: times * MODEL.n_routed_experts, moe_topk: times * MODEL.moe_topk },
        expert_ffn_hidden_size: MODEL.expert_ffn_hidden_size / times,
      };
      const plain = { routed_scaling_factor: 1, mla_scale_q_lora: false, mla_scale_kv_lora: false };
      rows.push({
        times,
        scaled: await over({ ...narrow, ...fine, routed_scaling_factor: times }),
        plain: await over({ ...narrow, ...fine, ...plain }),
      });
    }
    return judge(rows);
  },
};

interface Row {
  times: number;
  /** With the factors and γ, and without. */
  scaled: Variances;
  plain: Variances;
}

/** Each variance beside what it should be: k^R's, and of the experts that of whole ones. */
function judge(rows: readonly Row[]): Outcome {
  const whole = rows[0]!.plain.experts;
  const relative = (of: Variances): Variances => ({
    ...{ "q^C": of["q^C"] / of["k^R"], "q^R": of["q^R"] / of["k^R"], "k^C": of["k^C"] / of["k^R"], "k^R": 1 },
    experts: of.experts / whole,
  });
  const shown = NAMES.filter((name) => name !== "k^R");
  const scaled = rows.map((row) => relative(row.scaled));
  const plain = rows.map((row) => relative(row.plain));
  const predicted = (name: (typeof NAMES)[number], times: number) => (name === "experts" ? times ** -2 : 1 / times);
  const near = (value: number, wanted: number) => Math.abs(value / wanted - 1) <= TOLERANCE;
  const last = rows.length - 1;
  const words = (of: Variances) => shown.map((name) => `${name} ${of[name].toPrecision(3)}`).join(", ");
  return {
    table: [
      ["times narrower, m", "", ...shown, "k^R itself"],
      ...rows.flatMap(({ times, ...row }, i) => [
        [String(times), "with the factors", ...shown.map((name) => scaled[i]![name].toPrecision(3)), row.scaled["k^R"].toPrecision(3)],
        [String(times), "without", ...shown.map((name) => plain[i]![name].toPrecision(3)), row.plain["k^R"].toPrecision(3)],
      ]),
    ],
    verdict:
      `latents ${rows[last]!.times} times narrower and experts in ${rows[last]!.times} parts have, of the variance of k^R and of whole experts: ` +
      `${words(plain[last]!)} without the factors, ${words(scaled[last]!)} with them`,
    agrees: rows.every(({ times }, i) => shown.every((name) => near(scaled[i]![name], 1) && near(plain[i]![name], predicted(name, times)))),
    plot: {
      ...{ title: "Variance at initialisation, of k^R's (queries, keys) and of whole experts'" },
      ...{ x: "times narrower, parts of an expert (logarithmic)", y: "variance (logarithmic)", logX: true, logY: true },
      series: (["q^C", "k^C", "experts"] as const).flatMap((name) => [
        { name: `${name}, with`, points: rows.map(({ times }, i) => [times, scaled[i]![name]] as const) },
        { name: `${name}, without`, points: rows.map(({ times }, i) => [times, plain[i]![name]] as const) },
      ]),
    },
  };
}

/** Of what a forward left of its first layer. */
async function variancesOf({ config, weights, queue, memory, rows }: Forwarded): Promise<Variances> {
  const { numHeads, qkNopeHeadDim: nope, qkRopeHeadDim: rope, vHeadDim, kvLoraRank, hiddenSize } = config;
  const read = async (tensor: Tensor, width: number) => {
    const numbers = new Float32Array(rows * width);
    await queue.read(tensor, numbers);
    return Array.from({ length: rows }, (_, r) => numbers.subarray(r * width, (r + 1) * width));
  };
  const { attention } = memory.layers[0]!;
  const queries = await read(attention[0].q, numHeads * (nope + rope));
  const latents = await read(attention[0].latents, kvLoraRank + rope);
  const kvB = await queue.readFloats(weights.layers[0]!.attention[0].kvB.data);
  const heads = Array.from({ length: numHeads }, (_, h) => h);
  const ofHeads = (from: number, to: number) =>
    queries.flatMap((row) => heads.flatMap((h) => [...row.subarray(h * (nope + rope) + from, h * (nope + rope) + to)]));
  const keys = latents.flatMap((row) =>
    heads.flatMap((h) =>
      Array.from({ length: nope }, (_, k) => {
        const at = (h * (nope + vHeadDim) + k) * kvLoraRank;
        return kvB.subarray(at, at + kvLoraRank).reduce((sum, w, i) => sum + w * row[i]!, 0);
      }),
    ),
  );
  return {
    ...{ "q^C": spread(ofHeads(0, nope)), "q^R": spread(ofHeads(nope, nope + rope)) },
    ...{ "k^C": spread(keys), "k^R": spread(latents.flatMap((row) => [...row.subarray(kvLoraRank)])) },
    experts: spread((await read(memory.forward.experts, hiddenSize)).flatMap((row) => [...row])),
  };
}

function spread(numbers: readonly number[]): number {
  const middle = mean(numbers);
  return mean(numbers.map((n) => (n - middle) ** 2));
}
