/**
 * A model whose experts are shared out among ranks: what each of them answers is what one rank with all experts answers.
 */
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { type OpenedModel, openModel } from "../../ts/model/open.js";
import { type ModelName, modelPath, ROOT } from "../helpers/fixtures.js";
import { comparable, goldenCases, greedy } from "../helpers/goldens.js";
import { TEST_MODEL_OPTIONS } from "../helpers/models.js";
import { Ranks } from "../helpers/ranks.js";
import { tokens } from "../helpers/runs.js";

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const model of opened.splice(0)) await model.close();
});

async function openRanks(...args: Parameters<typeof Ranks.open>): Promise<Ranks> {
  const ranks = await Ranks.open(...args);
  opened.push(ranks);
  return ranks;
}

describe.each([
  ["mini", 2],
  ["tiny-a", 2],
] as [ModelName, number][])("%s on %i ranks", (name, count) => {
  it("continues every recorded prompt greedily as recorded", async () => {
    const ranks = await openRanks(modelPath(name), count);
    const cases = goldenCases(join(ROOT, "test/fixtures", name));
    for (const golden of cases) {
      const n = comparable(golden);
      const got = await ranks.alone(0, (runner) => greedy(runner, golden.prompt_ids, n));
      expect(tokens(got)).toEqual(golden.greedy_ids.slice(0, n));
    }
  });
});
