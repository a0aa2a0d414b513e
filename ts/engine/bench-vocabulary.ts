/**
 * A vocabulary for benches, of any size: bytes, words with and without a space, syllables, digits, CJK, punctuation as JSON has it.
 * The same in every run.
 * @module
 */
import type { TokenSource } from "../grammar/index.js";
import { uniform } from "../sampling/philox.js";

/** Tokens by id; the last two are special: the end, and the end of reasoning. */
export interface BenchVocabulary extends TokenSource {
  size: number;
  endToken: number;
  /** Ids of a text, the longest token first at each place. */
  encode(text: string): number[];
}

const LETTERS = "etaoinshrdlucmfwypvbgkjqxz";
const PUNCTUATION = [
  '",',
  '":',
  '": "',
  '", "',
  '{"',
  '"}',
  '"]',
  "},",
  "]}",
  '":{"',
  ": ",
  ", ",
  "\n",
  "\n  ",
  '\\"',
  "\\n",
  "...",
  "- ",
  "==",
];

export function benchVocabulary(size: number): BenchVocabulary {
  const texts = new Set<string>();
  const bytes: Uint8Array[] = Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte));
  const encoder = new TextEncoder();
  let draw = 0;
  const random = (): number => uniform(5, draw++);
  const add = (text: string): void => {
    if (text.length < 2 || texts.has(text) || bytes.length >= size - 1) return;
    texts.add(text);
    bytes.push(encoder.encode(text));
  };
  for (const text of PUNCTUATION) add(text);
  for (let i = 0; i < 1000; i++) add(String(i));
  const word = (length: number): string => Array.from({ length }, () => LETTERS[Math.floor(random() * random() * LETTERS.length)]).join("");
  const cjk = (length: number): string => Array.from({ length }, () => String.fromCodePoint(0x4e00 + Math.floor(random() * 8000))).join("");
  while (bytes.length < size - 1) {
    const kind = random();
    const length = 2 + Math.floor(random() * 8);
    if (kind < 0.5) add(` ${word(length)}`);
    else if (kind < 0.75) add(word(length));
    else if (kind < 0.95) add(cjk(1 + Math.floor(length / 4)));
    else add(word(length) + (PUNCTUATION[Math.floor(random() * PUNCTUATION.length)] as string));
  }
  const endToken = size - 1;
  bytes.push(encoder.encode("</s>"));
  const byText = new Map<string, number>(bytes.map((token, id) => [Buffer.from(token).toString("latin1"), id]));
  return {
    size,
    endToken,
    textIds: Array.from({ length: size - 1 }, (_, id) => id),
    tokenBytes: (id) => bytes[id] as Uint8Array,
    special: new Map([["</s>", endToken]]),
    encode: (text) => encodeLongest(Buffer.from(text).toString("latin1"), byText),
  };
}

function encodeLongest(text: string, byText: ReadonlyMap<string, number>): number[] {
  const ids: number[] = [];
  for (let at = 0; at < text.length; ) {
    let length = Math.min(24, text.length - at);
    while (!byText.has(text.slice(at, at + length))) length--;
    ids.push(byText.get(text.slice(at, at + length)) as number);
    at += length;
  }
  return ids;
}
