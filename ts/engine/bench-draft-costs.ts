/**
 * What verification and drafting take, each timed alone: the T_T, T_V and T_D of MagicDec's formula (ts/engine/speculation.ts). Replays of
 * recorded graphs, without engine, scheduler and results.
 * @module
 */

import { forward, head, sample } from "../model/model.js";
import { type DraftingWeights, makeDrafts } from "../model/mtp.js";
import type { Program } from "../model/program.js";
import type { Runner } from "../model/runner.js";
import type { Graph, Tensor } from "../runtime/device.js";
import { median, timeReplays } from "./bench-device.js";
import { fillSlots } from "./bench-model.js";

/** Of steps that decode a batch, in microseconds. */
export interface DraftCosts {
  /** T_T: a step without drafts, or T_V: one that verifies them; from tokens to tokens. */
  verifyUs: number;
  /** γ·T_D: the making of all drafts of a step. 0 without. */
  draftUs: number;
}

/** What to time, and how often: medians. */
export interface DraftCostPlan {
  /** Token ids of each row; steps go on behind them. */
  rows: readonly { tokens: number[] }[];
  temperature: number;
  /** Numbers of drafts; 0 for a step without. */
  drafts: readonly number[];
  samples: number;
  signal: AbortSignal | undefined;
}

/**
 * Times steps of these rows with each number of drafts; they take turns, so that what the machine does beside them falls on all alike.
 *
 * Each replay is the same step again, from the same lengths on. The drafts that it verifies are after a few replays what those before have
 * drawn: all of them are accepted, and a step does the most that it can.
 */
export async function timeDraftCosts(runner: Runner, weights: DraftingWeights, plan: DraftCostPlan): Promise<DraftCosts[]> {
  const { rows, temperature, samples, signal } = plan;
  // A step verifies the drafts behind the newest token, and makes as many more.
  await fillSlots(runner, rows, 2 * (Math.max(...plan.drafts) + 1), temperature);
  const before = runner.device.tensor("int32", [runner.limits.maxSequences]);
  const behind = runner.device.tensor("int32", [runner.limits.maxSequences]);
  const steps = plan.drafts.map((drafts) => new RecordedStep(runner, weights, { rows, drafts, before, behind }));
  try {
    const { lengths } = steps[0]!.program.state;
    runner.queue.copy(lengths, 0, before, 0, lengths.bytes);
    for (const step of steps) await step.record();
    const costs = steps.map((): DraftCosts[] => []);
    for (let i = 0; i < samples; i++) for (const [s, step] of steps.entries()) costs[s]?.push(await step.time(signal));
    return costs.map((all) => ({
      verifyUs: median(all.map(({ verifyUs }) => verifyUs)),
      draftUs: median(all.map(({ draftUs }) => draftUs)),
    }));
  } finally {
    for (const step of steps) step.release();
    before.release();
    behind.release();
  }
}

/** Rows and drafts of a step, and where slots' lengths are kept: as they are before it, and behind its draws. */
interface StepSetting extends Pick<DraftCostPlan, "rows"> {
  drafts: number;
  before: Tensor;
  behind: Tensor;
}

/** A step, recorded in parts. */
class RecordedStep {
  readonly program: Program;
  readonly #runner: Runner;
  readonly #weights: DraftingWeights;
  readonly #setting: StepSetting;
  readonly #input: Uint8Array;
  readonly #graphs: Graph[] = [];

  constructor(runner: Runner, weights: DraftingWeights, setting: StepSetting) {
    const { rows, drafts } = setting;
    const { program, blocks } = runner.decodeProgram(rows.length, drafts);
    blocks.writeStep(rows.map(({ tokens }, slot) => ({ slot, position: tokens.length, tokens: null, sample: true, drafts })));
    this.program = program;
    this.#runner = runner;
    this.#weights = weights;
    this.#setting = setting;
    this.#input = blocks.input;
  }

  /** Verification; and, where there are drafts, their making behind a step's plan, and the plan alone. A recording runs once. */
  async record(): Promise<void> {
    const { drafts, behind } = this.#setting;
    await this.#begin();
    await this.#keep(() => this.#verify());
    if (drafts === 0) return;
    this.#copy(this.program.state.lengths, behind);
    await this.#keep(() => {
      this.#plan();
      makeDrafts(this.#runner.queue, this.program, this.#weights, drafts);
    });
    await this.#keep(() => this.#plan());
  }

  async time(signal: AbortSignal | undefined): Promise<DraftCosts> {
    const { queue } = this.#runner;
    const us = async (graph: Graph): Promise<number> => 1e6 * (await timeReplays(queue, graph, 1, signal));
    const [verify, draft, plan] = this.#graphs as [Graph, Graph?, Graph?];
    await this.#begin();
    const verifyUs = await us(verify);
    if (!draft || !plan) return { verifyUs, draftUs: 0 };
    this.#copy(this.program.state.lengths, this.#setting.behind);
    return { verifyUs, draftUs: (await us(draft)) - (await us(plan)) };
  }

  release(): void {
    for (const graph of this.#graphs) graph.release();
  }

  async #keep(enqueue: () => void): Promise<void> {
    await this.#runner.queue.room();
    this.#graphs.push(await this.#runner.device.record(enqueue));
  }

  /** Writes the step's block: programs lie over each other. */
  async #begin(): Promise<void> {
    const { queue } = this.#runner;
    await queue.room();
    queue.write(this.program.stepBlock, this.#input);
    await queue.done();
  }

  /** A whole step without the making of drafts. */
  #verify(): void {
    const { queue } = this.#runner;
    this.#copy(this.#setting.before, this.program.state.lengths);
    forward(queue, this.program, this.#weights);
    head(queue, this.program, this.#weights);
    sample(queue, this.program, this.program.turns.length);
  }

  /** A step of a model without layers, whose rows can be drafted from as any others; and the lengths as a whole step leaves them. */
  #plan(): void {
    this.#copy(this.#setting.before, this.program.state.lengths);
    forward(this.#runner.queue, this.program, { ...this.#weights, layers: [] });
    this.#copy(this.#setting.behind, this.program.state.lengths);
  }

  #copy(from: Tensor, to: Tensor): void {
    this.#runner.queue.copy(from, 0, to, 0, from.bytes);
  }
}
