/**
 * JSON Schema to grammars. A text of the grammar always matches the schema; of what a schema leaves open, a grammar may leave out some
 * (properties that are not named, exponents of bounded numbers). A keyword that cannot be kept is refused, never dropped.
 * @module
 */
import { isPlain, show } from "../checks.js";
import { LongcatError } from "../errors.js";
import type { JsonForms } from "./json.js";
import { type Node, type Rule, TooLarge } from "./node.js";
import { boundOf, boundedNumber, integer, type Bounds } from "./numbers.js";
import { objectGrammar } from "./object.js";
import { matching, PatternError } from "./pattern.js";
import { cutBlindAlleys, leftRecursive } from "./productive.js";
import { areDisjoint } from "./disjoint.js";
import { FORMATS } from "./formats.js";

/** A schema that is an object. */
export type Schema = Record<string, unknown>;
/** Builds what writes a value, towards the node that follows. */
export type Writer = (next: Node) => Node;

/** Schemas in one another. */
const MAX_DEPTH = 64;
/** Largest bound of a length or a number of items. */
const MAX_COUNT = 10_000;
const MAX_REFERENCES = 1000;
/** Branches of oneOf: each is held against each other. */
const MAX_BRANCHES = 200;
const TYPES = ["null", "boolean", "integer", "number", "string", "array", "object"] as const;
type Type = (typeof TYPES)[number];

/** Keywords that say nothing about which values match. */
export const ANNOTATIONS = new Set([
  ...[
    "title",
    "description",
    "default",
    "examples",
    "example",
    "deprecated",
    "readOnly",
    "writeOnly",
    "$comment",
    "$schema",
    "$id",
    "$anchor",
  ],
  ...["$defs", "definitions", "contentMediaType", "contentEncoding"],
]);
const KEYWORDS: Readonly<Record<Type, readonly string[]>> = {
  null: [],
  boolean: [],
  integer: ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"],
  number: ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"],
  string: ["minLength", "maxLength", "pattern", "format"],
  array: ["items", "prefixItems", "minItems", "maxItems", "uniqueItems"],
  object: ["properties", "required", "additionalProperties", "minProperties", "maxProperties"],
};
const COMBINERS = ["$ref", "const", "enum", "anyOf", "oneOf", "allOf"] as const;
const KNOWN = new Set<string>([...Object.values(KEYWORDS).flat(), ...COMBINERS, "type"]);

/** Compiles one document; of it `$ref` may point anywhere. */
export class SchemaCompiler {
  readonly forms: JsonForms;
  readonly #root: unknown;
  readonly #path: string;
  readonly #rules = new Map<string, { rule: Rule; schema: unknown; path: string }>();
  readonly #pending: string[] = [];
  /** Where values begin and what follows them, for the message about one that cannot be written. */
  readonly #places: { path: string; start: Node; next: Node }[] = [];

  /** @param path names the schema in messages. */
  constructor(forms: JsonForms, root: unknown, path: string) {
    this.forms = forms;
    this.#root = root;
    this.#path = path;
  }

