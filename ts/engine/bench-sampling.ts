/**
 * What keeping answers to formats and penalising tokens costs a step: masks on the host, their way to the device, and what the `sample`
 * operation needs more for them. What `longcat bench sampling` prints.
 * @module
 */
import { type AnswerFormat, Grammars, type Guide, type NewGuide } from "../grammar/index.js";
import { ADJUSTMENT_WORDS, adjustmentsOf } from "../model/adjustments.js";
import type { SlotSampling } from "../model/runner-types.js";
import { SlotMasks } from "../model/slot-masks.js";
import { NUM_SAMPLE_FIELDS, SampleField } from "../model/state.js";
import { Device, type Tensor } from "../runtime/device.js";
import type { DType } from "../runtime/dtype.js";
import { ops } from "../runtime/ops.js";
import { uniform } from "../sampling/philox.js";
import { median } from "./bench-device.js";
import { type BenchVocabulary, benchVocabulary } from "./bench-vocabulary.js";

export interface SamplingPlan {
  batch: number;
  vocabulary: number;
  steps: number;
}

/** Milliseconds of many steps. */
export interface StepTimes {
  median: number;
  p99: number;
  max: number;
}

export interface SamplingResult extends SamplingPlan {
  /** Once a checkpoint, when a format is first asked for. */
  vocabularyMs: number;
  /** The longest that building it kept the event loop from turning. */
  vocabularyTurnMs: number;
  /** Of each of the formats, the first time. */
  compileMs: number[];
  /** A step's masks, made and copied for the upload: the first half of the steps, when masks are new, and the second. */
  coldMs: StepTimes;
  warmMs: StepTimes;
  /** Taking in the tokens that were drawn. */
  acceptMs: StepTimes;
  uploadBytes: number;
  /** Handing the upload to the device's queue. */
  uploadMs: StepTimes;
  /** The `sample` operation on one thread of the processor, by what the rows ask for. */
  sample: SampleTime[];
}

/** Milliseconds of one call for all rows. */
export interface SampleTime {
  /** How they draw; then, behind a comma, what else they ask for. */
  what: string;
  ms: number;
}

const text = { type: "string" };
const SCHEMAS: readonly unknown[] = [
  {
    ...{ type: "object", required: ["name", "age", "tags", "kind"], additionalProperties: false },
    properties: {
      name: text,
      age: { type: "integer" },
      tags: { type: "array", items: text },
      kind: { enum: ["first", "second", "third"] },
    },
  },
  { type: "object" },
  {
    ...{ type: "object", required: ["title", "items"] },
    properties: {
      title: { type: "string", maxLength: 60 },
      items: {
        ...{ type: "array", maxItems: 20 },
        items: { type: "object", properties: { id: { type: "integer", minimum: 0 }, price: { type: "number" }, note: text } },
      },
    },
  },
  {
    anyOf: [
      { type: "object", properties: { tool: { const: "search" }, query: text }, required: ["tool", "query"] },
      { type: "object", properties: { tool: { const: "answer" }, text: { type: "string" } }, required: ["tool", "text"] },
    ],
  },
];

/** A text of each schema, with words of their own. */
function sample(schema: number, seed: number): string {
  let draw = 0;
  const pick = (most: number): number => Math.floor(uniform(seed, draw++) * most);
  const words = (count: number): string => Array.from({ length: count }, () => pick(36 ** 5).toString(36)).join(" ");
  switch (schema) {
    case 0:
      return JSON.stringify({ name: words(3), age: pick(100), tags: [words(2), words(1)], kind: "second" });
    case 1:
      return JSON.stringify({ [words(1)]: { [words(2)]: [pick(1000), null, words(6)] }, done: true });
    case 2:
      return JSON.stringify({ title: words(5), items: [{ id: pick(1e6), price: pick(1e4) / 8, note: words(8) }, { id: 7 }] });
    default:
      return JSON.stringify(pick(2) ? { tool: "search", query: words(9) } : { tool: "answer", text: words(20) });
  }
}

/** Measures one batch over one vocabulary. Nothing else may run on the thread meanwhile. */
export async function benchSampling(plan: SamplingPlan): Promise<SamplingResult> {
  const vocabulary = benchVocabulary(plan.vocabulary);
  const grammars = new Grammars(plan.vocabulary, vocabulary);
  const built = await timeVocabulary(grammars);
  const makers: NewGuide[] = [];
  const compileMs: number[] = [];
  for (const schema of SCHEMAS) {
    const format: AnswerFormat = { json: { schema, path: "schema" }, afterReasoning: false };
    const begun = performance.now();
    makers.push(await grammars.guides(format));
    compileMs.push(performance.now() - begun);
  }
  const device = Device.open({ threads: 1 });
  try {
    const host = await timeSteps(plan, vocabulary, makers, device);
    return { ...plan, ...built, compileMs, ...host, sample: await timeSample(plan, device) };
  } finally {
    await device.close();
  }
}

