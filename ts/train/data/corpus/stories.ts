/**
 * Stories: an animal, a thing that is lost, a friend. Half of them are plain text, half are asked for.
 * @module
 */

import type { Document } from "../document.js";
import { ANIMALS, COLOURS, exchange, FOODS, MOODS, NAMES, OBJECTS, PLACES, pick, pickSome, type Random } from "./words.js";

const REQUESTS = ["Tell me a story.", "Please write a short story.", "Can you tell me a story?"] as const;
const DAYS = [
  "One day, the sun was shining",
  "One day, it began to rain",
  "That day, a cold wind blew",
  "One evening, the moon was bright",
] as const;

export function drawStory(random: Random): Document {
  const story = tell(random);
  return random() < 0.5 ? { text: story } : exchange(pick(REQUESTS, random), story, random);
}

function tell(random: Random): string {
  const [name, friend] = pickSome(NAMES, 2, random) as [string, string];
  const [home, place] = pickSome(PLACES, 2, random) as [string, string];
  const [animal, mood, object, food] = [pick(ANIMALS, random), pick(MOODS, random), pick(OBJECTS, random), pick(FOODS, random)];
  const thing = `${pick(COLOURS, random)} ${object}`;
  const beginning = pick(
    [
      `Once upon a time, there was a ${mood} ${animal} named ${name}.`,
      `By the ${home} there lived a ${mood} ${animal}. Everyone called the ${animal} ${name}.`,
      `One morning, a ${mood} ${animal} called ${name} woke up by the ${home}.`,
    ],
    random,
  );
  const love = pick([`${name} loved to play with a ${thing}.`, `${name} had a ${thing} and took it everywhere.`], random);
  const way = `${pick(DAYS, random)}, so ${name} walked to the ${place}.`;
  const search = `"Where is my ${thing}?" asked ${name}. "I saw it near the ${place}," said ${friend}.`;
  const help = pick(
    [
      `${friend} helped ${name}, and together they found it and shared the ${food}.`,
      `${name} gave ${friend} the ${food}, because ${friend} was kind.`,
    ],
    random,
  );
  return `${beginning} ${love} ${way} ${search} ${help} From that day on, ${name} always shared the ${object} with ${friend}.`;
}