  /**
   * What writes a value of the document.
   *
   * @throws LongcatError `OPTION_INVALID` naming the keyword and where it stands.
   */
  compile(next: Node): Node {
    const start = this.value(this.#root, this.#path, 0)(next);
    for (let pointer = this.#pending.pop(); pointer !== undefined; pointer = this.#pending.pop()) {
      const { rule, schema, path } = this.#rules.get(pointer) as { rule: Rule; schema: unknown; path: string };
      rule.start.empties.push(this.value(schema, path, 0)(rule.end));
    }
    this.#checkRecursion();
    return start;
  }

  /** Cuts what cannot come to an end, of everything built so far. `start` is where the whole grammar begins. */
  checkEnds(start: Node): void {
    const productive = cutBlindAlleys(start);
    if (productive[start.id] === 1) return;
    const guilty = this.#places.find((place) => productive[place.start.id] !== 1 && productive[place.next.id] === 1);
    throw refuse(guilty?.path ?? this.#path, "cannot be satisfied: no finite value matches it");
  }

  /** What writes a value of a schema. */
  value(schema: unknown, path: string, depth: number): Writer {
    if (depth > MAX_DEPTH) throw refuse(path, `is nested too deeply: at most ${MAX_DEPTH} levels are supported`);
    if (schema === true) return (next) => this.forms.anyValue(next);
    if (schema === false) return () => this.forms.builder.node();
    if (!isPlain(schema)) throw refuse(path, `${show(schema)} is no schema; give an object, true or false`);
    const writer = this.#writer(schema, path, depth);
    return (next) => {
      try {
        const start = writer(next);
        this.#places.push({ path, start, next });
        return start;
      } catch (error) {
        if (error instanceof TooLarge) throw refuse(path, `is too large: it ${error.message}`);
        throw error;
      }
    };
  }

  /** A rule of its own, so that what writes it is built once. */
  shared(writer: Writer): Writer {
    const rule = this.forms.builder.ruleOf(writer);
    return (next) => this.forms.builder.call(rule, next);
  }

  #writer(schema: Schema, path: string, depth: number): Writer {
    checkKeywords(schema, path);
    const types = typesOf(schema, path);
    const combiner = COMBINERS.find((name) => name in schema);
    if (combiner !== undefined) {
      this.#checkAlone(schema, combiner, path);
      return this.#combined(combiner, schema, types, path, depth);
    }
    const wanted = types ?? impliedTypes(schema);
    if (wanted === undefined) return (next) => this.forms.anyValue(next);
    const usable = wanted.includes("number") ? wanted.filter((type) => type !== "integer") : wanted;
    const writers = usable.map((type) => this.#typed(type, schema, path, depth));
    return (next) => this.forms.builder.alternatives(writers.map((writer) => writer(next)));
  }

  #combined(combiner: (typeof COMBINERS)[number], schema: Schema, types: Type[] | undefined, path: string, depth: number): Writer {
    const at = `${path}.${combiner}`;
    if (combiner === "$ref") return this.#reference(schema["$ref"], at);
    if (combiner === "const") return this.#values([schema["const"]], types, at);
    if (combiner === "enum") return this.#values(list(schema["enum"], at), types, at);
    const branches = list(schema[combiner], at).map((branch, i) => ({
      schema: withTypes(branch, types, `${at}[${i}]`),
      path: `${at}[${i}]`,
    }));
    if (combiner === "allOf" && branches.length > 1) throw refuse(at, "more than one schema is not supported");
    if (combiner === "oneOf") this.#checkDisjoint(branches);
    const writers = branches.map((branch) => this.value(branch.schema, branch.path, depth + 1));
    return (next) => this.forms.builder.alternatives(writers.map((writer) => writer(next)));
  }

  /** A grammar writes one of the branches: that no other matches too must be plain to see. */
  #checkDisjoint(branches: readonly { schema: unknown; path: string }[]): void {
    if (branches.length > MAX_BRANCHES)
      throw refuse(branches[0]?.path.slice(0, -3) ?? "", `more than ${MAX_BRANCHES} branches are not supported`);
    const seen = branches.map((branch) => this.#resolved(branch.schema, branch.path));
    seen.forEach((a, i) => {
      seen.slice(0, i).forEach((b, j) => {
        if (!areDisjoint(a, b, (schema) => this.#resolved(schema, this.#path)))
          throw refuse(
            `${branches[i]?.path}`,
            `may match together with ${branches[j]?.path}: oneOf needs branches that exclude each other; anyOf does not`,
          );
      });
    });
  }

  #resolved(schema: unknown, path: string): unknown {
    let at = schema;
    for (let hops = 0; hops < MAX_DEPTH && isPlain(at) && typeof at["$ref"] === "string"; hops++)
      at = this.#target(at["$ref"], path).schema;
    return at;
  }

  #reference(ref: unknown, path: string): Writer {
    if (typeof ref !== "string") throw refuse(path, `${show(ref)} is not supported; give a pointer such as "#/$defs/name"`);
    let known = this.#rules.get(ref);
    if (known === undefined) {
      if (this.#rules.size >= MAX_REFERENCES) throw refuse(path, `more than ${MAX_REFERENCES} different references are not supported`);
      known = { rule: this.forms.builder.rule(), ...this.#target(ref, path) };
      this.#rules.set(ref, known);
      this.#pending.push(ref);
    }
    const { rule } = known;
    return (next) => this.forms.builder.call(rule, next);
  }

  /** The schema that a pointer names. */
  #target(ref: string, path: string): { schema: unknown; path: string } {
    if (ref !== "#" && !ref.startsWith("#/"))
      throw refuse(path, `${show(ref)} is not supported; give a pointer into the same schema, as "#/$defs/name"`);
    let schema = this.#root;
    let at = this.#path;
    for (const part of ref.split("/").slice(1)) {
      const key = decodePointer(part);
      if (Array.isArray(schema) && /^\d+$/.test(key)) {
        schema = schema[Number(key)];
        at += `[${key}]`;
      } else {
        schema = isPlain(schema) && Object.hasOwn(schema, key) ? schema[key] : undefined;
        at += `.${key}`;
      }
    }
    if (schema === undefined) throw refuse(path, `${show(ref)} points to nothing`);
    return { schema, path: at };
  }

  #checkRecursion(): void {
    const entries = [...this.#rules.values()];
    const found = leftRecursive(entries.map(({ rule }) => rule));
    if (found === undefined) return;
    const entry = entries.find(({ rule }) => rule === found);
    throw refuse(entry?.path ?? this.#path, "refers to itself before anything is written");
  }

  #checkAlone(schema: Schema, combiner: string, path: string): void {
    const other = Object.keys(schema).find(
      (key) => key !== combiner && key !== "type" && !ANNOTATIONS.has(key) && schema[key] !== undefined,
    );
    if (other !== undefined) throw refuse(`${path}.${other}`, `is not supported beside ${combiner}`);
    if (combiner === "$ref" && schema["type"] !== undefined) throw refuse(`${path}.type`, "is not supported beside $ref");
  }

  /** One of some given values, written without spaces. */
  #values(values: readonly unknown[], types: Type[] | undefined, path: string): Writer {
    if (values.length > MAX_COUNT) throw refuse(path, `${values.length} values are not supported; at most ${MAX_COUNT} are`);
    const matching = values.filter((value) => types === undefined || types.some((type) => hasType(value, type)));
    if (matching.length === 0) throw refuse(path, "cannot be satisfied: it has no value of the schema's type");
    const texts = new Set(matching.map((value) => JSON.stringify(value)));
    return (next) => this.forms.builder.literals([...texts].map((text) => ({ text, next })));
  }

  #typed(type: Type, schema: Schema, path: string, depth: number): Writer {
    const { forms } = this;
    switch (type) {
      case "null":
        return (next) => forms.builder.literal("null", next);
      case "boolean":
        return (next) => forms.builder.literals(["true", "false"].map((text) => ({ text, next })));
      case "integer":
      case "number":
        return this.#number(type, schema, path);
      case "string":
        return this.#string(schema, path);
      case "array":
        return this.#array(schema, path, depth);
      case "object":
        return objectGrammar(this, schema, path, depth);
    }
  }

