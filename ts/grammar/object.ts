/**
 * Objects: named properties in the schema's order, those that are not required left out or not, and others behind them where the schema
 * speaks of them.
 * @module
 */
import { isPlain, show } from "../checks.js";
import { complement, intersection, PLAIN, type Range, utf8Edges } from "./characters.js";
import type { Builder, Node } from "./node.js";
import { count, refuse, type Schema, type SchemaCompiler, type Writer } from "./schema.js";

interface Property {
  name: string;
  required: boolean;
  value: Writer;
}

/**
 * What writes an object of a schema. Properties that it does not name are written where `additionalProperties` is there, or where it
 * names none at all.
 */
export function objectGrammar(compiler: SchemaCompiler, schema: Schema, path: string, depth: number): Writer {
  const properties = propertiesOf(compiler, schema, path, depth);
  const { additionalProperties } = schema;
  const others = additionalProperties ?? properties.length === 0;
  const other = others === false ? undefined : compiler.value(others, `${path}.additionalProperties`, depth + 1);
  checkNumber(schema, properties, other !== undefined, path);
  return (next) => {
    const { forms } = compiler;
    if (properties.length === 0) {
      if (other === undefined) return forms.builder.literal("{", forms.space(forms.builder.literal("}", next)));
      if (others === true) return forms.anyObject(next);
      return forms.members((to) => forms.anyString(to), other, next);
    }
    return namedFirst(compiler, properties, other, next);
  };
}

function propertiesOf(compiler: SchemaCompiler, schema: Schema, path: string, depth: number): Property[] {
  const { properties = {}, required = [], additionalProperties } = schema;
  if (!isPlain(properties)) throw refuse(`${path}.properties`, `${show(properties)} is not accepted; give an object of schemas`);
  if (!Array.isArray(required) || required.some((name) => typeof name !== "string"))
    throw refuse(`${path}.required`, `${show(required)} is not accepted; give an array of names`);
  const needed = new Set(required as string[]);
  const named = Object.keys(properties).map((name) => ({
    name,
    required: needed.has(name),
    value: compiler.value(properties[name], `${path}.properties.${name}`, depth + 1),
  }));
  const unnamed = [...needed].filter((name) => !Object.hasOwn(properties, name));
  if (unnamed.length > 0 && additionalProperties === false)
    throw refuse(`${path}.required`, `cannot be satisfied: ${show(unnamed[0])} is not among the properties, and others are not allowed`);
  const other = additionalProperties === undefined ? true : additionalProperties;
  return [
    ...named,
    ...unnamed.map((name) => ({ name, required: true, value: compiler.value(other, `${path}.additionalProperties`, depth + 1) })),
  ];
}

/** Bounds of the number of properties are kept only where they follow from the rest. */
function checkNumber(schema: Schema, properties: readonly Property[], open: boolean, path: string): void {
  const least = count(schema, "minProperties", path) ?? 0;
  const most = count(schema, "maxProperties", path) ?? Number.POSITIVE_INFINITY;
  if (least > properties.filter(({ required }) => required).length)
    throw refuse(`${path}.minProperties`, `${least} is not supported: fewer properties than that are required`);
  if (most < (open ? Number.POSITIVE_INFINITY : properties.length))
    throw refuse(`${path}.maxProperties`, `${most} is not supported: there may be more properties than that`);
}

/** From the last property to the first: `first` where none is written yet, `later` behind another. */
function namedFirst(compiler: SchemaCompiler, properties: readonly Property[], other: Writer | undefined, next: Node): Node {
  const { forms } = compiler;
  const { builder } = forms;
  const close = forms.space(builder.literal("}", next));
  let later = builder.node({ empties: [close] });
  let first = builder.node({ empties: [close] });
  if (other !== undefined) {
    const names = properties.map(({ name }) => name);
    const member = builder.literal('"', otherKey(builder, names, forms.colon(other(later))));
    later.empties.push(builder.literal(",", forms.space(member)));
    first.empties.push(forms.space(member));
  }
  for (const { name, required, value } of [...properties].reverse()) {
    const member = builder.literal(JSON.stringify(name), forms.colon(value(later)));
    later = builder.node({ empties: [builder.literal(",", forms.space(member)), ...(required ? [] : [later])] });
    first = builder.node({ empties: [forms.space(member), ...(required ? [] : [first])] });
  }
  return builder.literal("{", first);
}

/** The rest of a key after its quote: any text without escapes that is none of the names. */
function otherKey(builder: Builder, names: readonly string[], next: Node): Node {
  const quote = { low: 0x22, high: 0x22, to: next };
  const free = builder.node({ edges: [quote] });
  free.edges.push(...utf8Edges(builder, PLAIN, free));
  const nodes = new Map<string, Node>();
  const at = (prefix: string): Node => {
    let node = nodes.get(prefix);
    if (node === undefined) nodes.set(prefix, (node = builder.node()));
    return node;
  };
  const following = new Map<string, Set<string>>();
  for (const name of names) {
    let prefix = "";
    for (const character of name) {
      const known = following.get(prefix) ?? new Set();
      following.set(prefix, known.add(character));
      prefix += character;
    }
    if (!following.has(prefix)) following.set(prefix, new Set());
  }
  const taken = new Set(names);
  for (const [prefix, characters] of following) {
    const node = at(prefix);
    const points = new Map([...characters].map((character) => [character, character.codePointAt(0) as number]));
    const ranges: Range[] = [...points.values()].map((point) => ({ low: point, high: point }));
    node.edges.push(...utf8Edges(builder, intersection(PLAIN, complement(ranges)), free));
    for (const [character, point] of points)
      node.edges.push(...utf8Edges(builder, intersection(PLAIN, [{ low: point, high: point }]), at(prefix + character)));
    if (!taken.has(prefix)) node.edges.push(quote);
  }
  return at("");
}
