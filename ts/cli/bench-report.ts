/**
 * What a benchmark reports while it runs: kept for the JSON document, or printed at once.
 * @module
 */

import { print } from "./output.js";

/** A benchmark's report, and what has been reported so far. */
export interface BenchReport<Facts, Result> {
  readonly results: Result[];
  facts: Facts | undefined;
  loaded(facts: Facts): void;
  measured(result: Result): Promise<void>;
}

/** With `json` everything is kept and nothing printed; else `introduce` says what is measured, and each result's `text` is printed. */
export function benchReport<Facts, Result>(
  json: boolean,
  introduce: (facts: Facts) => void,
  text: (result: Result) => string,
): BenchReport<Facts, Result> {
  const report: BenchReport<Facts, Result> = {
    results: [],
    facts: undefined,
    loaded: (facts) => {
      report.facts = facts;
      if (!json) introduce(facts);
    },
    measured: async (result) => {
      report.results.push(result);
      if (!json) await print(text(result));
    },
  };
  return report;
}
