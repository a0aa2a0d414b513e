/**
 * Regular expressions of JSON Schema (`pattern`) as grammars of the JSON string that matches. Of ECMAScript's: characters, classes,
 * groups, alternatives, repetitions, and the anchors at both ends. What is not supported is refused by name.
 * @module
 */
import { complement, LAST_CODE_POINT, type Range, stringCharacter, union } from "./characters.js";
import type { Builder, Node } from "./node.js";

/** A pattern that cannot be used, and why. */
export class PatternError extends Error {}

type Expression =
  | { kind: "set"; ranges: Range[] }
  | { kind: "sequence"; parts: Expression[] }
  | { kind: "choice"; parts: Expression[] }
  | { kind: "repeat"; part: Expression; least: number; most: number };

const MAX_DEPTH = 100;
const MAX_LENGTH = 10_000;
const ANY: Range[] = [{ low: 0, high: LAST_CODE_POINT }];
const DIGIT: Range[] = [{ low: 0x30, high: 0x39 }];
const WORD: Range[] = [...DIGIT, { low: 0x41, high: 0x5a }, { low: 0x5f, high: 0x5f }, { low: 0x61, high: 0x7a }];
const SPACE: Range[] = union([
  ...[0x20, 0xa0, 0x1680, 0x202f, 0x205f, 0x3000, 0xfeff].map((point) => ({ low: point, high: point })),
  { low: 0x09, high: 0x0d },
  { low: 0x2000, high: 0x200a },
  { low: 0x2028, high: 0x2029 },
]);
const LINE_ENDS: Range[] = [0x0a, 0x0d, 0x2028, 0x2029].map((point) => ({ low: point, high: point }));
const CLASSES: Readonly<Record<string, Range[]>> = {
  d: DIGIT,
  D: complement(DIGIT),
  w: WORD,
  W: complement(WORD),
  s: SPACE,
  S: complement(SPACE),
};
const CONTROLS: Readonly<Record<string, number>> = { n: 0x0a, r: 0x0d, t: 0x09, f: 0x0c, v: 0x0b, 0: 0 };

/** The content of a JSON string that matches a pattern, without its quotes. */
export function matching(builder: Builder, pattern: string, next: Node): Node {
  if (pattern.length > MAX_LENGTH) throw new PatternError(`has ${pattern.length} characters; at most ${MAX_LENGTH} are supported`);
  try {
    new RegExp(pattern, "u");
  } catch (error) {
    throw new PatternError(`is no regular expression: ${(error as Error).message}`);
  }
  return write(builder, new Parser(pattern).whole(), next);
}

function write(builder: Builder, expression: Expression, next: Node): Node {
  switch (expression.kind) {
    case "set":
      return stringCharacter(builder, expression.ranges, next);
    case "sequence":
      return expression.parts.reduceRight((to, part) => write(builder, part, to), next);
    case "choice":
      return builder.alternatives(expression.parts.map((part) => write(builder, part, next)));
    case "repeat":
      return builder.repeat((to) => write(builder, expression.part, to), expression.least, expression.most, next);
  }
}

class Parser {
  readonly #text: string[];
  #at = 0;
  #depth = 0;

  constructor(pattern: string) {
    this.#text = [...pattern];
  }

