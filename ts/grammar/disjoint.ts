/**
 * Whether two schemas plainly exclude each other: by type, by given values, or by a required property that tells them apart.
 * @module
 */
import { isPlain } from "../checks.js";

/** @param resolve follows references. */
export function areDisjoint(a: unknown, b: unknown, resolve: (schema: unknown) => unknown, depth = 0): boolean {
  if (depth > 8 || !isPlain(a) || !isPlain(b)) return false;
  const [valuesA, valuesB] = [given(a), given(b)];
  if (valuesA !== undefined && valuesB !== undefined) return !valuesA.some((value) => valuesB.includes(value));
  const [typesA, typesB] = [types(a), types(b)];
  if (typesA !== undefined && typesB !== undefined && !typesA.some((type) => typesB.includes(type))) return true;
  if (!onlyObjects(typesA) || !onlyObjects(typesB)) return false;
  return names(a).some(
    (name) => names(b).includes(name) && areDisjoint(property(a, name, resolve), property(b, name, resolve), resolve, depth + 1),
  );
}

/** The values of `const` or `enum`, as JSON. */
function given(schema: Record<string, unknown>): string[] | undefined {
  if ("const" in schema) return [JSON.stringify(schema["const"])];
  return Array.isArray(schema["enum"]) ? schema["enum"].map((value) => JSON.stringify(value)) : undefined;
}

/** Types, an integer being a number; undefined where nothing is said. */
function types(schema: Record<string, unknown>): string[] | undefined {
  const values = given(schema);
  if (values !== undefined) return values.map((text) => typeName(JSON.parse(text)));
  const { type } = schema;
  const all: readonly unknown[] | undefined = Array.isArray(type) ? type : type === undefined ? undefined : [type];
  return all?.map((name) => (name === "integer" ? "number" : String(name)));
}

function typeName(value: unknown): string {
  if (value === null) return "null";
  return Array.isArray(value) ? "array" : typeof value;
}

function onlyObjects(names: readonly string[] | undefined): boolean {
  return names?.every((name) => name === "object") ?? false;
}

/** Required properties that have a schema. */
function names(schema: Record<string, unknown>): string[] {
  const { required, properties } = schema;
  return Array.isArray(required) && isPlain(properties) ? required.filter((name) => Object.hasOwn(properties, name as string)) : [];
}

function property(schema: Record<string, unknown>, name: string, resolve: (schema: unknown) => unknown): unknown {
  return resolve((schema["properties"] as Record<string, unknown>)[name]);
}
