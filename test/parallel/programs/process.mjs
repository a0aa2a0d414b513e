// A process of a group, as a program that loads the engine: leads or follows as its environment says, answers if it leads, and does as it is told.
//   node process.mjs RANKS [OPTIONS]      then lines at stdin: "close", "answer", "leave", "leave busy"; "end" of the group is told at stdout, as all else: one JSON a line
import { createInterface } from "node:readline";
import { joinGroup, launcherPlace, startGroup } from "../../../dist/parallel/group.js";
import { resolveOptions } from "../../../dist/engine/options.js";
import { DEFAULT_PARAMETERS } from "../../../dist/sampling/parameters.js";
import { fileURLToPath } from "node:url";

const [ranks, more = "{}"] = process.argv.slice(2);
const tell = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);
const place = launcherPlace();
const { parallel, ...given } = JSON.parse(more);
const options = resolveOptions({
  ...{ device: "cpu", threads: 1, maxBatchTokens: 128, maxSequences: 8, cacheBytes: 16e6 },
  ...{ ...given, parallel: { expert: Number(ranks), ...parallel } },
});
const start = place !== undefined && place.index > 0 ? joinGroup : startGroup;
try {
  const group = await start({ directory: fileURLToPath(new URL("../../../models/mini", import.meta.url)), options, place });
  (group.lost ?? group.ended).then((error) => tell({ ended: error?.message ?? null }));
  if (group.generate === undefined) tell({ rank: group.rank, ranks: group.ranks });
  else tell({ pids: group.ranks.map(({ pid }) => pid) });
  createInterface({ input: process.stdin }).on("line", async (line) => {
    if (line === "answer") {
      const parameters = { ...DEFAULT_PARAMETERS, temperature: 0, maxTokens: 8, ignoreEos: true };
      const { tokens } = await group.generate(group.ranks.length - 1, { ids: [5, 9, 17] }, parameters, () => undefined).done;
      tell({ tokens });
    } else if (line === "leave") {
      process.stdin.destroy(); // nothing keeps the process now but the group
    } else if (line === "leave busy") {
      process.stdin.destroy();
      const parameters = { ...DEFAULT_PARAMETERS, temperature: 0, maxTokens: 3000, ignoreEos: true };
      const busy = group.generate(0, { ids: [5, 9, 17] }, parameters, () => tell({ busy: true }));
      await busy.done.catch(({ code }) => tell({ code }));
    } else {
      await group.close();
      tell({ closed: true });
      process.stdin.destroy();
    }
  });
} catch (error) {
  tell({ code: error.code, message: error.message });
  process.exitCode = 1;
}