async function timeVocabulary(grammars: Grammars): Promise<Pick<SamplingResult, "vocabularyMs" | "vocabularyTurnMs">> {
  let longest = 0;
  let turned = performance.now();
  let done = false;
  const watch = (): void => {
    longest = Math.max(longest, performance.now() - turned);
    turned = performance.now();
    if (!done) setImmediate(watch);
  };
  setImmediate(watch);
  const begun = performance.now();
  await grammars.guides({ json: { schema: true, path: "schema" }, afterReasoning: false });
  done = true;
  return { vocabularyMs: performance.now() - begun, vocabularyTurnMs: longest };
}

/** A slot with a guide and the tokens that it will be given. */
interface Slot {
  guide: Guide;
  tokens: number[];
  at: number;
}

async function timeSteps(plan: SamplingPlan, vocabulary: BenchVocabulary, makers: readonly NewGuide[], device: Device) {
  const ends = new Set([vocabulary.endToken]);
  let started = 0;
  const start = (): Slot => {
    const seed = started++;
    const guide = (makers[seed % makers.length] as NewGuide)(ends);
    return { guide, tokens: vocabulary.encode(sample(seed % makers.length, seed)), at: 0 };
  };
  const slots = Array.from({ length: plan.batch }, start);
  const masks = new SlotMasks(plan.batch, plan.vocabulary);
  const queue = device.queue();
  const words = Math.ceil(plan.vocabulary / 32);
  const onDevice = device.tensor("int32", [plan.batch, words]);
  const times = { mask: [] as number[], upload: [] as number[], accept: [] as number[] };
  let bytes = 0;
  for (let step = 0; step < plan.steps; step++) {
    const t0 = performance.now();
    const rows = masks.take(slots.map(({ guide }, slot) => ({ slot, mask: guide.mask() })));
    const t1 = performance.now();
    if (rows !== undefined) queue.write(onDevice, rows.words, rows.first * words * 4);
    const t2 = performance.now();
    for (const slot of slots) slot.guide.accept(slot.tokens[slot.at++] as number);
    const t3 = performance.now();
    bytes += rows?.words.byteLength ?? 0;
    times.mask.push(t1 - t0);
    times.upload.push(t2 - t1);
    times.accept.push(t3 - t2);
    slots.forEach((slot, i) => {
      if (slot.guide.isComplete) slots[i] = start();
    });
    await queue.room();
    await new Promise((resolve) => setImmediate(resolve));
  }
  await queue.done();
  const half = plan.steps >> 1;
  return {
    coldMs: summary(times.mask.slice(0, half)),
    warmMs: summary(times.mask.slice(half)),
    acceptMs: summary(times.accept.slice(half)),
    uploadMs: summary(times.upload.slice(half)),
    uploadBytes: Math.round(bytes / plan.steps),
  };
}

function summary(values: readonly number[]): StepTimes {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] as number;
  return { median: at(0.5), p99: at(0.99), max: at(1) };
}

/** Scatters ranks over the ids, otherwise in each row. */
function idOfRank(rank: number, row: number, vocabulary: number): number {
  const stride = 40_503; // of no common factor with a power of two
  return (rank * stride + row * 977) % vocabulary;
}

/** Logits [batch, vocabulary] as steep as a text's: the id of rank r has a share of r^−1.5. */
function likeText(batch: number, vocabulary: number): Float32Array {
  const logits = new Float32Array(batch * vocabulary);
  for (let row = 0; row < batch; row++)
    for (let rank = 0; rank < vocabulary; rank++) logits[row * vocabulary + idOfRank(rank, row, vocabulary)] = -1.5 * Math.log(rank + 1);
  return logits;
}

