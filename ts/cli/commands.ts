/**
 * The table of commands. Each is loaded when it is called for.
 * @module
 */

import type { Command } from "./command.js";
import { UsageError } from "./flags.js";

/** A command, or a group of subcommands. */
interface CommandEntry {
  readonly name: string;
  readonly summary: string;
  readonly load?: () => Promise<Command>;
  readonly subcommands?: Readonly<Record<string, () => Promise<Command>>>;
}

export const COMMANDS: readonly CommandEntry[] = [
  {
    name: "generate",
    summary: "continue a text or answer chat messages",
    load: async () => (await import("./generate.js")).generateCommand,
  },
  { name: "chat", summary: "talk to the model", load: async () => (await import("./chat.js")).chatCommand },
  { name: "serve", summary: "an OpenAI-compatible HTTP server", load: async () => (await import("./serve.js")).serveCommand },
  { name: "score", summary: "log-probability of each token of a text", load: async () => (await import("./score.js")).scoreCommand },
  {
    name: "inspect",
    summary: "model DIR | devices | estimate DIR: look before loading; routing DIR TEXT…: which experts texts choose",
    subcommands: {
      model: async () => (await import("./inspect.js")).inspectModelCommand,
      devices: async () => (await import("./inspect.js")).inspectDevicesCommand,
      estimate: async () => (await import("./inspect.js")).inspectEstimateCommand,
      routing: async () => (await import("./inspect-routing.js")).inspectRoutingCommand,
    },
  },
  {
    name: "quantize",
    summary: "write a block-FP8 copy of a checkpoint",
    load: async () => (await import("./quantize.js")).quantizeCommand,
  },
  { name: "train", summary: "train a small model on the CPU", load: async () => (await import("./train.js")).trainCommand },
  { name: "lab", summary: "try a claim of the report at toy width", load: async () => (await import("./lab.js")).labCommand },
  {
    name: "bench",
    summary: "decode | prefill | layer | all-to-all | kernels | sampling | speculate | serve: speed beside what the machine allows",
    subcommands: {
      decode: async () => (await import("./bench-decode.js")).benchDecodeCommand,
      prefill: async () => (await import("./bench-prefill.js")).benchPrefillCommand,
      layer: async () => (await import("./bench-layer.js")).benchLayerCommand,
      "all-to-all": async () => (await import("./bench-all-to-all.js")).benchAllToAllCommand,
      kernels: async () => (await import("./bench-kernels.js")).benchKernelsCommand,
      sampling: async () => (await import("./bench-sampling.js")).benchSamplingCommand,
      speculate: async () => (await import("./bench-speculate.js")).benchSpeculateCommand,
      serve: async () => (await import("./bench-serve.js")).benchServeCommand,
    },
  },
  {
    name: "doctor",
    summary: "what was found on this machine and what is missing",
    load: async () => (await import("./doctor.js")).doctorCommand,
  },
];

/** The command that `first` and the words after it name, and the words left over for it. */
export async function findCommand(first: string, rest: readonly string[]): Promise<{ command: Command; words: readonly string[] }> {
  const entry = COMMANDS.find((candidate) => candidate.name === first);
  if (entry === undefined) {
    throw new UsageError(`unknown command ${JSON.stringify(first)}; there are ${COMMANDS.map((candidate) => candidate.name).join(", ")}`);
  }
  if (entry.load) return { command: await entry.load(), words: rest };
  const subcommands = entry.subcommands ?? {};
  const [second = "", ...words] = rest;
  if (second === "--help" || second === "-h") return { command: groupHelp(entry), words: ["--help"] };
  const load = Object.hasOwn(subcommands, second) ? subcommands[second] : undefined;
  if (load === undefined) {
    const what = second === "" ? "needs one of" : `has no ${JSON.stringify(second)}; there are`;
    throw new UsageError(`longcat ${first} ${what} ${Object.keys(subcommands).join(", ")}`);
  }
  return { command: await load(), words };
}

/** What `longcat inspect --help` prints. */
function groupHelp(entry: CommandEntry): Command {
  const names = Object.keys(entry.subcommands ?? {});
  return {
    usage: names.map((name) => `${entry.name} ${name} …`),
    about: `Each has its own help: longcat ${entry.name} ${names[0]} --help.`,
    flags: [],
    maxPositionals: 0,
    run: async () => 0,
  };
}
