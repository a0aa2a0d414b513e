/**
 * `longcat lab`: one of the report's claims, tried at toy width; or the corpus that such models can be trained on, as files.
 * @module
 */

import { EXPERIMENTS, openLab, plotSvg, writeCorpus } from "../lab/index.js";
import { chartFile, writeChart } from "./chart-file.js";
import { type Command, JSON_FLAG } from "./command.js";
import { type ParsedFlags, UsageError } from "./flags.js";
import { interruptible } from "./interrupt.js";
import { alignColumns, note, print, printJson } from "./output.js";

const names = () => EXPERIMENTS.map(({ name }) => name).join(", ");

export const labCommand: Command = {
  usage: ["lab NAME", "lab corpus OUT"],
  about: `Trains some toy models on the CPU to see whether what the report says of training shows there, and prints the numbers and a verdict. NAME: ${names()}. "lab corpus" writes stories, sums, recalls, tool uses and reasoning as JSONL to the new folder OUT.`,
  flags: [
    { name: "brief", kind: "flag", help: "far fewer steps: some seconds, and a weaker verdict" },
    { name: "svg", kind: "text", value: "FILE", help: "writes a picture" },
    { name: "documents", kind: "number", value: "N", help: "of each part of the corpus (default: 1000)" },
    { name: "seed", kind: "number", value: "S", help: "of the corpus (default: 0)" },
    { name: "threads", kind: "number", value: "N", help: "threads of the CPU (default: all that this process may use)" },
    JSON_FLAG,
  ],
  maxPositionals: 2,
  run: async (flags) => {
    const [name = "", output] = flags.positionals;
    if (name === "corpus") {
      if (output === undefined) throw new UsageError("lab corpus needs a folder: OUT");
      refuseFlags(flags, ["brief", "svg", "threads", "json"], "experiments");
      const [documents, seed] = [flags.number("documents"), flags.number("seed")];
      await print(
        `${writeCorpus(output, { ...(documents !== undefined && { documents }), ...(seed !== undefined && { seed }) }).join("\n")}\n`,
      );
      return undefined;
    }
    if (output !== undefined) throw new UsageError(`lab ${name} takes no further words`);
    refuseFlags(flags, ["documents", "seed"], "lab corpus");
    const experiment = EXPERIMENTS.find((one) => one.name === name);
    if (!experiment) throw new UsageError(`lab ${name === "" ? "needs one of" : `has no ${JSON.stringify(name)}; there are`} ${names()}`);
    const svg = chartFile(flags);
    const { claim } = experiment;
    const { table, verdict, agrees, plot } = await interruptible((signal) =>
      experiment.run(openLab(flags.on("brief"), flags.number("threads") ?? "auto", (run) => note(`run ${run} …`), signal)),
    );
    if (flags.on("json")) await printJson({ name, claim, agrees, verdict, table });
    else await print(`the report: ${claim}\n\n${alignColumns(table)}\n\n${agrees ? "agrees" : "does not agree"}: ${verdict}\n`);
    writeChart(svg, () => plotSvg(plot));
    return undefined;
  },
};

/** A flag that would do nothing is a mistake. */
function refuseFlags(flags: ParsedFlags, names: readonly string[], whose: string): void {
  const given = names.find((name) => flags.on(name) || flags.text(name) !== undefined);
  if (given !== undefined) throw new UsageError(`--${given} is for ${whose}`);
}
