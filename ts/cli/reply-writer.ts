/**
 * Shows a streamed reply to people: text on standard output, reasoning dimmed on standard error, tool calls as one line each.
 * @module
 */

import type { Chunk } from "../index.js";
import { print, styled } from "./output.js";

/** One reply. Write its chunks, then end it. */
export class ReplyWriter {
  /** The visible text so far. */
  text = "";
  readonly #calls: { name: string; arguments: string }[] = [];
  #reasoning = "";

  async write(chunk: Pick<Chunk, "text" | "reasoning" | "toolCallDelta">): Promise<void> {
    if (chunk.reasoning) {
      this.#reasoning += chunk.reasoning;
      process.stderr.write(styled(process.stderr, "dim", chunk.reasoning));
    }
    const delta = chunk.toolCallDelta;
    if (delta !== undefined) {
      const call = (this.#calls[delta.index] ??= { name: "", arguments: "" });
      call.name += delta.name ?? "";
      call.arguments += delta.arguments ?? "";
    }
    if (chunk.text === "") return;
    if (this.text === "") this.#endReasoning();
    this.text += chunk.text;
    await print(chunk.text);
  }

  /** The lines that end a reply: tool calls, and a line break after the text. */
  async end(): Promise<void> {
    if (this.text === "") this.#endReasoning();
    else if (!this.text.endsWith("\n")) await print("\n");
    for (const call of this.#calls) await print(`${styled(process.stdout, "cyan", `→ ${call.name}`)}(${call.arguments})\n`);
  }

  #endReasoning(): void {
    if (this.#reasoning !== "" && !this.#reasoning.endsWith("\n")) process.stderr.write("\n");
    this.#reasoning = "";
  }
}