const RUNS = 15;
/** Distinct ids in a row's prompt and answer, half of them generated: what some 5,000 tokens of text have. */
const COUNTED = 2000;
const PENALTIES = { [SampleField.repetition]: 1.1, [SampleField.presence]: 0.5, [SampleField.frequency]: 0.5 };
const MASKED = { [SampleField.useMask]: 1 };
const WARM = { [SampleField.temperature]: 1, [SampleField.topP]: 0.95 };
/** What the rows of one run ask for. */
const CASES: readonly { what: string; fields: Readonly<Record<number, number>> }[] = [
  { what: "greedy", fields: {} },
  { what: "greedy, masks", fields: MASKED },
  { what: "greedy, penalties", fields: PENALTIES },
  { what: "greedy, masks and penalties", fields: { ...MASKED, ...PENALTIES } },
  { what: "temperature 1, topP 0.95", fields: WARM },
  { what: "temperature 1, topP 0.95, masks", fields: { ...WARM, ...MASKED } },
  { what: "temperature 1, topP 0.95, penalties", fields: { ...WARM, ...PENALTIES } },
  { what: "temperature 1, topP 0.95, masks and penalties", fields: { ...WARM, ...MASKED, ...PENALTIES } },
];

/** The parameters of `batch` slots. */
function paramsOf(batch: number, fields: Readonly<Record<number, number>>): Float64Array {
  const row = new Float64Array(NUM_SAMPLE_FIELDS);
  row.set([0, 1, 0, 0, 1, 0, 0, 1, -1, 0, 0, -1, 0]);
  for (const [field, value] of Object.entries(fields)) row[Number(field)] = value;
  return Float64Array.from({ length: batch * row.length }, (_, i) => row[i % row.length] as number);
}

/** What of `sampling` the penalties read of a row: COUNTED ids, as likely as any. */
function countedOf(row: number, vocabulary: number): Int32Array {
  const ids = Array.from({ length: Math.min(COUNTED, vocabulary) }, (_, i) => idOfRank(i * 61, row, vocabulary));
  const sampling: SlotSampling = {
    ...{ temperature: 0, topP: 1, topK: 0, minP: 0, repetitionPenalty: 2, presencePenalty: 0, frequencyPenalty: 0 },
    ...{ seed: 0, logprobs: -1, logitBias: new Map(), promptTokens: ids.filter((_, i) => i % 2 === 0) },
  };
  return adjustmentsOf(
    sampling,
    ids.filter((_, i) => i % 2 === 1),
    vocabulary,
  ) as Int32Array;
}

/** Times the operation. Every mask lets all through, so that what it saves elsewhere does not hide what it costs. */
async function timeSample({ batch, vocabulary }: SamplingPlan, device: Device): Promise<SamplingResult["sample"]> {
  const queue = device.queue();
  const words = Math.ceil(vocabulary / 32);
  const make = (dtype: DType, ...shape: number[]): Tensor => device.tensor(dtype, shape);
  const logits = make("float32", batch, vocabulary);
  const params = make("float64", batch, NUM_SAMPLE_FIELDS);
  const [logitSlot, logitPosition, rows] = [make("int32", batch), make("int32", batch), make("int32", 2)];
  const [allowed, mask] = [make("int32", words), make("int32", batch, words)];
  const [adjustments, numAdjustments] = [make("int32", batch, COUNTED + 1, ADJUSTMENT_WORDS), make("int32", batch)];
  const tensors = {
    ...{ logits, params, logitSlot, logitPosition, rows, draft: 0, mostRows: batch, allowed, mask, adjustments, numAdjustments },
    ...{
      history: make("int32", batch, 16),
      tokens: make("int32", batch),
      logprob: make("float32", batch),
      topIds: make("int32", batch, 20),
      topLogprobs: make("float32", batch, 20),
    },
  };
  queue.write(logits, likeText(batch, vocabulary));
  const slots = Int32Array.from({ length: batch }, (_, i) => i);
  queue.write(logitSlot, slots);
  queue.write(rows, Int32Array.of(0, batch));
  queue.write(allowed, new Int32Array(words).fill(-1));
  queue.write(mask, new Int32Array(batch * words).fill(-1));
  const counted = Array.from({ length: batch }, (_, row) => countedOf(row, vocabulary));
  const lists = new Int32Array(adjustments.bytes / 4);
  for (const [row, list] of counted.entries()) lists.set(list, (row * lists.length) / batch);
  const times = CASES.map((): number[] => []);
  for (let run = 0; run < RUNS; run++) {
    for (const [i, { fields }] of CASES.entries()) {
      queue.write(params, paramsOf(batch, fields));
      queue.write(adjustments, lists); // each run counts a token
      queue.write(
        numAdjustments,
        Int32Array.from(counted, (list) => list.length / ADJUSTMENT_WORDS),
      );
      await queue.done();
      const begun = performance.now();
      ops.sample(queue, tensors);
      await queue.done();
      times[i]?.push(performance.now() - begun);
    }
  }
  return CASES.map(({ what }, i) => ({ what, ms: median(times[i] ?? []) }));
}
