/** Whole runs: their folder, stopping and going on, and the command. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { growTraining, type LongcatErrorCode, resumeTraining, type TrainStep, train } from "../../ts/index.js";
import { longcat } from "../cli/longcat.js";
import { refused } from "../helpers/mini.js";
import { TOY, toyRun } from "../helpers/training.js";

let dir = "";
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "longcat-train-"));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const SHORT = toyRun({ steps: 12, saveEvery: 5, evaluateEvery: 6 });

/** Every file below a folder, as bytes. */
function filesOf(folder: string): Record<string, string> {
  const names = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return Object.fromEntries(
    names.map(({ parentPath, name }) => [join(parentPath, name).slice(folder.length), readFileSync(join(parentPath, name), "base64")]),
  );
}

describe("a run", () => {
  it("leaves checkpoints, a line a step, and a picture", async () => {
    const output = join(dir, "whole");
    const steps: TrainStep[] = [];
    const result = await train(SHORT, output, { threads: 2, onStep: (step) => steps.push(step) });
    expect(result).toEqual({ steps: 12, heldOutLoss: steps.at(-1)!.heldOutLoss, checkpoint: join(output, "checkpoint-00000012") });
    expect(readdirSync(output).sort()).toEqual([
      "checkpoint-00000005",
      "checkpoint-00000010",
      "checkpoint-00000012",
      "loss.svg",
      "steps.csv",
    ]);
    expect(steps.map(({ heldOutLoss }) => heldOutLoss !== null)).toEqual(steps.map(({ step }) => step % 6 === 0));
    const [header, ...lines] = readFileSync(join(output, "steps.csv"), "utf8").trimEnd().split("\n");
    expect(header).toBe(
      "step,loss,held_out_loss,z_loss,balance_loss,hidden_norm,gradient_norm,rate_share,ffn_experts_0,ffn_experts_1,ffn_spread_0,ffn_spread_1," +
        "router_similarity_0,router_similarity_1,gradient_ratio_0,gradient_ratio_1,fullest_group_0,fullest_group_1",
    );
    expect(lines.map((line) => line.split(",").slice(0, 2).map(Number))).toEqual(steps.map(({ step, loss }) => [step, loss]));
    expect(readFileSync(join(output, "loss.svg"), "utf8")).toMatch(/^<svg .*<circle .*<\/svg>\n$/s);
  });

  it("that is stopped saves what is done, and goes on to the same files", async () => {
    const output = join(dir, "stopped");
    const stop = new AbortController();
    const stopped = train(SHORT, output, { signal: stop.signal, onStep: ({ step }) => step === 7 && stop.abort() });
    await expect(stopped).rejects.toThrow(refused("ABORTED", "after 7 of 12 steps"));
    await resumeTraining(output, { threads: 1 });
    rmSync(join(output, "checkpoint-00000007"), { recursive: true });
    expect(filesOf(output)).toEqual(filesOf(join(dir, "whole")));
  });

  it("that lost its last steps does them again: they leave one line each", async () => {
    const output = join(dir, "stopped");
    rmSync(join(output, "checkpoint-00000012"), { recursive: true });
    await resumeTraining(output);
    expect(filesOf(output)).toEqual(filesOf(join(dir, "whole")));
  });

  it("needs a folder of its own, or one with a checkpoint to go on from", async () => {
    const full = join(dir, "full");
    mkdirSync(full);
    writeFileSync(join(full, "a"), "");
    await expect(train(SHORT, full)).rejects.toThrow(refused("OPTION_INVALID", "a new or empty folder"));
    await expect(growTraining(join(dir, "whole"), 1, full)).rejects.toThrow(refused("OPTION_INVALID", "copies: 1 is not accepted"));
    await expect(resumeTraining(full)).rejects.toThrow(refused("CHECKPOINT_INVALID", "holds no checkpoint"));
    expect(readdirSync(full)).toEqual(["a"]);
  });
});

