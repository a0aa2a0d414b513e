/** What is watched of a router: against its definition, number by number. */
import { expect, it } from "vitest";
import { meanCosine, RouterTally } from "../../ts/train/router.js";

it("the mean cosine is that of all pairs of rows", () => {
  const rows = [
    [1, 0, 0],
    [0, 2, 0],
    [3, 3, 0],
  ];
  // 0, 1/√2, 1/√2
  expect(meanCosine(Float32Array.from(rows.flat()), 3)).toBeCloseTo(Math.SQRT2 / 3, 6);
  expect(meanCosine(Float32Array.of(1, 2, 2, 4, 5, 10), 3)).toBeCloseTo(1, 6);
});

it("R_g is the balance loss's gradient in P beside the other's, over all batches", () => {
  // Four FFN experts in two groups, two zero experts.
  const tally = new RouterTally({ alpha: 0.5, groups: 2, meanExperts: 1.5 }, 4, 2, 3);
  tally.add({ ids: Int32Array.of(0, 5, 0, 2), dWeights: Float32Array.of(1, -2, 1, 0), share: Float32Array.of(1.5, 0.5, 1) });
  tally.add({ ids: Int32Array.of(3, 5), dWeights: Float32Array.of(4, 1), share: Float32Array.of(0.5, 2.5, 1) });
  const learning = Math.hypot(3 * 2, 3 * 0, 3 * 4, 3 * (-2 + 1));
  const levelling = 0.5 * Math.hypot(2, 2, 3, 3, 2, 2);
  expect(tally.gradientRatio).toBeCloseTo(levelling / learning, 6);
  expect(tally.fullestGroup).toBe(1.5);
});
