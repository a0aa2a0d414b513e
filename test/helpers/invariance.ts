/**
 * What a runner's numbers may not depend on (docs/numerics.md), whatever its device and latent cache hold: chunks, batch mates, mixed steps, places.
 * Bits, not tolerances. Failures are thrown by node:assert, which Vitest and Node's own test runner both understand.
 */
import assert from "node:assert/strict";
import type { Runner } from "../../ts/model/runner.js";
import type { StepResult } from "../../ts/model/runner-types.js";
import { greedy, takeSlot } from "./goldens.js";
import { batch, bits, prompt, staggered } from "./runs.js";

/** Tokens of each run. */
export const STEPS = 12;

/** Around the ends of blocks and of tiles of keys; together they fit one step. */
const LENGTHS = [1, 13, 15, 16, 17, 63, 64, 65, 129];

/** More keys than one split of decode attention has; not in every model's context. */
const LONG = 300;

function withLong(lengths: readonly number[], { limits }: Runner): number[] {
  return LONG + STEPS <= limits.contextLength ? [...lengths, LONG] : [...lengths];
}

/** A prompt's bits where it is alone, in a slot and in blocks that no batch here gives it. */
async function alone(runner: Runner, length: number, seed: number): Promise<ReturnType<typeof bits>> {
  return bits(await greedy(runner, prompt(length, seed), STEPS, { logprobs: 5, slot: 3, firstBlock: 40 }));
}

/** Prompts in one chunk and in many. */
async function sameInAnyChunks(runner: Runner): Promise<void> {
  for (const length of withLong([17, 129], runner)) {
    const whole = await alone(runner, length, 1);
    for (const chunk of length === LONG ? [64] : [1, 7, 16, 64])
      assert.deepEqual(bits(await greedy(runner, prompt(length, 1), STEPS, { logprobs: 5, chunk })), whole, `${length} by ${chunk}`);
  }
}

/** Prompts alone and in one step, then decoded together; at any place in cache and batch. */
async function sameInAnyBatch(runner: Runner): Promise<void> {
  const order = [4, 0, 8, 2, 6, 1, 7, 3, 5].map((i) => LENGTHS[i]!);
  const together = await batch(
    runner,
    order.map((length) => prompt(length, length)),
    STEPS,
  );
  for (const [i, length] of order.entries())
    assert.deepEqual(bits(together[i]!), await alone(runner, length, length), `length ${length} in a batch`);
}

/** Steps that hold a prompt's chunk and decode rows of others. */
async function sameInMixedSteps(runner: Runner): Promise<void> {
  const lengths = withLong(LENGTHS, runner);
  const mixed = await staggered(
    runner,
    lengths.map((length) => prompt(length, length)),
    STEPS,
    7,
  );
  for (const [i, length] of lengths.entries())
    assert.deepEqual(bits(mixed[i]!), await alone(runner, length, length), `length ${length} in mixed steps`);
}

/** A sequence whose latents are read to host memory, overwritten, and written back to other blocks: what preemption does. One comes from a block's copy. */
async function sameAfterMoving(runner: Runner): Promise<void> {
  const computed = 5;
  const tokens = prompt(37, 5);
  const whole = await alone(runner, tokens.length, 5);
  const start = await greedy(runner, tokens, computed, { logprobs: 5 });
  runner.copyBlock(2, 50);
  const saved = await Promise.all([0, 1, 50].map((block) => runner.readBlock(block)));
  await greedy(runner, prompt(60, 6), 3); // over the blocks and the slot that it had
  takeSlot(runner, 4, 20, tokens.length + STEPS, 5);
  runner.setHistory(4, [...tokens, ...bits(start).map(({ token }) => token)]);
  for (const [i, bytes] of saved.entries()) runner.writeBlock(20 + i, bytes);
  const rest: StepResult[] = [];
  for (let i = computed; i < STEPS; i++)
    rest.push(...(await runner.step([{ slot: 4, position: tokens.length + i - 1, tokens: null, sample: true }])));
  assert.deepEqual(bits([...start, ...rest]), whole);
}

/** The cases, by what they say: the same bits … */
export const SAME_BITS: Readonly<Record<string, (runner: Runner) => Promise<void>>> = {
  "whatever the prompt's chunks": sameInAnyChunks,
  "alone and in a batch, at any place in cache and batch": sameInAnyBatch,
  "where prompts and decodes share their steps": sameInMixedSteps,
  "when latents are moved out of the device and back, to other blocks and another slot": sameAfterMoving,
};
