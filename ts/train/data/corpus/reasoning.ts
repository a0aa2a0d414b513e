/**
 * Reasoning: sums digit by digit, the last ones first, with what is carried; then the answer.
 * @module
 */

import type { Document } from "../document.js";
import { between, type Random } from "./words.js";

export function drawReasoning(random: Random): Document {
  const [a, b] = [between(0, 999, random), between(0, 999, random)];
  return {
    messages: [
      { role: "user", content: `What is ${a} + ${b}?` },
      { role: "assistant", content: String(a + b), reasoning_content: addition(a, b) },
    ],
    enable_thinking: true,
  };
}

/** "9 + 4 = 13; 7 + 0 + 1 = 8; 8 + 9 = 17; 0 + 0 + 1 = 1. So 1 7 8 3." */
function addition(a: number, b: number): string {
  const steps: string[] = [];
  let carried = 0;
  for (let [x, y] = [a, b]; x > 0 || y > 0 || carried > 0 || steps.length === 0; [x, y] = [Math.floor(x / 10), Math.floor(y / 10)]) {
    const sum = (x % 10) + (y % 10) + carried;
    steps.push(`${x % 10} + ${y % 10}${carried > 0 ? ` + ${carried}` : ""} = ${sum}`);
    carried = sum > 9 ? 1 : 0;
  }
  return `${steps.join("; ")}. So ${[...String(a + b)].join(" ")}.`;
}
