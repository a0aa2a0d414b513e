/** The run of docs/lab.md learns what the page says, and the engine serves it as the page shows; the tables of its routing analysis are the command's. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { describeRouting } from "../../ts/cli/inspect-routing.js";
import { Engine, inspect, train } from "../../ts/index.js";
import type { Message } from "../../ts/text/index.js";
import { isChat } from "../../ts/train/data/document.js";
import { parseData } from "../../ts/train/data/options.js";
import { readSources } from "../../ts/train/data/sources.js";
import { Trainer } from "../../ts/train/trainer.js";
import { ROOT } from "../helpers/paths.js";

type Json = Record<string, unknown>;

const PAGE = readFileSync(join(ROOT, "docs/lab.md"), "utf8");
const [run, data] = [...PAGE.matchAll(/```json\n([\s\S]*?)```/g)].map(([, json]) => JSON.parse(json!)) as [Json, Json];

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

it("with the page's text it adds, in text, and answers questions that it never saw", async () => {
  const dir = mkdtempSync(join(tmpdir(), "longcat-lab-"));
  try {
    const { task: _, ...rest } = run;
    const model = { ...(run["model"] as Json), vocab_size: 320 };
    const { checkpoint } = await train({ ...rest, model, sequences: 24, data }, join(dir, "out"), { threads: 2 });
    const chats = readSources(parseData(data), run["seed"] as number).flatMap(({ heldOut }) => heldOut.filter(isChat));
    const answers = chats.map(({ messages }) => messages.at(-1)!.content as string);
    const commonest = Math.max(...answers.map((answer) => answers.filter((other) => other === answer).length));

    const engine = await Engine.load(checkpoint, { threads: 2 });
    const ask = async (messages: Message[]) => (await engine.generate({ messages }, { temperature: 0, maxTokens: 4 })).text;
    const [, question, answer] = /--chat "(.*)" --temperature 0 +# (\d+)\n/.exec(PAGE)!;
    expect(await ask([{ role: "user", content: question! }])).toBe(answer);
    const said = await Promise.all(chats.map(({ messages }) => ask(messages.slice(0, -1))));
    await engine.close();

    const right = said.filter((text, i) => text === answers[i]).length;
    expect(PAGE).toContain(`Of the ${answers.length} questions`);
    expect(PAGE).toContain(`would be right for ${commonest}.`);
    // The number itself is of one kind of processor.
    expect(right).toBeGreaterThan(4 * commonest);
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
