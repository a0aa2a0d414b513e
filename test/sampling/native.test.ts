/** The `sample` operation and its twin give the same token, bit for bit, on every instruction set. */

import { afterAll, describe, expect, it } from "vitest";
import { Device, type Queue, type Tensor } from "../../ts/runtime/device.js";
import type { DType } from "../../ts/runtime/dtype.js";
import { ops } from "../../ts/runtime/ops.js";
import { uniform } from "../../ts/sampling/philox.js";
import { candidatesOfRow, type DrawParams, drawFromCandidates } from "../../ts/sampling/sampler.js";

const ROWS = 8;
const CONTEXT = 32;
const LISTED = 1024;
const MOST_LOGPROBS = 20;

/** A device with what one call of `sample` needs; row r uses slot r. */
class SampleBench {
  readonly device: Device;
  readonly queue: Queue;
  readonly vocabulary: number;
  readonly logits: Tensor;
  readonly params: Tensor;
  readonly #arguments: Parameters<typeof ops.sample>[1] & { candidateIds: Tensor; candidateExps: Tensor; candidateStats: Tensor };

  constructor(isa: "plain" | "avx2" | "avx512", vocabulary: number) {
    this.device = Device.open({ threads: 2, isa, debug: "poison" });
    this.queue = this.device.queue();
    this.vocabulary = vocabulary;
    const make = (dtype: DType, ...shape: number[]): Tensor => this.device.tensor(dtype, shape);
    const words = Math.ceil(vocabulary / 32);
    this.logits = make("float32", ROWS, vocabulary);
    this.params = make("float64", ROWS, 13);
    this.#arguments = {
      ...{ logits: this.logits, params: this.params, logitSlot: make("int32", ROWS), logitPosition: make("int32", ROWS) },
      ...{ allowed: make("int32", words), adjustments: make("int32", ROWS, 1, 3), numAdjustments: make("int32", ROWS) },
      ...{ mask: make("int32", ROWS, words), history: make("int32", ROWS, CONTEXT), tokens: make("int32", ROWS) },
      ...{ logprob: make("float32", ROWS), topIds: make("int32", ROWS, MOST_LOGPROBS), topLogprobs: make("float32", ROWS, MOST_LOGPROBS) },
      ...{
        rows: make("int32", 2),
        draft: 0,
        mostRows: ROWS,
        candidateIds: make("int32", ROWS, LISTED),
        candidateExps: make("float64", ROWS, LISTED),
      },
      candidateStats: make("float64", ROWS, 2),
    };
    const { logitSlot, logitPosition, allowed, rows } = this.#arguments;
    this.queue.write(
      logitSlot,
      Int32Array.from({ length: ROWS }, (_, r) => r),
    );
    this.queue.write(
      logitPosition,
      Int32Array.from({ length: ROWS }, (_, r) => positionOf(r)),
    );
    this.queue.write(allowed, new Int32Array(words).fill(-1));
    this.queue.write(rows, Int32Array.of(0, ROWS));
  }

  /** Tokens that the operation draws, and that its twin draws from the candidates. */
  async draw(
    logits: Float32Array,
    temperature: number,
    rows: readonly DrawParams[],
  ): Promise<{ native: number[]; twin: (number | null)[] }> {
    const { tokens, candidateIds, candidateExps, candidateStats } = this.#arguments;
    this.queue.write(this.logits, logits);
    this.queue.write(
      this.params,
      Float64Array.from(rows.flatMap(({ topP, topK, minP, seed }) => [temperature, topP, topK, minP, 1, 0, 0, seed, -1, 0, 0, -1, 1])),
    );
    ops.sample(this.queue, this.#arguments);
    const drawn = new Int32Array(ROWS);
    const ids = new Int32Array(ROWS * LISTED);
    const exps = new Float64Array(ROWS * LISTED);
    const stats = new Float64Array(ROWS * 2);
    await Promise.all([
      this.queue.read(tokens, drawn),
      this.queue.read(candidateIds, ids),
      this.queue.read(candidateExps, exps),
      this.queue.read(candidateStats, stats),
    ]);
    const twin = rows.map((params, r) => {
      const part = [LISTED * r, LISTED * (r + 1)] as const;
      return drawFromCandidates(candidatesOfRow(ids.subarray(...part), exps.subarray(...part), stats.subarray(2 * r, 2 * r + 2)), params);
    });
    return { native: [...drawn], twin };
  }
}

function positionOf(row: number): number {
  return 3 + row;
}

const isas = (["plain", "avx2", "avx512"] as const).filter((isa) => {
  try {
    void Device.open({ threads: 1, isa }).close();
    return true;
  } catch (error) {
    expect(error).toMatchObject({ code: "DEVICE_UNAVAILABLE" });
    return false;
  }
});

describe.each([7, 900, 2048])("vocabulary %i", (vocabulary) => {
  const benches = isas.map((isa) => new SampleBench(isa, vocabulary));
  afterAll(() => Promise.all(benches.map(({ device }) => device.close())));

  it("draws the same token over random logits and filters", async () => {
    let call = 0;
    const random = (): number => uniform(99 + vocabulary, call++);
    const pick = (values: readonly number[]): number => values[Math.floor(random() * values.length)]!;
    let unknown = 0;
    for (let run = 0; run < 40; run++) {
      const spread = pick([0.01, 2, 10]);
      const logits = Float32Array.from({ length: ROWS * vocabulary }, () => spread * (random() - 0.5));
      const temperature = pick([0, 1e-300, 0.2, 1, 3, 1e308]);
      const rows = Array.from({ length: ROWS }, (_, r) => ({
        topK: pick([0, 0, 1, 50, 1024, 1e6]),
        minP: pick([0, 0, 0.05, 0.9]),
        topP: pick([1, 0.95, 0.4]),
        seed: pick([0, run, 2 ** 32 + run, Number.MAX_SAFE_INTEGER]),
        position: positionOf(r),
      }));
      const results = [];
      for (const bench of benches) results.push(await bench.draw(logits, temperature, rows));
      for (const { native, twin } of results) {
        expect(native).toEqual(results[0]!.native);
        expect(twin).toEqual(native.map((token, r) => (twin[r] === null ? null : token)));
        for (const token of native) expect(token >= 0 && token < vocabulary).toBe(true);
        unknown += twin.filter((token) => token === null).length;
      }
    }
    // 64 candidates come back at least, and all that topP asks for.
    if (vocabulary <= 64) expect(unknown).toBe(0);
    else expect(unknown).toBeLessThan(40 * ROWS * isas.length * 0.4);
  });
});
