/**
 * Index arithmetic beyond 32 bits (field trial B41): operations over tensors of more than 2^31 elements give the bits that they give over
 * small ones. Pages that nothing touches take no memory, so each test writes and reads the last rows alone.
 */
import { availableParallelism } from "node:os";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { LongcatError } from "../../ts/errors.js";
import { Device, type Queue, type Tensor } from "../../ts/runtime/device.js";
import type { DType } from "../../ts/runtime/dtype.js";
import { ops } from "../../ts/runtime/ops.js";
import { numbers } from "../runtime/devices.js";

const LARGE = 2 ** 31;

let device: Device;
let queue: Queue;
beforeEach(() => {
  device = Device.open({ threads: Math.min(2, availableParallelism()) });
  queue = device.queue();
});
afterEach(async () => {
  await device.close();
});

/** A machine whose memory could not hold such a tensor is refused it before any of it is used: then there is nothing to test. */
const large = (name: string, test: () => Promise<void>) =>
  it(name, { timeout: 60_000 }, async ({ skip }) => {
    const before = process.memoryUsage().rss;
    try {
      await test();
      expect(process.memoryUsage().rss - before).toBeLessThan(500e6);
    } catch (error) {
      if (!(error instanceof LongcatError) || error.code !== "OUT_OF_MEMORY") throw error;
      console.log(`skipped: large tensors, ${name}: ${error.message}`);
      skip();
    }
  });

const floats = (shape: number[], seed?: number) => tensorOf("float32", shape, seed === undefined ? undefined : numbers(count(shape), seed));
const ints = (shape: number[], values?: readonly number[]) => tensorOf("int32", shape, values && Int32Array.from(values));
const count = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

function tensorOf(dtype: DType, shape: number[], data?: ArrayBufferView): Tensor {
  const tensor = device.tensor(dtype, shape);
  if (data) queue.write(tensor, data);
  return tensor;
}

async function read(tensor: Tensor, elements = count(tensor.shape), first = 0): Promise<Float32Array> {
  const into = new Float32Array(elements);
  await queue.read(tensor, into, first * 4);
  return into;
}

const bf16 = (values: Float32Array) => Uint16Array.from(new Uint32Array(values.buffer), (bits) => bits >>> 16);

describe("a latent cache of more than 2^31 numbers", () => {
  const [blockSize, width, rope, heads, nope, v, hidden, qRank] = [16, 576, 64, 2, 128, 128, 256, 96] as const;
  const length = 20; // a block and a quarter

  /** Projects a prompt into the last two blocks of a pool, attends to it both ways, and returns every result. */
  async function attend(numBlocks: number): Promise<Float32Array[]> {
    const cache = floats([numBlocks, blockSize, width]);
    const [positions, rowSlot] = [ints([length], [...Array(length).keys()]), ints([length])];
    const blockTables = ints([1, 2], [numBlocks - 1, numBlocks - 2]);
    const q = floats([length, heads, nope + rope]);
    ops.mlaProject(queue, {
      ...{ x: floats([length, hidden], 1), qA: floats([qRank, hidden], 2), qANorm: floats([qRank], 3) },
      ...{ qB: floats([heads * (nope + rope), qRank], 4), kvA: floats([width, hidden], 5), kvANorm: floats([width - rope], 6) },
      ...{ cosSin: floats([length, rope], 7), positions, rowSlot, blockTables, qLatent: floats([length, qRank]) },
      ...{ kvLatent: floats([length, width]), q, cache, rows: ints([1], [length]) },
      ...{ heads, nope, rope, eps: 1e-6, qScale: 1, kvScale: 1 },
    });
    const shared = {
      ...{ q, cache, kvB: floats([heads * (nope + v), width - rope], 8), positions, blockTables },
      ...{ heads, nope, rope, vDim: v, softmaxScale: 0.1 },
    };
    const [prefilled, decoded] = [floats([length, heads * v]), floats([length, heads * v])];
    ops.mlaPrefill(queue, {
      ...{ ...shared, counts: ints([8], [length, length, 1, 1, 0, 0, 0, 0]), seqStart: ints([2], [0, length]), seqSlot: ints([1]) },
      ...{ out: prefilled, state: floats([length, heads, 2]), maxKeys: length + 63 },
    });
    ops.mlaDecode(queue, {
      ...{ ...shared, counts: ints([8], [length, 0, length, 0, 0, length, 0, 0]), rowSlot, out: decoded },
      ...{
        splits: ints(
          [length, 2],
          [...Array(length).keys()].flatMap((row) => [row, 0]),
        ),
      },
      ...{ qLatent: floats([length, heads, width - rope]), partial: floats([length, heads, width - rope + 2]) },
    });
    const kept = await read(cache, 2 * blockSize * width, (numBlocks - 2) * blockSize * width);
    return [kept, await read(prefilled), await read(decoded)];
  }

  large("is written and read in its last blocks, by prompts and by generated tokens", async () => {
    const small = await attend(2);
    expect(small.every((values) => values.every(Number.isFinite) && values.some((value) => value !== 0))).toBe(true);
    const numBlocks = Math.ceil(LARGE / (blockSize * width)) + 2;
    expect(await attend(numBlocks)).toEqual(small);
  });

  large("copies its last block to its first", async () => {
    const numBlocks = Math.ceil(LARGE / (blockSize * width)) + 2;
    const cache = floats([numBlocks, blockSize, width]);
    const block = numbers(blockSize * width);
    queue.write(cache, block, (numBlocks - 1) * block.byteLength);
    queue.copy(cache, (numBlocks - 1) * block.byteLength, cache, 0, block.byteLength);
    expect(await read(cache, block.length)).toEqual(block);
  });
});

