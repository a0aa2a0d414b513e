/** Models of a test file that are closed after each test: on several ranks of this process, or alone. */
import { afterEach } from "vitest";
import { type OpenedModel, type OpenModelOptions, openModel } from "../../ts/model/open.js";
import { TEST_MODEL_OPTIONS } from "../helpers/models.js";
import { Ranks } from "../helpers/ranks.js";

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const model of opened.splice(0)) await model.close();
});

export function closeLater(...models: { close(): Promise<void> }[]): void {
  opened.push(...models);
}

export async function openRanks(...args: Parameters<typeof Ranks.open>): Promise<Ranks> {
  const ranks = await Ranks.open(...args);
  closeLater(ranks);
  return ranks;
}

export async function openAlone(dir: string, options: Partial<OpenModelOptions> = {}): Promise<OpenedModel> {
  const model = await openModel(dir, { ...TEST_MODEL_OPTIONS, ...options });
  closeLater(model);
  return model;
}
