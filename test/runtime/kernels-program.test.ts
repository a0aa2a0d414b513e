/** The `kernels` program refuses what would measure nothing and options that would have no effect, and speaks of GPUs as the engine does. */

import { spawnSync } from "node:child_process";
import { join, resolve } from "node:path";
import { expect, it } from "vitest";
import { findGpus } from "../../ts/runtime/gpus.js";
import { kernelsBeside } from "../../ts/runtime/kernels-program.js";
import { ROOT } from "./devices.js";

/** Exit code and complaint of a run. */
function kernels(...words: string[]): [number | null, string] {
  const program = kernelsBeside(resolve(process.env["LONGCAT_NATIVE"] ?? join(ROOT, "build", "Release", "longcat.node")));
  const { status, stderr } = spawnSync(program, words, { encoding: "utf8" });
  return [status, stderr.replace("; kernels --help says more\n", "")];
}

it.each([
  ["rms_norm --tokens 9000", "rms_norm (plain): there are up to 8192 --tokens"],
  ["mla_decode --shape mini --tokens 8192", "mla_decode (plain): there are up to 256 --tokens"],
  ["ngram_embed --shape flash", "ngram_embed (plain): the shape flash has no sizes for it"],
])("bench %s: nothing to measure, and why", (words, why) => {
  const args = [...words.split(" "), "--isa", "plain", "--threads", "1"];
  expect(kernels("bench", ...args)).toEqual([2, `usage error: nothing to measure: ${why}`]);
});

it.each([
  ["test rms_norm --isa plain --graph", "--graph needs a GPU, and the processor is tested"],
  ["test rms_norm --no-guards", "--no-guards needs a GPU, and the processor is tested"],
  ["bench rms_norm --threads 1 --fp8-activations", "--fp8-activations needs a GPU, and the processor is measured"],
  ["bench rms_norm --isa plain --portable", "--portable needs a GPU, and the processor is measured"],
  ["bench rms_norm --device cuda --threads 2", "--threads is the processor's, and a GPU is measured"],
  ["bench rms_norm --device cuda --graph", 'unknown argument "--graph"'],
])("%s: an option without effect is refused", (words, why) => {
  expect(kernels(...words.split(" "))).toEqual([2, `usage error: ${why}`]);
});

it("a GPU that is not there is DEVICE_UNAVAILABLE, in the engine's words", () => {
  const { devices, reason } = findGpus();
  const complaint =
    devices.length === 0
      ? reason
      : `cuda:99 is none of the GPUs that can be used: ${devices.map(({ ordinal }) => `cuda:${ordinal}`).join(", ")}`;
  expect(kernels("test", "rms_norm", "--device", "cuda:99")).toEqual([1, `error: DEVICE_UNAVAILABLE: ${complaint}\n`]);
});