describe("tables of more than 2^31 numbers", () => {
  large("embed: the last row of a vocabulary", async () => {
    const [hidden, vocabulary] = [8192, LARGE / 8192 + 3];
    const table = device.tensor("bfloat16", [vocabulary, hidden]);
    const row = numbers(hidden);
    queue.write(table, bf16(row), (vocabulary - 1) * hidden * 2);
    const out = floats([2, hidden]);
    ops.embed(queue, { tokens: ints([2], [vocabulary - 1, 0]), table, out, rows: ints([1], [2]) });
    const [last, first] = [await read(out, hidden), await read(out, hidden, hidden)];
    expect(bf16(last)).toEqual(bf16(row));
    expect(first.every((value) => value === 0)).toBe(true);
  });

  large("ngram_embed: the last row of a hashed table", async () => {
    const [hidden, vocabulary, tableRows] = [256, 131_072, 78 * 131_072 + 1];
    expect(tableRows * hidden).toBeGreaterThan(LARGE);
    const table = device.tensor("bfloat16", [tableRows, hidden]);
    const row = bf16(numbers(hidden));
    queue.write(table, row, (tableRows - 1) * hidden * 2);
    const one = Float32Array.from({ length: hidden * hidden }, (_, i) => (i % (hidden + 1) === 0 ? 1 : 0));
    const out = floats([1, hidden]);
    ops.ngramEmbed(queue, {
      ...{ positions: ints([1], [1]), rowSlot: ints([1]), history: ints([1, 4], [78, 0, 0, 0]), rows: ints([1], [1]), out },
      ...{
        wordTable: device.tensor("bfloat16", [vocabulary, hidden]),
        tables: [{ table, projection: tensorOf("float32", [hidden, hidden], one) }],
      },
      ...{ neighbors: 2, splits: 1, endId: 2 },
    });
    // Token 0 after token 78: (0 + 78 · 131072) mod rows is the last row; the mean with the word's zeros halves it.
    expect(bf16((await read(out)).map((value) => 2 * value))).toEqual(row);
  });

  large("linear: the last row of its input, by index", async () => {
    const inputs = 8192;
    const rowsOfX = LARGE / inputs + 2;
    const [x, row] = [floats([rowsOfX, inputs]), numbers(inputs)];
    queue.write(x, row, (rowsOfX - 1) * inputs * 4);
    const weight = floats([3, inputs], 2);
    const [far, near] = [floats([1, 3]), floats([1, 3])];
    const rows = ints([1], [1]);
    ops.linear(queue, { x, rowIndex: ints([1], [rowsOfX - 1]), weight, out: far, rows });
    ops.linear(queue, { x: tensorOf("float32", [1, inputs], row), weight, out: near, rows });
    expect(await read(far)).toEqual(await read(near));
  });
});

describe("experts", () => {
  large("with more than 2^31 numbers of planned rows: the last entry of the plan", async () => {
    const [T, K, width, ffn] = [64, 4097, 8192, 8] as const;
    const entries = T * K;
    expect(entries * width).toBeGreaterThan(LARGE);
    const [h, gate, up, down] = [floats([T, width], 1), floats([ffn, width], 2), floats([ffn, width], 3), floats([width, ffn], 4)];
    const run = async (topK: number, plan: number): Promise<Float32Array> => {
      const total = T * topK;
      const planRow = ints([total]);
      queue.write(planRow, Int32Array.of(T - 1), plan * 4);
      const slotPlan = ints([T, topK], new Array<number>(total).fill(-1));
      queue.write(slotPlan, Int32Array.of(plan), (total - 1) * 4);
      const weights = floats([T, topK]);
      queue.write(weights, Float32Array.of(0.75), (total - 1) * 4);
      const out = floats([T, width]);
      ops.moeExperts(queue, {
        ...{ h, gate: device.stack([gate]), up: device.stack([up]), down: device.stack([down]), weights },
        ...{ identityWeight: floats([T]), expertStart: ints([2], [plan, plan + 1]), planRow, slotPlan },
        ...{ hidden: floats([total, ffn]), partial: floats([total, width]), out, rows: ints([1], [T]), expected: 0 },
      });
      return read(out, width, (T - 1) * width);
    };
    const near = await run(1, 0);
    expect(near.some((value) => value !== 0)).toBe(true);
    expect(await run(K, entries - 1)).toEqual(near);
  });
});