  #number(type: "integer" | "number", schema: Schema, path: string): Writer {
    const { forms } = this;
    const { multipleOf } = schema;
    if (multipleOf !== undefined && multipleOf !== 1) throw refuse(`${path}.multipleOf`, `${show(multipleOf)} is not supported; 1 is`);
    const bounds = numberBounds(schema, path);
    const whole = type === "integer" || multipleOf === 1;
    const none = bounds.low === undefined && bounds.high === undefined;
    if (whole) return (next) => (none ? forms.anyInteger(next) : integer(forms.builder, ...wholeBounds(bounds), next));
    return (next) => (none ? forms.anyNumber(next) : boundedNumber(forms.builder, bounds, next));
  }

  #string(schema: Schema, path: string): Writer {
    const { forms } = this;
    const least = count(schema, "minLength", path) ?? 0;
    const most = count(schema, "maxLength", path) ?? Number.POSITIVE_INFINITY;
    if (least > most) throw refuse(`${path}.minLength`, `cannot be satisfied: it is above maxLength`);
    const shapes = (["pattern", "format"] as const).filter((name) => schema[name] !== undefined);
    const [shape, second] = shapes;
    if (shape === undefined)
      return (next) => (least === 0 && most === Number.POSITIVE_INFINITY ? forms.anyString(next) : forms.string(least, most, next));
    if (second !== undefined || least > 0 || most !== Number.POSITIVE_INFINITY)
      throw refuse(`${path}.${shape}`, "is not supported beside another keyword of strings");
    const pattern = shape === "pattern" ? schema[shape] : FORMATS[schema[shape] as string];
    if (shape === "format" && pattern === undefined)
      throw refuse(`${path}.format`, `${show(schema[shape])} is not supported; ${Object.keys(FORMATS).join(", ")} are`);
    if (typeof pattern !== "string") throw refuse(`${path}.pattern`, `${show(pattern)} is no pattern`);
    return (next) => {
      try {
        return forms.builder.literal('"', matching(forms.builder, pattern, forms.builder.literal('"', next)));
      } catch (error) {
        if (error instanceof PatternError) throw refuse(`${path}.${shape}`, `${show(pattern)} ${error.message}`);
        throw error;
      }
    };
  }

  #array(schema: Schema, path: string, depth: number): Writer {
    const least = count(schema, "minItems", path) ?? 0;
    const limit = count(schema, "maxItems", path) ?? Number.POSITIVE_INFINITY;
    const { items, prefixItems, uniqueItems } = schema;
    if (uniqueItems !== undefined && uniqueItems !== false && limit > 1) throw refuse(`${path}.uniqueItems`, "is not supported");
    const first = (prefixItems === undefined ? [] : list(prefixItems, `${path}.prefixItems`)).map((one, i) =>
      this.value(one, `${path}.prefixItems[${i}]`, depth + 1),
    );
    // Where the rest is left open, it is left out; where it may not be, no more than the first items may come.
    const closed = items === false || (items === undefined && first.length > 0 && least <= first.length);
    const most = closed ? Math.min(limit, first.length) : limit;
    if (least > most) throw refuse(`${path}.minItems`, "cannot be satisfied: there may not be so many items");
    const rest = this.value(items === undefined || closed ? true : items, `${path}.items`, depth + 1);
    return (next) => {
      const copies = Math.max(least, most === Number.POSITIVE_INFINITY ? 0 : most) > 1;
      return this.forms.tuple(first.slice(0, most), copies ? this.shared(rest) : rest, least, most, next);
    };
  }
}

