/**
 * `longcat lab`: one of the report's claims, tried at toy width.
 * @module
 */

import { EXPERIMENTS, openLab, plotSvg } from "../lab/index.js";
import { chartFile, writeChart } from "./chart-file.js";
import { type Command, JSON_FLAG } from "./command.js";
import { UsageError } from "./flags.js";
import { interruptible } from "./interrupt.js";
import { alignColumns, note, print, printJson } from "./output.js";

const names = () => EXPERIMENTS.map(({ name }) => name).join(", ");

export const labCommand: Command = {
  usage: ["lab NAME"],
  about: `Trains some toy models on the CPU to see whether what the report says of training shows there, and prints the numbers and a verdict. NAME: ${names()}.`,
  flags: [
    { name: "brief", kind: "flag", help: "far fewer steps: some seconds, and a weaker verdict" },
    { name: "svg", kind: "text", value: "FILE", help: "writes a picture" },
    { name: "threads", kind: "number", value: "N", help: "threads of the CPU (default: all that this process may use)" },
    JSON_FLAG,
  ],
  maxPositionals: 1,
  run: async (flags) => {
    const [name = ""] = flags.positionals;
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
