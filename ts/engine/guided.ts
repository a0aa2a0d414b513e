/**
 * Choices that are kept to a grammar: which format a call asks for, and the masks of a step.
 * @module
 */

import { LongcatError } from "../errors.js";
import type { AnswerFormat } from "../grammar/index.js";
import type { Parameters } from "../sampling/parameters.js";
import type { ChatAnswer, ToolChoice } from "../text/index.js";
import { eventLoopTurn } from "./event-loop.js";
import type { TextTools } from "./prompt.js";
import type { Batch } from "./scheduler.js";

/** What of a call decides on its format. */
export interface GuidedCall {
  parameters: Partial<Pick<Parameters, "responseFormat" | "ignoreEos">>;
  /** Of the chat or the parameters. */
  toolChoice: ToolChoice | undefined;
  /** Absent: text or ids. */
  chat: ChatAnswer | undefined;
}

/**
 * What a call's answers are kept to, checked; undefined: they are free.
 *
 * @throws LongcatError `OPTION_INVALID`: a schema that cannot be kept, or parameters that exclude each other.
 */
export async function answerFormat(call: GuidedCall, text: TextTools | undefined): Promise<AnswerFormat | undefined> {
  const format = formatOf(call);
  if (format === undefined) return undefined;
  const name = format.json === undefined ? "toolChoice" : "responseFormat";
  if (call.parameters.ignoreEos)
    throw new LongcatError("OPTION_INVALID", `ignoreEos: not with ${name}, whose answer ends when it is whole`);
  if (text?.grammars === undefined) throw new LongcatError("OPTION_INVALID", `${name}: needs a checkpoint with a tokenizer`);
  await text.grammars.check(format);
  return JSON.parse(JSON.stringify(format)) as AnswerFormat; // a caller's schema may be no plain data: grammars are of its JSON
}

/** Of text and ids. */
const NO_CHAT: ChatAnswer = { tools: [], callForm: "json", startsInReasoning: false };

function formatOf({ parameters: { responseFormat }, toolChoice, chat }: GuidedCall): AnswerFormat | undefined {
  const { tools, callForm: form, startsInReasoning } = chat ?? NO_CHAT;
  const afterReasoning = startsInReasoning !== false;
  if (toolChoice === undefined || toolChoice === "auto" || toolChoice === "none") {
    if (responseFormat === undefined) return undefined;
    // Left to itself the model may call a tool instead, with any arguments.
    const free = tools.map(({ function: { name } }) => ({ name, parameters: undefined, path: "tools" }));
    return { json: responseFormat, afterReasoning, ...(free.length > 0 && { calls: { tools: free, several: true, form } }) };
  }
  if (responseFormat !== undefined)
    throw new LongcatError(
      "OPTION_INVALID",
      "responseFormat: not with a toolChoice that demands a call, which is no such answer; give one",
    );
  const callable = tools.map(({ function: { name, parameters: schema } }, i) => ({
    name,
    parameters: schema,
    path: `tools[${i}].function.parameters`,
  }));
  const wanted = toolChoice === "required" ? callable : callable.filter(({ name }) => name === toolChoice.function.name);
  return { calls: { tools: wanted, several: toolChoice === "required", form }, afterReasoning };
}

/** How long making masks may keep the event loop from turning. */
const LONGEST_TURN_MS = 8;

/** Gives the guided sequences of a step their masks. One whose guide fails, fails alone. */
export async function setMasks(entries: Batch["entries"]): Promise<void> {
  let turned = performance.now();
  for (const { sequence, step } of entries) {
    if (sequence.guide === undefined || !step.sample || sequence.state === "ended") continue;
    if (performance.now() - turned > LONGEST_TURN_MS) {
      await eventLoopTurn();
      turned = performance.now();
    }
    try {
      step.mask = sequence.guide.mask();
    } catch (error) {
      sequence.fail(error);
    }
  }
}