describe("logits and slots of more than 2^31 numbers", () => {
  const [vocabulary, rows] = [131_072, LARGE / 131_072 + 2];
  const last = rows - 1;
  const logits = numbers(vocabulary, 5).map((value) => 8 * value);

  large("token_logprobs: the last row", async () => {
    const [far, near] = [floats([rows, vocabulary]), tensorOf("float32", [1, vocabulary], logits)];
    queue.write(far, logits, last * vocabulary * 4);
    const targets = ints([rows], [...new Array<number>(last).fill(-1), 77]);
    const [farOut, nearOut] = [floats([rows]), floats([1])];
    ops.tokenLogprobs(queue, { logits: far, targets, out: farOut, rows: ints([1], [rows]) });
    ops.tokenLogprobs(queue, { logits: near, targets: ints([1], [77]), out: nearOut, rows: ints([1], [1]) });
    const wanted = (await read(nearOut))[0] as number;
    expect(wanted).toBeLessThan(0);
    expect(await read(farOut, 2, last - 1)).toEqual(Float32Array.of(0, wanted));
  });

  /** An entry of a slot's list (ts/model/adjustments.ts). */
  function adjustment(id: number, count: number, bias: number): Int32Array {
    const words = Int32Array.of(id, count, 0);
    new Float32Array(words.buffer)[2] = bias;
    return words;
  }

  /** Draws for the last row, by the last slot. */
  async function draw(numRows: number, slots: number): Promise<{ token: number; logprob: number }> {
    const all = floats([numRows, vocabulary]);
    queue.write(all, logits, (numRows - 1) * vocabulary * 4);
    const params = tensorOf("float64", [slots, 13]);
    queue.write(params, Float64Array.of(0.7, 1, 0, 0, 1.5, 0.5, 0, 3, -1, 1, 0, 0, 0), (slots - 1) * 13 * 8);
    const [words, most] = [vocabulary / 32, Math.ceil(vocabulary / 3)];
    const [adjustments, numAdjustments] = [ints([slots, most, 3]), ints([slots])];
    queue.write(adjustments, adjustment(4321, 0, 60), (slots - 1) * most * 12);
    queue.write(numAdjustments, Int32Array.of(1), (slots - 1) * 4);
    const [tokens, logprob, history] = [ints([numRows]), floats([numRows]), ints([slots, 4])];
    ops.sample(queue, {
      ...{ logits: all, logitSlot: ints([numRows], [...new Array<number>(numRows - 1).fill(-1), slots - 1]) },
      ...{
        logitPosition: ints([numRows], new Array<number>(numRows).fill(3)),
        params,
        allowed: ints([words], new Array<number>(words).fill(-1)),
      },
      ...{ adjustments, numAdjustments, mask: ints([slots, words]), history, tokens, logprob },
      ...{ topIds: ints([numRows, 20]), topLogprobs: floats([numRows, 20]), rows: ints([2], [0, numRows]), draft: 0, mostRows: numRows },
    });
    const token = Int32Array.of(-1);
    await queue.read(tokens, token, (numRows - 1) * 4);
    const written = Int32Array.of(-1);
    await queue.read(history, written, ((slots - 1) * 4 + 3) * 4);
    expect(written).toEqual(token);
    const counted = new Int32Array(3);
    await queue.read(adjustments, counted, (slots - 1) * most * 12);
    expect(counted).toEqual(adjustment(token[0] as number, 1, 60));
    return { token: token[0] as number, logprob: (await read(logprob, 1, numRows - 1))[0] as number };
  }

  large("sample: the last row of the last slot", async () => {
    const near = await draw(1, 1);
    expect(near.token).toBe(4321);
    expect(await draw(rows, 1)).toEqual(near);
    expect(await draw(1, rows)).toEqual(near);
  });

  large("step_plan: the end of the last slot's history", async () => {
    const [slots, context] = [17, 2 ** 27];
    const history = ints([slots, context]);
    queue.write(history, Int32Array.of(99), (slots * context - 1) * 4);
    const tokens = ints([1]);
    ops.stepPlan(queue, {
      ...{ counts: ints([8], [1, 0, 1, 0, 0, 0, 0, 0]), tokenIds: ints([1]), promptPositions: ints([1]), seqNext: ints([1]) },
      ...{ seqStart: ints([2], [0, 1]), seqSlot: ints([1], [slots - 1]), seqLimit: ints([1], [context]), invFreq: floats([8]), history },
      ...{ lengths: ints([slots], new Array<number>(slots).fill(context - 1)), tokens, positions: ints([1]) },
      ...{ rowSlot: ints([1]), cosSin: floats([1, 16]), splits: ints([1, 2]), rotaryScale: 1, ahead: 0 },
    });
    const token = Int32Array.of(-1);
    await queue.read(tokens, token);
    expect(token).toEqual(Int32Array.of(99));
  });
});