describe("a run file", () => {
  const cases: [Record<string, unknown>, LongcatErrorCode, string][] = [
    [{ steps: 0 }, "OPTION_INVALID", "steps: 0 is not accepted"],
    [{ step: 5 }, "OPTION_INVALID", "run.step: is not known; did you mean steps?"],
    [{ rate: -1 }, "OPTION_INVALID", "rate: -1 is not accepted"],
    [{ rate: { hidden: 0.1 } }, "OPTION_INVALID", "rate.embedding: undefined is not accepted"],
    [{ schedule: { kind: "linear" } }, "OPTION_INVALID", 'schedule.kind: "linear" is not accepted'],
    [{ schedule: { decay: 5 } }, "OPTION_INVALID", "schedule.decay: is not known"],
    [{ adam: { beta2: 1 } }, "OPTION_INVALID", "adam.beta2: 1 is not accepted"],
    [
      { task: { kind: "copy", symbols: 40, length: 3 } },
      "OPTION_INVALID",
      "model.vocab_size: 24 is not accepted; give at least the 44 ids",
    ],
    [{ task: { kind: "copy", symbols: 4, length: 40 } }, "OPTION_INVALID", "model.max_position_embeddings: 64 is not accepted"],
    [{ balance: { alpha: 1, groups: 3 } }, "OPTION_INVALID", "balance.groups: 3 is not accepted; give a number that cuts 8 experts"],
    [{ budget: { mu: 1, meanExperts: 3 } }, "OPTION_INVALID", "budget.meanExperts: 3 is not accepted; give a number below the 3 experts"],
    [{ model: { ...TOY, hidden_size: 0 } }, "CONFIG_INVALID", "hidden_size"],
    [{ model: 5 }, "OPTION_INVALID", "model: 5 is not accepted; give an object"],
  ];
  it.each(cases)("with %j is refused", async (changes, code, message) => {
    await expect(train(toyRun(changes), join(dir, "refused"))).rejects.toThrow(refused(code, message));
    expect(existsSync(join(dir, "refused"))).toBe(false);
  });
});

describe("longcat train", () => {
  it("trains, and resumes", async () => {
    const file = join(dir, "run.json");
    writeFileSync(file, JSON.stringify(SHORT));
    const output = join(dir, "typed");
    const first = await longcat(["train", file, output, "--threads", "1"]);
    expect([first.code, first.stdout]).toEqual([0, expect.stringMatching(/^held-out loss \d\.\d{4} after 12 steps\n$/)]);
    expect(first.stderr).toMatch(/^step 6 {2}loss \d\.\d{4} {2}held out \d\.\d{4} {2}gradient .* FFN experts \d\.\d\d {2}\d+ tokens\/s$/m);
    expect(filesOf(output)).toEqual(filesOf(join(dir, "whole")));
    const second = await longcat(["train", "--resume", output]);
    expect([second.code, second.stdout]).toEqual([0, first.stdout]);
  });

  it("grows", async () => {
    const grown = join(dir, "grown");
    const { code, stdout } = await longcat(["train", "--grow", "2", join(dir, "typed", "checkpoint-00000005"), grown]);
    expect([code, stdout]).toEqual([0, expect.stringContaining("after 12 steps")]);
    const config = JSON.parse(readFileSync(join(grown, "checkpoint-00000012", "config.json"), "utf8")) as Record<string, unknown>;
    expect(config["num_layers"]).toBe(4);
    expect(readFileSync(join(grown, "steps.csv"), "utf8")).toMatch(/fullest_group_3\n6,/);
  });

  it("says in a line what is wrong with a file", async () => {
    const file = join(dir, "broken.json");
    writeFileSync(file, "{");
    const { code, stderr } = await longcat(["train", file, join(dir, "nothing")]);
    expect([code, stderr]).toEqual([1, expect.stringMatching(/^error: OPTION_INVALID: .*broken\.json: .*JSON.*\n$/)]);
  });
});