/** The error of a place in a schema. */
export function refuse(path: string, what: string): LongcatError {
  return new LongcatError("OPTION_INVALID", `${path}: ${what}`);
}

function checkKeywords(schema: Schema, path: string): void {
  for (const key of Object.keys(schema)) {
    if (KNOWN.has(key) || ANNOTATIONS.has(key) || schema[key] === undefined) continue;
    throw refuse(`${path}.${key}`, "is not supported by constrained generation");
  }
}

function typesOf(schema: Schema, path: string): Type[] | undefined {
  const { type } = schema;
  if (type === undefined) return undefined;
  const names: readonly unknown[] = Array.isArray(type) ? type : [type];
  for (const name of names)
    if (!TYPES.includes(name as Type)) throw refuse(`${path}.type`, `${show(name)} is no type; known are ${TYPES.join(", ")}`);
  if (names.length === 0) throw refuse(`${path}.type`, "cannot be satisfied: it names no type");
  return [...new Set(names as Type[])];
}

/** The type that a schema without one means by its keywords; undefined: any value. */
function impliedTypes(schema: Schema): Type[] | undefined {
  const implied = (["object", "array", "string", "number"] as const).filter((type) =>
    KEYWORDS[type].some((key) => schema[key] !== undefined),
  );
  return implied.length === 0 ? undefined : [...implied];
}

