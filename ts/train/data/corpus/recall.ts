/**
 * Recall: who has what, and words to sort, turn round, count or write as JSON.
 * @module
 */

import type { Document } from "../document.js";
import { between, COLOURS, exchange, FOODS, NAMES, OBJECTS, pick, pickSome, type Random } from "./words.js";

export function drawRecall(random: Random): Document {
  return random() < 0.5 ? drawOwners(random) : drawWords(random);
}

function drawOwners(random: Random): Document {
  const count = between(2, 4, random);
  const objects = pickSome(OBJECTS, count, random);
  const owners = pickSome(NAMES, count, random).map((name, i) => ({ name, object: objects[i]!, colour: pick(COLOURS, random) }));
  const told = owners.map(({ name, object, colour }) => `${name} has a ${colour} ${object}.`).join(" ");
  const { name, object, colour } = pick(owners, random);
  return random() < 0.5
    ? exchange(`${told} What does ${name} have?`, `${name} has a ${colour} ${object}.`, random)
    : exchange(`${told} Who has the ${object}?`, `${name} has the ${object}.`, random);
}

const COUNTS = ["no", "one", "two", "three", "four", "five", "six"] as const;

function drawWords(random: Random): Document {
  const words: string[] = pickSome([...OBJECTS, ...FOODS], between(3, 6, random), random);
  const list = words.join(", ");
  const [question, answer] = pick(
    [
      [`Sort these words: ${list}.`, `${words.toSorted().join(", ")}.`],
      [`Reverse these words: ${list}.`, `${words.toReversed().join(", ")}.`],
      [`How many words are here: ${list}?`, `There are ${COUNTS[words.length]} words.`],
      [`Make a list of these words as JSON: ${list}.`, `[${words.map((word) => `"${word}"`).join(", ")}]`],
    ] as const,
    random,
  );
  return exchange(question, answer, random);
}
