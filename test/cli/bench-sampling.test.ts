import { expect, test } from "vitest";
import { benchSampling } from "../../ts/engine/bench-sampling.js";

test("masks and their upload are measured, and are of the size that the vocabulary asks for", async () => {
  const result = await benchSampling({ batch: 8, vocabulary: 4096, steps: 80 });
  expect(result).toMatchObject({ batch: 8, vocabulary: 4096, steps: 80 });
  expect(result.compileMs).toHaveLength(4);
  expect(result.uploadBytes).toBeGreaterThan(0);
  expect(result.uploadBytes).toBeLessThanOrEqual((8 * 4096) / 8);
  expect(result.sample.map(({ ms }) => ms > 0)).toEqual(result.sample.map(() => true));
  for (const times of [result.coldMs, result.warmMs, result.acceptMs, result.uploadMs]) {
    expect(times.median).toBeGreaterThanOrEqual(0);
    expect(times.max).toBeGreaterThanOrEqual(times.p99);
    expect(times.p99).toBeGreaterThanOrEqual(times.median);
  }
});
