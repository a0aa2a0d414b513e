/**
 * `longcat chat`: a conversation on the terminal, or line by line from standard input.
 * @module
 */

import { createInterface, type Interface } from "node:readline";
import { type Engine, type GenerateParams, LongcatError, type Message } from "../index.js";
import type { Command } from "./command.js";
import { ENGINE_FLAGS, leading, loadEngine } from "./engine-flags.js";
import { type Flag, UsageError } from "./flags.js";
import { INTERRUPTED, interrupt, interruptible, isInterruptible } from "./interrupt.js";
import { note, styled } from "./output.js";
import { generateParams, PARAMETER_FLAGS } from "./parameter-flags.js";
import { ReplyWriter } from "./reply-writer.js";

const CHAT_FLAGS: readonly Flag[] = [
  { name: "system", kind: "text", value: "TEXT", help: "what the model is told first" },
  { name: "think", kind: "flag", help: "let the model reason before each answer" },
];

const COMMANDS_HELP = "/exit ends, /reset forgets the conversation, /think turns reasoning on or off; Ctrl-C stops a reply";

/** Parameters that make no sense in a conversation on the terminal. */
const NOT_FOR_CHAT = ["n", "logprobs", "response-format", "tool-choice", "parse-special"];

export const chatCommand: Command = {
  usage: ["chat [flags]"],
  about: `A conversation with the model, streaming. ${COMMANDS_HELP}.\nStandard input may be a pipe: each line is one message, standard output carries the replies alone.`,
  flags: [...CHAT_FLAGS, ...PARAMETER_FLAGS.filter((flag) => !NOT_FOR_CHAT.includes(flag.name)), ...ENGINE_FLAGS],
  maxPositionals: 0,
  run: (flags) =>
    leading(flags, async () => {
      const params = generateParams(flags);
      const system = flags.text("system");
      if (system === "") throw new UsageError('--system: "" is empty');
      const engine = await interruptible((signal) => loadEngine(flags, signal));
      try {
        await checkConversation(engine, params, system);
        return await new Conversation(engine, params, system, flags.on("think")).run();
      } finally {
        await engine.close();
      }
    }),
};

/** What no message could mend is said before the first one: impossible parameters, a checkpoint without tokenizer or template. */
async function checkConversation(engine: Engine, params: GenerateParams, system: string | undefined): Promise<void> {
  await engine.generate([], params);
  const told: Message[] = system === undefined ? [] : [{ role: "system", content: system }];
  await engine.tokenize({ messages: [...told, { role: "user", content: "?" }] });
}

/** The turns so far, and the terminal. */
class Conversation {
  readonly #engine: Engine;
  readonly #params: GenerateParams;
  readonly #system: readonly Message[];
  #messages: Message[] = [];
  #think: boolean;
  #idleInterrupts = 0;
  #failedTurns = 0;

  constructor(engine: Engine, params: GenerateParams, system: string | undefined, think: boolean) {
    this.#engine = engine;
    this.#params = params;
    this.#system = system === undefined ? [] : [{ role: "system", content: system }];
    this.#think = think;
  }

  /** Reads lines until the end of input or /exit. The exit code: 1 if a message from a pipe was not answered. */
  async run(): Promise<number> {
    const terminal = process.stdin.isTTY === true;
    const prompt = terminal ? styled(process.stdout, "green", "> ") : "";
    const lines = createInterface({ input: process.stdin, ...(terminal ? { output: process.stdout } : {}), terminal, prompt });
    let interrupted = false;
    lines.on("SIGINT", () => {
      if (isInterruptible()) return interrupt();
      if (++this.#idleInterrupts > 1) {
        interrupted = true;
        return lines.close();
      }
      note("\n(Ctrl-C again or /exit to leave)");
      lines.prompt();
    });
    if (terminal) note(COMMANDS_HELP);
    await this.#readLines(lines, terminal);
    if (interrupted) return INTERRUPTED;
    return !terminal && this.#failedTurns > 0 ? 1 : 0;
  }

  async #readLines(lines: Interface, terminal: boolean): Promise<void> {
    if (terminal) lines.prompt();
    for await (const line of lines) {
      this.#idleInterrupts = 0;
      const text = line.trim();
      if (text === "/exit" || text === "/quit") break;
      if (text.startsWith("/")) this.#command(text);
      else if (text !== "") await this.#turn(line);
      if (terminal) lines.prompt();
    }
    lines.close();
  }

  #command(text: string): void {
    if (text === "/reset") {
      this.#messages = [];
      note("(conversation forgotten)");
    } else if (text === "/think") {
      this.#think = !this.#think;
      note(`(reasoning ${this.#think ? "on" : "off"})`);
    } else note(`unknown command ${text}: ${COMMANDS_HELP}`);
  }

  /** One message and its reply. A reply that was stopped is kept as far as it came; one that failed leaves the turn out. */
  async #turn(content: string): Promise<void> {
    const messages: Message[] = [...this.#messages, { role: "user", content }];
    const writer = new ReplyWriter();
    const prompt = { messages: [...this.#system, ...messages], ...(this.#think ? { enableThinking: true } : {}) };
    try {
      await interruptible(async (signal) => {
        for await (const chunk of this.#engine.stream(prompt, { ...this.#params, signal })) await writer.write(chunk);
      });
    } catch (error) {
      if (!(error instanceof LongcatError)) throw error;
      if (error.code !== "ABORTED") {
        note(`error: ${error.code}: ${error.message}`);
        this.#failedTurns++;
        return;
      }
    } finally {
      await writer.end();
    }
    this.#messages = [...messages, { role: "assistant", content: writer.text }];
  }
}
