/**
 * Which experts the tokens of texts choose: texts run as prompts, as many in a step as fit, and the router's picks are kept.
 * @module
 */

import type { Queue, Tensor } from "../runtime/device.js";
import type { Tap } from "./program.js";
import type { Runner } from "./runner.js";
import type { RunnerLimits } from "./runner-types.js";

/** What some consecutive tokens chose. */
export interface RoutedRows {
  rows: number;
  /** [L, rows, K]: ids of experts, ascending; those from N on are zero experts. */
  ids: Int32Array;
}

/**
 * Runs texts and gives what their tokens chose, in the order of the texts. Slots and the cache's blocks are used from the first on: nothing else may run
 * on the runner meanwhile.
 *
 * @param texts each of 1 token to the context's length
 */
export async function* routeTexts(runner: Runner, texts: readonly (readonly number[])[]): AsyncGenerator<RoutedRows> {
  const { limits } = runner;
  const { program } = runner.promptProgram();
  const probe = new Probe(runner);
  program.tap = probe;
  try {
    for (const group of groupTexts(texts, limits)) {
      takeSlots(runner, group);
      // Several texts fit a step whole; one alone may take many.
      const longest = Math.max(...group.map(({ length }) => length));
      for (let position = 0; position < longest; position += limits.maxBatchTokens) {
        const chunks = group.map((text) => text.slice(position, position + limits.maxBatchTokens));
        probe.rows = chunks.reduce((sum, { length }) => sum + length, 0);
        await runner.step(chunks.map((tokens, slot) => ({ slot, position, tokens, sample: false })));
        yield { rows: probe.rows, ids: await probe.read(runner.queue) };
      }
    }
  } finally {
    delete program.tap;
    probe.release();
  }
}

/** Cuts a list of texts into those that run together: as many as fit one step with their latents, or one that is longer. Pure. */
export function* groupTexts<T extends { readonly length: number }>(
  texts: readonly T[],
  { maxBatchTokens, maxSequences, blockSize, numBlocks }: Pick<RunnerLimits, "maxBatchTokens" | "maxSequences" | "blockSize" | "numBlocks">,
): Generator<T[]> {
  let group: T[] = [];
  let [rows, blocks] = [0, 0];
  for (const text of texts) {
    const more = Math.ceil(text.length / blockSize);
    const fits = rows + text.length <= maxBatchTokens && blocks + more <= numBlocks && group.length < maxSequences;
    if (group.length > 0 && !fits) {
      yield group;
      group = [];
      [rows, blocks] = [0, 0];
    }
    group.push(text);
    rows += text.length;
    blocks += more;
  }
  if (group.length > 0) yield group;
}

/** Gives each text a slot and its blocks. */
function takeSlots(runner: Runner, group: readonly { readonly length: number }[]): void {
  let next = 0;
  for (const [slot, { length }] of group.entries()) {
    const blocks = Array.from({ length: Math.ceil(length / runner.limits.blockSize) }, () => next++);
    runner.setBlocks(slot, 0, blocks);
  }
}

/** A tap that copies each layer's picks aside. */
class Probe implements Tap {
  /** Of the step that is enqueued next. */
  rows = 0;
  readonly #layers: number;
  readonly #topK: number;
  /** [L, rows, K], of a step's most rows. */
  readonly #picks: Tensor;

  constructor({ device, limits: { numLayers, maxBatchTokens, topK } }: Runner) {
    this.#layers = numLayers;
    this.#topK = topK;
    this.#picks = device.tensor("int32", [numLayers * maxBatchTokens * topK]);
  }

  hiddenBefore(): void {}

  routing(queue: Queue, index: number, ids: Tensor): void {
    const bytes = this.rows * this.#topK * Int32Array.BYTES_PER_ELEMENT;
    queue.copy(ids, 0, this.#picks, index * bytes, bytes);
  }

  async read(queue: Queue): Promise<Int32Array> {
    const ids = new Int32Array(this.#layers * this.rows * this.#topK);
    await queue.read(this.#picks, ids);
    return ids;
  }

  release(): void {
    this.#picks.release();
  }
}
