/**
 * Arguments of tool calls as newer templates of the family write them: keys and values between tags. ts/text/xml-call.ts reads them, and
 * makes of a value what its property's schema says: text as it is, or JSON. What would not come back as its schema has it is not written
 * so; JSON, which is read too, is for the rest.
 * @module
 */
import { isPlain } from "../checks.js";
import { KEY_CLOSE, KEY_OPEN, type Marker, VALUE_CLOSE, VALUE_OPEN } from "../text/markers.js";
import { namedTypes } from "../text/xml-call.js";
import { complement, LAST_CODE_POINT, type Range, utf8Edges } from "./characters.js";
import type { Builder, Node } from "./node.js";
import { ANNOTATIONS, type Schema, type Writer } from "./schema.js";

/** The tags, each of which has to be a token: text can then hold anything else. */
export const PAIR_TAGS = [KEY_OPEN, KEY_CLOSE, VALUE_OPEN, VALUE_CLOSE] as const;

/** What the grammar of a tool's arguments is made with. */
export interface PairForms {
  builder: Builder;
  /** What writes a tag. */
  tag(tag: Marker, next: Node): Node;
  /** What writes the JSON of a schema. */
  json(schema: unknown, path: string): Writer;
}

/** A name that is read as one. */
const NAME = /^[\w.:-]{1,128}$/;
const ARGUMENTS = new Set(["type", "properties", "required", "additionalProperties", ...ANNOTATIONS]);
const TEXT = new Set(["type", ...ANNOTATIONS]);
const WORDS = new Set(["type", "enum", "const", ...ANNOTATIONS]);
const ANY_CHARACTER: readonly Range[] = [{ low: 0, high: LAST_CODE_POINT }];
/** Keys lose white space around them when they are read. */
const NO_SPACE: readonly Range[] = complement([{ low: 0, high: 0x20 }]);

/** What writes the arguments of a tool as pairs; undefined: they have to be JSON. `schema` is of an object. */
export function pairsGrammar(forms: PairForms, name: string, schema: Schema, path: string): Writer | undefined {
  const { properties = {}, required = [], additionalProperties } = schema;
  const open = additionalProperties !== undefined && additionalProperties !== false;
  if (!NAME.test(name) || open || !onlyHas(schema, ARGUMENTS) || !isPlain(properties) || !Array.isArray(required)) return undefined;
  if (JSON.stringify(schema).includes('"$ref"')) return undefined;
  const keys = Object.keys(properties);
  if (keys.length === 0 && required.length === 0) return additionalProperties === false ? (next) => next : anyPairs(forms);
  if (required.some((key) => !keys.includes(key as string)) || keys.some((key) => key === "" || key !== key.trim())) return undefined;
  const pairs: { key: string; value: Writer }[] = [];
  for (const key of keys) {
    const value = valueWriter(forms, properties[key], `${path}.properties.${key}`);
    if (value === undefined) return undefined;
    pairs.push({ key, value });
  }
  return (next) =>
    pairs.reduceRight((to: Node, { key, value }) => {
      const start = pair(forms, (after) => forms.builder.literal(key, after), value, to);
      return required.includes(key) ? start : forms.builder.optional(start, to);
    }, next);
}

/** Any keys, with any texts. */
function anyPairs(forms: PairForms): Writer {
  const { builder } = forms;
  return (next) => {
    const again = builder.node({ empties: [next] });
    again.empties.push(
      pair(
        forms,
        (after) => someText(builder, NO_SPACE, after),
        (after) => anyText(builder, after),
        again,
      ),
    );
    return again;
  };
}

function pair({ builder, tag }: PairForms, key: Writer, value: Writer, next: Node): Node {
  const valued = tag(VALUE_OPEN, value(tag(VALUE_CLOSE, builder.literal("\n", next))));
  return tag(KEY_OPEN, key(tag(KEY_CLOSE, builder.literal("\n", valued))));
}

/** What writes a value that is read as its schema has it; undefined: there is no such form. */
function valueWriter(forms: PairForms, schema: unknown, path: string): Writer | undefined {
  const { builder } = forms;
  if (schema === true) return (next) => anyText(builder, next);
  if (!isPlain(schema)) return undefined;
  const types = typesOf(schema);
  if (types === undefined) return onlyHas(schema, TEXT) ? (next) => anyText(builder, next) : undefined;
  if (!types.has("string")) return forms.json(schema, path);
  if (types.size > 1) return undefined;
  const words = schema["enum"] ?? (schema["const"] === undefined ? undefined : [schema["const"]]);
  if (words === undefined) return onlyHas(schema, TEXT) ? (next) => anyText(builder, next) : undefined;
  if (!onlyHas(schema, WORDS) || !Array.isArray(words) || words.some((word) => typeof word !== "string")) return undefined;
  return (next) => builder.alternatives(words.map((word) => builder.literal(word as string, next)));
}

/** All types that a value may have, as far as every branch of the schema says so; undefined: it does not. */
function typesOf(schema: Schema): ReadonlySet<string> | undefined {
  const branches = [schema["anyOf"], schema["oneOf"]].filter(Array.isArray).flat() as unknown[];
  if (branches.some((branch) => !isPlain(branch) || typesOf(branch) === undefined)) return undefined;
  const types = new Set(namedTypes(schema));
  return types.size > 0 ? types : undefined;
}

function onlyHas(schema: Schema, keys: ReadonlySet<string>): boolean {
  return Object.keys(schema).every((key) => keys.has(key) || schema[key] === undefined);
}

/** Text of any characters, none at all among them. */
function anyText(builder: Builder, next: Node): Node {
  const text = builder.node({ empties: [next], room: Number.POSITIVE_INFINITY });
  text.edges.push(...utf8Edges(builder, ANY_CHARACTER, text));
  return text;
}

/** Text of at least one of some characters. */
function someText(builder: Builder, characters: readonly Range[], next: Node): Node {
  const more = builder.node({ empties: [next] });
  more.edges.push(...utf8Edges(builder, characters, more));
  return builder.node({ edges: utf8Edges(builder, characters, more) });
}
