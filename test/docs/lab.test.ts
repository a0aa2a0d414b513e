/** The run of docs/lab.md learns what the page says, and the engine serves it as the page shows; the tables of its routing analysis are the command's. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { describeRouting } from "../../ts/cli/inspect-routing.js";
import { Engine, inspect, train } from "../../ts/index.js";
import { Trainer } from "../../ts/train/trainer.js";
import { ROOT } from "../helpers/paths.js";

const PAGE = readFileSync(join(ROOT, "docs/lab.md"), "utf8");
const run = JSON.parse(/```json\n([\s\S]*?)```/.exec(PAGE)![1]!) as Record<string, unknown>;

it("the run of docs/lab.md copies", async () => {
  const dir = mkdtempSync(join(tmpdir(), "longcat-lab-"));
  try {
    const { checkpoint, heldOutLoss } = await train(run, join(dir, "out"), { threads: 2 });
    expect(heldOutLoss).toBeLessThan(0.001);
    const prompt = /--tokens ([\d,]+)/.exec(PAGE)![1]!.split(",").map(Number);
    const engine = await Engine.load(checkpoint, { threads: 1 });
    const { tokens } = await engine.generate({ tokens: prompt }, { temperature: 0 });
    await engine.close();
    expect(PAGE).toContain(`${tokens.slice(0, -1).join(" ")}, and ${tokens.at(-1)}, the end`);
    expect(tokens.slice(0, -1)).toEqual(prompt.slice(1, -1));
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
});

it("its model has as many numbers as the page says", async () => {
  const trainer = await Trainer.begin(run, { threads: 1 });
  const { trained } = trainer.parameters;
  await trainer.close();
  expect(PAGE).toContain(`a model of ${Math.round(trained / 1000)} thousand numbers`);
});

it("the routing of its two texts is what the page shows", async () => {
  const command = /inspect routing models\/mini (".*") --html/.exec(PAGE)![1]!;
  const [first, second] = [...command.matchAll(/"([^"]+)"/g)].map(([, text]) => text!);
  const analysis = await inspect.routing(null, { "text 1": first!, "text 2": second! }, { device: "cpu", threads: 2 });
  const [, ...tables] = describeRouting(analysis).trimEnd().split("\n\n");
  expect(PAGE).toContain(tables.join("\n\n"));
});
