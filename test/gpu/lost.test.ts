/** A GPU that is lost: everything is refused with the fault that lost it, told by operation and place, and the process lives on (lose.ts). */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { it } from "node:test";
import { fileURLToPath } from "node:url";
import { describeOnGpu } from "./gpu.js";

const PROGRAM = fileURLToPath(new URL("lose.js", import.meta.url));

/** Where it was noticed, and what CUDA says. */
const NOTICED = String.raw`.* at native/[\w/.]+:\d+: cudaError\w+: .*\. The GPU is lost to this process: start a new one$`;

/** Without waiting, it is noticed by whatever asks next: an operation's launch, another call, or the look for results, which knows the last launch alone. */
const byWhom = (last: string) =>
  String.raw`^(operation "\w+" on queue \d failed:|\w+ on queue \d failed:|work under way failed: the last operation that was launched is "${last}")`;

const WAYS = [
  ["a step", byWhom(String.raw`\w+`) + NOTICED],
  ["a step, each operation awaited", `^operation "rms_norm" on queue 0 failed:${NOTICED}`],
  ["a replay", byWhom(String.raw`graph \d+`) + NOTICED],
  ["a replay, each operation awaited", String.raw`^operation "embed" of graph \d+ on queue 0 failed:` + NOTICED],
  ["the engine", byWhom(String.raw`\w+`) + NOTICED],
] as const;

describeOnGpu("a GPU that is lost", () => {
  for (const [way, message] of WAYS)
    it(`in ${way}: everything after it is refused with that fault`, () => {
      const { status, signal, stdout, stderr } = spawnSync(process.execPath, [PROGRAM, way], { encoding: "utf8", timeout: 120_000 });
      assert.deepEqual([status, signal], [0, null], stderr);
      const { told, cpu } = JSON.parse(stdout) as { told: { code: string; message: string }[]; cpu: number[] };
      assert.equal(told.length, 3);
      for (const one of told) assert.equal(one.code, "CUDA_ERROR");
      assert.match(told[0]!.message, new RegExp(message, "s"));
      for (const { message: again } of told) assert.ok(again.includes(told[0]!.message), again);
      assert.deepEqual(cpu, [1, 2, 3, 4]);
    });
});