/** A branch under the type that stands beside it. */
function withTypes(branch: unknown, types: Type[] | undefined, path: string): unknown {
  if (types === undefined || branch === true) return types === undefined ? branch : { type: types };
  if (!isPlain(branch)) return branch;
  if (branch["type"] === undefined && branch["$ref"] === undefined) return { ...branch, type: types };
  const own = branch["$ref"] === undefined ? typesOf(branch, path) : undefined;
  if (own?.every((type) => types.includes(type) || (type === "integer" && types.includes("number")))) return branch;
  throw refuse(path, "is not supported beside a type that it does not keep to");
}

function hasType(value: unknown, type: Type): boolean {
  if (type === "null") return value === null;
  if (type === "array") return Array.isArray(value);
  if (type === "object") return isPlain(value);
  if (type === "integer") return Number.isInteger(value);
  return typeof value === type;
}

function list(value: unknown, path: string): readonly unknown[] {
  if (!Array.isArray(value) || value.length === 0) throw refuse(path, `${show(value)} is not accepted; give an array of at least one`);
  return value;
}

/** A keyword that is a number of things. */
export function count(schema: Schema, key: string, path: string): number | undefined {
  const value = schema[key];
  if (value === undefined) return undefined;
  if (typeof value !== "number" || !Number.isInteger(value) || value < 0)
    throw refuse(`${path}.${key}`, `${show(value)} is not a whole number of at least 0`);
  if (value > MAX_COUNT) throw refuse(`${path}.${key}`, `${show(value)} is not supported; at most ${MAX_COUNT} is`);
  return value;
}

function numberBounds(schema: Schema, path: string): Bounds {
  const given = (["minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"] as const).filter((key) => schema[key] !== undefined);
  const sides: { low?: { value: number; open: boolean }; high?: { value: number; open: boolean } } = {};
  for (const key of given) {
    const value = schema[key];
    if (typeof value !== "number" || !Number.isFinite(value)) throw refuse(`${path}.${key}`, `${show(value)} is no number`);
    const open = key.startsWith("exclusive");
    const side = key.endsWith("inimum") ? "low" : "high";
    const before = sides[side];
    const tighter =
      before === undefined || (side === "low" ? value > before.value : value < before.value) || (value === before.value && open);
    if (tighter) sides[side] = { value, open };
  }
  const { low, high } = sides;
  if (low !== undefined && high !== undefined && (low.value > high.value || (low.value === high.value && (low.open || high.open))))
    throw refuse(`${path}.${given[0]}`, "cannot be satisfied: no number is within the bounds");
  const bound = (side: { value: number; open: boolean }) => {
    const made = boundOf(side.value, side.open);
    if (made === undefined) throw refuse(path, `a bound of ${side.value} is not supported: it has too many digits`);
    return made;
  };
  return { ...(low && { low: bound(low) }), ...(high && { high: bound(high) }) };
}

/** The integers within bounds. */
function wholeBounds({ low, high }: Bounds): [bigint, bigint] {
  const signed = ({ negative, whole }: { negative: boolean; whole: bigint }) => (negative ? -whole : whole);
  const far = 10n ** 18n;
  let from = -far;
  let to = far;
  if (low !== undefined) from = signed(low) + (low.fraction === "" ? (low.open ? 1n : 0n) : low.negative ? 0n : 1n);
  if (high !== undefined) to = signed(high) - (high.fraction === "" ? (high.open ? 1n : 0n) : high.negative ? 1n : 0n);
  return [from, to];
}

function decodePointer(part: string): string {
  let text = part;
  try {
    text = decodeURIComponent(part);
  } catch {
    // not percent-encoded: taken as it is
  }
  return text.replaceAll("~1", "/").replaceAll("~0", "~");
}
