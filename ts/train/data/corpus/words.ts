/**
 * The little world that the corpus speaks of, and drawing from it.
 * @module
 */

import { shuffled, wholeBelow } from "../../random.js";
import type { ChatDocument } from "../document.js";

/** Numbers from 0 to below 1. */
export type Random = () => number;

export const NAMES = ["Anna", "Ben", "Ella", "Felix", "Hugo", "Ivy", "Leo", "Mia", "Nora", "Owen", "Sam", "Tom", "Zoe"] as const;
export const ANIMALS = ["cat", "dog", "fox", "frog", "goat", "mouse", "owl", "pony", "rabbit"] as const;
export const MOODS = ["brave", "clever", "curious", "gentle", "happy", "shy"] as const;
export const COLOURS = ["black", "blue", "golden", "green", "purple", "red", "silver", "white", "yellow"] as const;
export const OBJECTS = ["ball", "basket", "boat", "book", "coin", "cup", "drum", "hat", "key", "kite", "map", "scarf", "shell"] as const;
export const FOODS = ["apple", "bread", "cookie", "pear", "soup"] as const;
export const PLACES = ["barn", "bridge", "castle", "forest", "garden", "hill", "lake", "market", "river", "village"] as const;
export const WEATHERS = ["cloudy", "foggy", "rainy", "snowy", "sunny", "windy"] as const;

/** One of a list. */
export function pick<T>(list: readonly T[], random: Random): T {
  return list[wholeBelow(list.length, random)]!;
}

/** Some of a list, all different. */
export function pickSome<T>(list: readonly T[], count: number, random: Random): T[] {
  return shuffled(list.length, random)
    .slice(0, count)
    .map((i) => list[i]!);
}

/** A whole number from `least` to `most`. */
export function between(least: number, most: number, random: Random): number {
  return least + wholeBelow(most - least + 1, random);
}

const SYSTEMS = ["Answer briefly.", "You are a helpful cat.", "You are a kind assistant."] as const;

/** A question and its answer as a chat, one in four with a system message. */
export function exchange(question: string, answer: string, random: Random): ChatDocument {
  return {
    messages: [
      ...(random() < 0.25 ? [{ role: "system" as const, content: pick(SYSTEMS, random) }] : []),
      { role: "user", content: question },
      { role: "assistant", content: answer },
    ],
  };
}
