/** What a choice says of its time: by the ends of steps, whenever a busy host tells of them. */
import { expect, it } from "vitest";
import { ChoiceOutput, SILENT_PARSER } from "../../ts/engine/choice.js";

const FACTS = { routing: { tokens: 0, experts: 0 }, cachedTokens: 0, drafts: undefined };

/** The timings of a choice whose tokens came by steps that ended at these times, one entry a token. */
function timings(stepsOver: readonly number[]) {
  let stepOverMs = 0;
  const output = new ChoiceOutput({
    ...{ index: 0, promptTokens: 3, maxNewTokens: 100, endTokens: new Set<number>(), stopTokens: new Set<number>(), logprobs: -1 },
    ...{ parser: SILENT_PARSER, tokenBytes: () => [], stepOverMs: () => stepOverMs, elapsedMs: () => 1000 },
  });
  for (const ms of stepsOver) {
    stepOverMs = ms;
    output.push({ token: 7, logprob: 0, top: [] }, undefined);
  }
  output.end("length");
  return output.result(FACTS, { numLayers: 1, topK: 1 }).timings;
}

it("counts the tokens behind the first step, over the time from its end to that of the last", () => {
  expect(timings([50, 60])).toEqual({ ttftMs: 50, tokensPerSecond: 100 });
  expect(timings([50, 60, 60, 60, 70, 70])).toEqual({ ttftMs: 50, tokensPerSecond: 250 });
  expect(timings([50, 50, 60, 60])).toEqual({ ttftMs: 50, tokensPerSecond: 200 });
});

it("has no speed where all tokens came in one step, and with none the time of the prompt", () => {
  expect(timings([50])).toEqual({ ttftMs: 50, tokensPerSecond: 0 });
  expect(timings([50, 50, 50])).toEqual({ ttftMs: 50, tokensPerSecond: 0 });
  expect(timings([])).toEqual({ ttftMs: 1000, tokensPerSecond: 0 });
});
