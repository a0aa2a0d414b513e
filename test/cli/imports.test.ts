/** The command line knows the public contract alone, but for the benches (docs/architecture.md). */
import { readdirSync, readFileSync } from "node:fs";
import { expect, it } from "vitest";

const FOLDER = new URL("../../ts/cli/", import.meta.url);
const ALLOWED: Record<string, string[]> = {
  "bench-all-to-all.ts": ["../engine/bench-all-to-all.js", "../engine/bench-ranks.js"],
  "bench-decode.ts": ["../engine/bench.js", "../engine/bench-model.js"],
  "bench-flags.ts": ["../engine/bench-model.js", "../engine/bench-ranks.js"],
  "bench-layer.ts": ["../engine/bench-layer.js", "../engine/bench-ranks.js", "../engine/options.js"],
  "bench-model.ts": ["../engine/bench-model.js"],
  "bench-prefill.ts": ["../engine/bench-model.js", "../engine/bench-prefill.js"],
  "bench-sampling.ts": ["../engine/bench-sampling.js"],
  "engine-flags.ts": ["../engine/options.js"],
  "bench-speculate.ts": ["../engine/bench-model.js", "../engine/bench-speculate.js", "../engine/options.js"],
  "inspect-routing.ts": ["../train/plot.js"],
  "lab.ts": ["../lab/index.js"],
  "layer-chart.ts": ["../engine/bench-layer.js"],
  "bench-serve.ts": ["completion-client", "loopback", "random", "serve-chart", "serve-load", "serve-report"].map(
    (name) => `../bench/${name}.js`,
  ),
  "serve.ts": ["../server/index.js"],
  "bench-kernels.ts": ["../runtime/gpus.js", "../runtime/kernels-program.js"],
};

it("ts/cli imports Node, its own files and ../index.js", () => {
  const files = readdirSync(FOLDER);
  expect(files).toContain("main.ts");
  const foreign = files.flatMap((file) => {
    const source = readFileSync(new URL(file, FOLDER), "utf8");
    const imported = [...source.matchAll(/\b(?:from|import)\s*\(?\s*"([^"]+)"/g)].map((match) => match[1] ?? "");
    return imported
      .filter((name) => !/^(node:|\.\/)/.test(name) && name !== "../index.js")
      .filter((name) => !ALLOWED[file]?.includes(name))
      .map((name) => `${file}: ${name}`);
  });
  expect(foreign).toEqual([]);
});
