/**
 * Sequences of a runner with drafts and without: what they give must be the same bits.
 */
import type { Runner } from "../../ts/model/runner.js";
import type { DrawnToken, SlotSampling, StepResult, StepSequence } from "../../ts/model/runner-types.js";

export const GREEDY: SlotSampling = {
  ...{ temperature: 0, topP: 1, topK: 0, minP: 0, repetitionPenalty: 1, presencePenalty: 0, frequencyPenalty: 0 },
  ...{ seed: 0, logprobs: 5, logitBias: new Map(), promptTokens: [] },
};

/** A sequence to be run: its prompt, how many tokens are wanted, how they are drawn, and how it is verified. */
export interface Work {
  prompt: readonly number[];
  count: number;
  sampling?: SlotSampling;
  /** Drafts of each of its steps in turn, again and again. */
  drafts: readonly number[];
  /** Tokens of a prompt's chunk; default: all. */
  chunk?: number;
  /** Instead of the first token that would be drawn. */
  forceFirst?: number;
}

/** What a sequence gave, and in how many decode steps. */
export interface Run {
  drawn: DrawnToken[];
  /** FFN experts of each position that was run. */
  experts: number[][];
  steps: number;
  /** Tokens that its last step drew. */
  rows: number;
}

/** One of them under way. */
class Job {
  readonly run: Run = { drawn: [], experts: [], steps: 0, rows: 0 };
  readonly #work: Work;
  readonly #slot: number;
  #computed = 0;

  constructor(runner: Runner, work: Work, slot: number, firstBlock: number) {
    this.#work = work;
    this.#slot = slot;
    const sampling = work.sampling ?? GREEDY;
    runner.setSampling(slot, { ...sampling, promptTokens: work.prompt });
    runner.setBlocks(
      slot,
      0,
      Array.from({ length: blocksOf(runner, work) }, (_, i) => firstBlock + i),
    );
  }

  get ended(): boolean {
    return this.run.drawn.length >= this.#work.count;
  }

  get inPrompt(): boolean {
    return this.#computed < this.#work.prompt.length;
  }

  next(): StepSequence {
    const { prompt, chunk = prompt.length, drafts, forceFirst } = this.#work;
    const [slot, position] = [this.#slot, this.#computed];
    const wanted = drafts[this.run.steps % drafts.length]!;
    if (!this.inPrompt) return { slot, position, tokens: null, sample: true, drafts: wanted };
    const tokens = prompt.slice(position, position + chunk);
    const end = position + tokens.length;
    if (end === prompt.length)
      return { slot, position, tokens, sample: true, drafts: wanted, ...(forceFirst !== undefined && { forceNext: forceFirst }) };
    return { slot, position, tokens, sample: false, following: prompt[end]! };
  }

  take({ tokens }: StepSequence, { drawn, ffnExperts }: StepResult): void {
    this.#computed += tokens?.length ?? drawn.length;
    this.run.drawn.push(...drawn);
    this.run.rows = drawn.length;
    this.run.experts.push(...ffnExperts.map((layers) => [...layers]));
    if (!tokens) this.run.steps++;
  }
}

function blocksOf(runner: Runner, { prompt, count }: Work): number {
  return Math.ceil(Math.min(prompt.length + count, runner.limits.contextLength) / runner.limits.blockSize);
}

/** Runs them together: one prompt after another starts, and those that have begun decode in the same steps. */
export async function runTogether(runner: Runner, works: readonly Work[]): Promise<Run[]> {
  const jobs: Job[] = [];
  let block = 0;
  for (const [slot, work] of works.entries()) {
    await runner.room();
    jobs.push(new Job(runner, work, slot, block));
    block += blocksOf(runner, work);
  }
  while (jobs.some((job) => !job.ended)) {
    const starting = jobs.find((job) => job.inPrompt);
    const part = [...(starting ? [starting] : []), ...jobs.filter((job) => !job.inPrompt && !job.ended)];
    const steps = part.map((job) => job.next());
    for (const [i, result] of (await runner.step(steps)).entries()) part[i]!.take(steps[i]!, result);
  }
  // What is drawn beyond the count, and the positions that led to it, are not asked for.
  return jobs.map(({ run }, i) => {
    const { count, prompt } = works[i]!;
    return { ...run, drawn: run.drawn.slice(0, count), experts: run.experts.slice(0, prompt.length + count - 1) };
  });
}
