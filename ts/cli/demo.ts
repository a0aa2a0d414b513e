/**
 * What `npm run demo` shows: the bundled checkpoint tells a story, works out a sum step by step and calls a tool.
 * Colours only on a terminal.
 * @module
 */

import { Engine, type GenerateParams, LongcatError, type Prompt, type Tool } from "../index.js";
import { handleInterrupts, INTERRUPTED, interruptible } from "./interrupt.js";
import { endOnFailedOutput, note, print, styled } from "./output.js";

const CALCULATOR: Tool = {
  type: "function",
  function: {
    name: "calculator",
    description: "Compute the value of an expression.",
    parameters: { type: "object", properties: { expression: { type: "string" } }, required: ["expression"] },
  },
};

interface Scene {
  title: string;
  /** What the user is shown as the question. */
  question: string;
  prompt: Prompt;
  params?: GenerateParams;
}

const user = (content: string) => ({ role: "user" as const, content });

const SCENES: readonly Scene[] = [
  {
    title: "A story, continued from raw text",
    question: "Once upon a time",
    prompt: "Once upon a time",
    params: { temperature: 0.8, seed: 5, maxTokens: 160 },
  },
  {
    title: "A sum, worked out step by step (enableThinking)",
    question: "What is 879 + 904?",
    prompt: { messages: [user("What is 879 + 904?")], enableThinking: true },
  },
  {
    title: "A tool call",
    question: "What is 441 * 861?   with the tool calculator(expression)",
    prompt: { messages: [user("What is 441 * 861?")], tools: [CALCULATOR] },
  },
];

const dim = (text: string) => styled(process.stdout, "dim", text);

/** A running mean. */
class Average {
  #sum = 0;
  #count = 0;

  add(value: number): void {
    this.#sum += value;
    this.#count++;
  }

  get value(): number {
    return this.#count === 0 ? 0 : this.#sum / this.#count;
  }
}

/** Streams one scene, then prints its figures. */
async function play(engine: Engine, scene: Scene, signal: AbortSignal): Promise<void> {
  await print(`\n${styled(process.stdout, "bold", scene.title)}\n${styled(process.stdout, "green", `> ${scene.question}`)}\n`);
  const start = performance.now();
  let first = start;
  let tokens = 0;
  let reasoning = false;
  const experts = new Average();
  for await (const chunk of engine.stream(scene.prompt, { temperature: 0, ...scene.params, signal })) {
    if (tokens === 0) first = performance.now();
    tokens += chunk.tokens.length;
    for (const layers of chunk.routing?.ffnExperts ?? []) for (const count of layers) experts.add(count);
    await print(dim(chunk.reasoning ?? ""));
    if (chunk.text !== "" && reasoning) await print("\n");
    reasoning = chunk.reasoning !== undefined || (reasoning && chunk.text === "");
    await print(chunk.text);
    const { name, arguments: piece = "" } = chunk.toolCallDelta ?? {};
    await print(styled(process.stdout, "cyan", (name === undefined ? "" : `→ ${name} `) + piece));
  }
  const seconds = (performance.now() - first) / 1000;
  const speed = tokens > 1 && seconds > 0 ? ((tokens - 1) / seconds).toFixed(0) : "-";
  const figures = [
    `${tokens} tokens`,
    `${speed} tokens/s`,
    `first after ${(first - start).toFixed(0)} ms`,
    `${experts.value.toFixed(1)} FFN experts a token`,
  ];
  await print(`\n${dim(figures.join(", "))}\n`);
}

async function demo(signal: AbortSignal): Promise<void> {
  const start = performance.now();
  const engine = await Engine.load(null, { signal });
  const { directory, device, threads, isa } = engine.info;
  try {
    const where = device === "cuda" ? `${device}, compute capability ${isa}` : `${device}, ${threads} threads, ${isa}`;
    note(`Loaded ${directory} in ${(performance.now() - start).toFixed(0)} ms; ${where}`);
    for (const scene of SCENES) await play(engine, scene, signal);
  } finally {
    await engine.close();
  }
}

endOnFailedOutput();
handleInterrupts();
try {
  await interruptible(demo);
} catch (error) {
  if (!(error instanceof LongcatError)) throw error;
  note(`error: ${error.code}: ${error.message}`);
  process.exitCode = error.code === "ABORTED" ? INTERRUPTED : 1;
}
