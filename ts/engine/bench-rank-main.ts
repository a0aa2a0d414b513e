/**
 * The program of a rank that is measured; started by bench-ranks.ts.
 * @module
 */

import { deviceOfRank, hostFacts } from "../parallel/rank-device.js";
import { toWire } from "../parallel/wire-error.js";
import { benchAllToAll } from "./bench-all-to-all.js";
import { benchLayer, type LayerPlan } from "./bench-layer.js";
import type { AllToAllPlan } from "./bench-all-to-all.js";
import type { BenchRank, FromRank, RankTask } from "./bench-ranks.js";

// Ctrl-C reaches all processes: the one that started this one decides what it means.
process.on("SIGINT", () => undefined);
const kill = (): unknown => process.kill(process.pid, "SIGKILL");
process.on("disconnect", kill);
if (!process.connected) kill();

function tell(message: FromRank): Promise<unknown> {
  return new Promise((resolve) => process.send!(message, resolve));
}

let answer: (values: unknown) => void;

function rankOf({ rank, ranks }: RankTask): BenchRank {
  return {
    ...{ rank, ranks },
    share: <T>(value: T) =>
      new Promise<T[]>((resolve) => {
        answer = resolve as (values: unknown) => void;
        void tell({ type: "share", value });
      }),
  };
}

async function run(task: RankTask): Promise<void> {
  const { rank, ranks } = task;
  const plan = {
    ...task.plan,
    ...deviceOfRank(task.plan, { localRank: rank, localRanks: ranks, ownRank: rank, ownRanks: ranks }, hostFacts()),
  };
  const report = async (value: unknown): Promise<void> => {
    if (rank === 0) await tell({ type: "reported", value });
  };
  if (task.bench === "all-to-all") await benchAllToAll(plan as AllToAllPlan, rankOf(task), report);
  else
    await benchLayer(
      plan as LayerPlan,
      { loaded: (facts) => void report({ loaded: facts }), measured: (result) => report({ measured: result }) },
      rankOf(task),
    );
}

process.once("message", (task: RankTask) => {
  process.on("message", (values) => answer(values));
  run(task).then(
    () => process.exit(0),
    (error: unknown) => tell({ type: "failed", error: toWire(error) }),
  );
});
