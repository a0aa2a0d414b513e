/** What tokens choose on a GPU is read as a trace sees it, in steps of any size. */
import assert from "node:assert/strict";
import { it } from "node:test";
import { routedPicks, tracedPicks } from "../helpers/routing.js";
import { describeOnGpu, models, quantizedMini } from "./gpu.js";

describeOnGpu("routing analysis", () => {
  const { open } = models();
  const fp8 = quantizedMini();
  const cases = [
    { name: "mini", dir: async () => "mini" as const },
    { name: "mini-fp8", dir: async () => ({ dir: await fp8() }) },
    { name: "tiny-a", dir: async () => "tiny-a" as const },
    { name: "tiny-lite-a", dir: async () => "tiny-lite-a" as const },
  ];

  for (const { name, dir } of cases)
    it(`${name}: the picks of a trace`, async () => {
      const { runner } = await open(await dir());
      const wanted = await tracedPicks(runner);
      assert.deepEqual(await routedPicks(runner), wanted);
      const { runner: small } = await open(await dir(), { maxBatchTokens: 48 });
      assert.deepEqual(await routedPicks(small), wanted);
    });
});
