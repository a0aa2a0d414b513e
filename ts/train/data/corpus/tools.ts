/**
 * Tools: a question, the call that answers it, what the tool says, and the answer.
 * @module
 */

import type { Tool } from "../../../text/types.js";
import type { Document } from "../document.js";
import { between, COLOURS, OBJECTS, PLACES, pick, pickSome, type Random, WEATHERS } from "./words.js";

/** A tool in use. */
interface Use {
  tool: Tool;
  question: string;
  arguments: Record<string, string>;
  result: string;
  answer: string;
}

export function drawToolUse(random: Random): Document {
  const uses = [drawProduct(random), drawWeather(random), drawPlace(random)];
  const shown = pickSome(uses, between(1, 3, random), random);
  const { tool, question, arguments: given, result, answer } = pick(shown, random);
  return {
    tools: shown.map((use) => use.tool),
    messages: [
      { role: "user", content: question },
      { role: "assistant", content: "", tool_calls: [{ type: "function", function: { name: tool.function.name, arguments: given } }] },
      { role: "tool", content: result },
      { role: "assistant", content: answer },
    ],
  };
}

function drawProduct(random: Random): Use {
  const [a, b] = [between(100, 999, random), between(100, 999, random)];
  const expression = `${a} * ${b}`;
  return {
    tool: describe("calculator", "Compute the value of an expression.", ["expression"]),
    question: `What is ${expression}?`,
    arguments: { expression },
    result: String(a * b),
    answer: `${expression} is ${a * b}.`,
  };
}

function drawWeather(random: Random): Use {
  const [place, weather] = [pick(PLACES, random), pick(WEATHERS, random)];
  return {
    tool: describe("get_weather", "Tell the weather of a place today.", ["place"]),
    question: pick([`What is the weather at the ${place}?`, `How is the weather at the ${place} today?`], random),
    arguments: { place },
    result: weather,
    answer: `It is ${weather} at the ${place}.`,
  };
}

function drawPlace(random: Random): Use {
  const [object, color, place] = [pick(OBJECTS, random), pick(COLOURS, random), pick(PLACES, random)];
  return {
    tool: describe("find_object", "Tell where an object is.", ["object"], ["color"]),
    question: `Where is the ${color} ${object}?`,
    arguments: { object, color },
    result: place,
    answer: `The ${color} ${object} is at the ${place}.`,
  };
}

function describe(name: string, description: string, required: readonly string[], optional: readonly string[] = []): Tool {
  const properties = Object.fromEntries([...required, ...optional].map((field) => [field, { type: "string" }]));
  return { type: "function", function: { name, description, parameters: { type: "object", properties, required } } };
}