  /** The pattern as a whole: what is not anchored may stand anywhere in the string. */
  whole(): Expression {
    const parts: Expression[] = [];
    do parts.push(this.#branch());
    while (this.#take("|"));
    if (this.#at < this.#text.length) throw this.#refuse(`${this.#text[this.#at]} has no partner`);
    return choice(parts);
  }

  /** One top-level alternative with its own anchors. */
  #branch(): Expression {
    const anywhere: Expression = { kind: "repeat", part: { kind: "set", ranges: ANY }, least: 0, most: Number.POSITIVE_INFINITY };
    const parts: Expression[] = this.#take("^") ? [] : [anywhere];
    parts.push(this.#sequence());
    if (!this.#take("$")) parts.push(anywhere);
    else if (this.#at < this.#text.length && this.#text[this.#at] !== "|") throw this.#refuse("$ is supported at the end only");
    return { kind: "sequence", parts };
  }

  #sequence(): Expression {
    const parts: Expression[] = [];
    while (this.#at < this.#text.length && !"|)$".includes(this.#text[this.#at] as string)) parts.push(this.#repeated());
    return { kind: "sequence", parts };
  }

  #repeated(): Expression {
    const part = this.#atom();
    const [least, most] = this.#count();
    if (least === 1 && most === 1) return part;
    this.#take("?"); // a lazy repetition matches the same strings
    return { kind: "repeat", part, least, most };
  }

  #count(): [least: number, most: number] {
    if (this.#take("*")) return [0, Number.POSITIVE_INFINITY];
    if (this.#take("+")) return [1, Number.POSITIVE_INFINITY];
    if (this.#take("?")) return [0, 1];
    if (!this.#take("{")) return [1, 1];
    const least = this.#number();
    const most = !this.#take(",") ? least : this.#text[this.#at] === "}" ? Number.POSITIVE_INFINITY : this.#number();
    if (!this.#take("}")) throw this.#refuse("a { without }");
    return [least, most];
  }

  #number(): number {
    let digits = "";
    while (/^\d$/.test(this.#text[this.#at] ?? "")) digits += this.#text[this.#at++];
    return Number(digits);
  }

  #atom(): Expression {
    const character = this.#text[this.#at++] as string;
    if (character === "(") return this.#group();
    if (character === "[") return { kind: "set", ranges: this.#class() };
    if (character === ".") return { kind: "set", ranges: complement(LINE_ENDS) };
    if (character === "\\") return { kind: "set", ranges: this.#escape() };
    if (character === "^") throw this.#refuse("^ is supported at the beginning only");
    return { kind: "set", ranges: single(character.codePointAt(0) as number) };
  }

  #group(): Expression {
    if (++this.#depth > MAX_DEPTH) throw this.#refuse(`more than ${MAX_DEPTH} groups in one another`);
    if (this.#take("?")) {
      const named = this.#text[this.#at] === "<" && !"=!".includes(this.#text[this.#at + 1] ?? "");
      if (named) while (this.#text[this.#at++] !== ">");
      else if (!this.#take(":")) throw this.#refuse("lookaround is not supported");
    }
    const parts: Expression[] = [];
    do parts.push(this.#sequence());
    while (this.#take("|"));
    if (this.#text[this.#at] === "$") throw this.#refuse("$ is supported at the end only");
    if (!this.#take(")")) throw this.#refuse("a ( without )");
    this.#depth--;
    return choice(parts);
  }

  #class(): Range[] {
    const negated = this.#take("^");
    const ranges: Range[] = [];
    while (!this.#take("]")) {
      const from = this.#member();
      const range = this.#text[this.#at] === "-" && this.#text[this.#at + 1] !== "]" && from.length === 1;
      if (!range) ranges.push(...from);
      else {
        this.#at++;
        const to = this.#member();
        ranges.push({ low: (from[0] as Range).low, high: (to[0] as Range).high });
      }
    }
    return negated ? complement(ranges) : union(ranges);
  }

  #member(): Range[] {
    const character = this.#text[this.#at++] as string;
    if (character !== "\\") return single(character.codePointAt(0) as number);
    return this.#take("b") ? single(0x08) : this.#escape();
  }

  /** What follows a backslash. */
  #escape(): Range[] {
    const letter = this.#text[this.#at++] as string;
    const known = CLASSES[letter];
    if (known !== undefined) return known;
    if (letter in CONTROLS) return single(CONTROLS[letter] as number);
    if (letter === "x") return single(this.#hex(2));
    if (letter === "u" && this.#take("{")) {
      let digits = "";
      while (!this.#take("}")) digits += this.#text[this.#at++];
      return single(Number.parseInt(digits, 16));
    }
    if (letter === "u") return single(this.#hex(4));
    if (/^[A-Za-z0-9]$/.test(letter)) throw this.#refuse(`\\${letter} is not supported`);
    return single(letter.codePointAt(0) as number);
  }

  #hex(length: number): number {
    const digits = this.#text.slice(this.#at, this.#at + length).join("");
    this.#at += length;
    return Number.parseInt(digits, 16);
  }

  #take(character: string): boolean {
    if (this.#text[this.#at] !== character) return false;
    this.#at++;
    return true;
  }

  #refuse(what: string): PatternError {
    return new PatternError(`cannot be used at character ${this.#at}: ${what}`);
  }
}

function choice(parts: Expression[]): Expression {
  return parts.length === 1 ? (parts[0] as Expression) : { kind: "choice", parts };
}

function single(point: number): Range[] {
  return [{ low: point, high: point }];
}
