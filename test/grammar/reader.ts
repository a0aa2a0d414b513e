/** Reads and writes texts of a schema's grammar byte by byte, with a vocabulary of the single bytes. */
import { compileAnswer } from "../../ts/grammar/answer.js";
import type { Automaton, State } from "../../ts/grammar/automaton.js";

export const PATH = "schema";

export const automatonOf = (schema: unknown): Promise<Automaton> =>
  compileAnswer({ json: { schema, path: PATH }, afterReasoning: false }, () => undefined);

/** Whether the whole text is of the grammar. */
export function accepts(automaton: Automaton, text: string): boolean {
  let state: State | null = automaton.start;
  for (const byte of new TextEncoder().encode(text)) state = state && automaton.step(state, byte);
  return state?.mayEnd ?? false;
}

/** A text of the grammar, its bytes drawn by `random` (0 to 1); it hurries to an end after `hurry` bytes. */
export function write(automaton: Automaton, random: () => number, hurry: number): string {
  let state = automaton.start;
  const bytes: number[] = [];
  while (!state.isComplete) {
    if (state.mayEnd && (bytes.length > hurry || random() < 0.3)) break;
    const open: number[] = [];
    for (let byte = 0; byte < 256; byte++) if (automaton.step(state, byte) !== null) open.push(byte);
    const closing = open.filter((byte) => '"}]'.includes(String.fromCharCode(byte)));
    const from = bytes.length > hurry && closing.length > 0 && random() < 0.9 ? closing : open;
    const byte = from[Math.floor(random() * from.length)];
    if (byte === undefined) throw new Error(`a blind alley after ${Buffer.from(bytes)}`);
    bytes.push(byte);
    state = automaton.step(state, byte) as State;
    if (bytes.length > 100_000) throw new Error("no end");
  }
  return new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.from(bytes));
}

/** Numbers from 0 to 1 that are the same in every run. */
export function draws(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}
