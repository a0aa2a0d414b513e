/**
 * The forms of JSON that every grammar shares: white space, strings, numbers, values of any kind.
 * @module
 */
import { anyCharacter } from "./characters.js";
import { Builder, type Node, type Rule } from "./node.js";
import { anyNumber, integer } from "./numbers.js";

/** Spaces after a line break: deep enough to read well, and an end to it. */
const MAX_INDENT = 24;

/** The rules that are the same in every grammar. */
interface SharedRules {
  space: Rule;
  character: Rule;
  text: Rule;
  number: Rule;
  integer: Rule;
  value: Rule;
  object: Rule;
  array: Rule;
}

/** Made once, with the number of nodes that they have. No grammar changes them: all of them come to an end. */
let shared: { rules: SharedRules; count: number } | undefined;

export class JsonForms {
  readonly builder: Builder;
  readonly #rules: SharedRules;

  private constructor(builder: Builder, rules: SharedRules) {
    this.builder = builder;
    this.#rules = rules;
  }

  /** The forms, and a builder for what a grammar adds to them. */
  static create(): JsonForms {
    shared ??= JsonForms.#share();
    return new JsonForms(new Builder(shared.count), shared.rules);
  }

  static #share(): { rules: SharedRules; count: number } {
    const builder = new Builder();
    const indent = (end: Node): Node => builder.repeat((to) => builder.literal(" ", to), 0, MAX_INDENT, end);
    const rules: SharedRules = {
      space: builder.ruleOf((end) => builder.alternatives([end, builder.literal(" ", end), builder.literal("\n", indent(end))])),
      character: builder.ruleOf((end) => anyCharacter(builder, end)),
      text: builder.rule(),
      number: builder.ruleOf((end) => anyNumber(builder, end)),
      integer: builder.ruleOf((end) => integer(builder, -(10n ** 18n), 10n ** 18n, end)),
      value: builder.rule(),
      object: builder.rule(),
      array: builder.rule(),
    };
    rules.character.start.startsCharacter = true;
    const forms = new JsonForms(builder, rules);
    const value = (next: Node): Node => forms.anyValue(next);
    const { text, object, array } = rules;
    text.start.empties.push(forms.string(0, Number.POSITIVE_INFINITY, text.end));
    object.start.empties.push(forms.members((next) => forms.anyString(next), value, object.end));
    array.start.empties.push(forms.list(value, 0, Number.POSITIVE_INFINITY, array.end));
    const { start, end } = rules.value;
    const scalars = ["true", "false", "null"].map((word) => builder.literal(word, end));
    start.empties.push(forms.anyString(end), forms.anyNumber(end), forms.anyObject(end), forms.anyArray(end), ...scalars);
    return { rules, count: builder.count };
  }

  /** Nothing, a space, or a line break with some spaces. */
  space(next: Node): Node {
    return this.builder.call(this.#rules.space, next);
  }

  anyValue(next: Node): Node {
    return this.builder.call(this.#rules.value, next);
  }

  anyString(next: Node): Node {
    return this.builder.call(this.#rules.text, next);
  }

  anyNumber(next: Node): Node {
    return this.builder.call(this.#rules.number, next);
  }

  anyInteger(next: Node): Node {
    return this.builder.call(this.#rules.integer, next);
  }

  anyObject(next: Node): Node {
    return this.builder.call(this.#rules.object, next);
  }

  anyArray(next: Node): Node {
    return this.builder.call(this.#rules.array, next);
  }

  /** A string of `least` to `most` characters, whatever they are. */
  string(least: number, most: number, next: Node): Node {
    const { builder } = this;
    const quote = (): Node["edges"] => [{ low: 0x22, high: 0x22, to: next }];
    const bounded = most !== Number.POSITIVE_INFINITY;
    let at = builder.node({ edges: quote(), room: bounded ? 0 : most });
    if (!bounded) at.calls.push({ rule: this.#rules.character, after: at });
    for (let count = (bounded ? most : least) - 1; count >= 0; count--) {
      const calls = [{ rule: this.#rules.character, after: at }];
      at = builder.node({ edges: count >= least ? quote() : [], calls, room: bounded ? most - count : most });
    }
    return builder.symbols(0x22, 0x22, at);
  }

  /** The rest of an object after its brace, or of any number of members: each a key and a value. */
  members(key: (next: Node) => Node, value: (next: Node) => Node, next: Node): Node {
    const { builder } = this;
    const close = this.space(builder.literal("}", next));
    const after = builder.node({ empties: [close] });
    const member = key(this.colon(value(after)));
    after.empties.push(builder.literal(",", this.space(member)));
    return builder.literal("{", builder.alternatives([this.space(member), close]));
  }

  colon(next: Node): Node {
    return this.builder.literal(":", this.space(next));
  }

  /** An array of `least` to `most` items. */
  list(item: (next: Node) => Node, least: number, most: number, next: Node): Node {
    return this.tuple([], item, least, most, next);
  }

  /** An array of some first items, then of others, `least` to `most` in all. */
  tuple(first: readonly ((next: Node) => Node)[], item: (next: Node) => Node, least: number, most: number, next: Node): Node {
    const { builder } = this;
    const close = this.space(builder.literal("]", next));
    const comma = (to: Node): Node => builder.literal(",", this.space(to));
    const nth = (n: number): ((to: Node) => Node) => first[n] ?? item;
    const unrolled = most === Number.POSITIVE_INFINITY ? Math.max(least, first.length) : most;
    // `after`: where the array stands when `count` items are written.
    let after = builder.node({ empties: unrolled >= least ? [close] : [] });
    let firstItem: Node | undefined;
    if (most === Number.POSITIVE_INFINITY) {
      const more = item(after);
      after.empties.push(comma(more));
      if (unrolled === 0) firstItem = more;
    }
    for (let count = unrolled - 1; count >= 0; count--) {
      const more = nth(count)(after);
      if (count === 0) firstItem = more;
      else after = builder.node({ empties: [comma(more), ...(count >= least ? [close] : [])] });
    }
    const starts = [...(firstItem === undefined ? [] : [this.space(firstItem)]), ...(least === 0 ? [close] : [])];
    return builder.literal("[", builder.alternatives(starts));
  }
}
