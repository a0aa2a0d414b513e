/**
 * The grammar of a whole answer: JSON, tool calls, or either. Reasoning before it is not of the grammar; see guide.ts.
 * @module
 */
import { isPlain, show } from "../checks.js";
import { LongcatError } from "../errors.js";
import { CALL_CLOSE, CALL_OPEN } from "../text/markers.js";
import type { CallForm } from "../text/tool-call-parser.js";
import { Automaton } from "./automaton.js";
import { JsonForms } from "./json.js";
import { type Node, TooLarge } from "./node.js";
import { PAIR_TAGS, pairsGrammar } from "./pairs.js";
import { refuse, type Schema, SchemaCompiler, type Writer } from "./schema.js";

/** A tool that may be called, and where its schema stands in what the caller gave. */
export interface CallableTool {
  name: string;
  /** undefined: any arguments. */
  parameters: unknown;
  path: string;
}

/** What an answer is to look like. At least one of both is there; if both are, the answer is one or the other. */
export interface AnswerFormat {
  /** A JSON text of this schema; `path` names it in messages. */
  json?: { schema: unknown; path: string };
  /** Calls of these tools, one or one and more, in the form that the model's template writes them in. */
  calls?: { tools: readonly CallableTool[]; several: boolean; form: CallForm };
  /** The prompt has opened reasoning: it comes first and is free, and line breaks may follow it. */
  afterReasoning: boolean;
}

/** Deepest nesting and most values of a schema's JSON. */
const MAX_DEPTH = 256;
const MAX_VALUES = 200_000;

/** The schema of `json_object`. */
export const ANY_OBJECT: Schema = { type: "object" };

/**
 * Compiles an answer's grammar, in two turns of the event loop; schemas are limited in size so that each is short.
 *
 * @param symbolOf the symbol of a special token, if the tokenizer has it; others are spelled out.
 * @throws LongcatError `OPTION_INVALID` naming the part of a schema that is not supported, or cannot be satisfied.
 */
export async function compileAnswer(format: AnswerFormat, symbolOf: (text: string) => number | undefined): Promise<Automaton> {
  const forms = JsonForms.create();
  const { builder } = forms;
  const end = builder.node({ isEnd: true });
  const compilers: SchemaCompiler[] = [];
  const starts: Node[] = [];
  const compiled = (schema: unknown, path: string): Writer => {
    const compiler = new SchemaCompiler(forms, schema, path);
    compilers.push(compiler);
    return (next) => compiler.compile(next);
  };
  const marker = (text: string, next: Node): Node => {
    const symbol = symbolOf(text);
    return symbol === undefined ? builder.literal(text, next) : builder.symbols(symbol, symbol, next);
  };
  try {
    if (format.json !== undefined) starts.push(compiled(format.json.schema, format.json.path)(end));
    const tagged = PAIR_TAGS.every((tag) => symbolOf(tag) !== undefined);
    if (format.calls !== undefined) starts.push(calls(forms, format.calls, { marker, compiled, tagged }, end));
  } catch (error) {
    if (error instanceof TooLarge) throw refuse(format.json?.path ?? "tools", `is too large: it ${error.message}`);
    throw error;
  }
  const answer = builder.alternatives(starts);
  const start = format.afterReasoning ? builder.repeat((to) => builder.literal("\n", to), 0, 2, answer) : answer;
  await new Promise((resolve) => setImmediate(resolve));
  for (const compiler of compilers) compiler.checkEnds(start);
  return new Automaton(start);
}

/** What calls are written with. `tagged`: keys and values may stand between tags. */
interface CallTools {
  marker(text: string, next: Node): Node;
  compiled(schema: unknown, path: string): Writer;
  tagged: boolean;
}

/** Calls as the templates of the family write them: JSON between tags, or a name with keys and values where the schema allows it. */
function calls(
  forms: JsonForms,
  { tools, several, form }: NonNullable<AnswerFormat["calls"]>,
  { marker, compiled, tagged }: CallTools,
  end: Node,
): Node {
  const { builder } = forms;
  const after = builder.node({ empties: [end] });
  const line = (next: Node): Node => builder.optional(builder.literal("\n", next), next);
  const close = marker(CALL_CLOSE, after);
  const closeJson = builder.literal("}", line(close));
  const heads = tools.map(({ name, parameters, path }) => {
    const schema = objectOnly(parameters, path);
    const pairs = form === "xml" && tagged ? pairsGrammar({ builder, tag: marker, json: compiled }, name, schema, path) : undefined;
    if (pairs !== undefined) return { text: `${name}\n`, next: pairs(close) };
    return { text: `{"name": ${JSON.stringify(name)}, "arguments": `, next: compiled(schema, path)(closeJson) };
  });
  const first = marker(CALL_OPEN, line(builder.literals(heads)));
  if (several) after.empties.push(line(first));
  return first;
}

/** Arguments are always an object, whatever the schema leaves open. */
function objectOnly(parameters: unknown, path: string): Schema {
  if (parameters === undefined || parameters === null || parameters === true) return ANY_OBJECT;
  if (!isPlain(parameters)) throw refuse(path, `${show(parameters)} is no schema of an object`);
  const { type } = parameters;
  if (type !== undefined && type !== "object") throw refuse(`${path}.type`, `${show(type)} is not accepted: arguments are an object`);
  if (type === undefined && "$ref" in parameters) return parameters;
  return { ...parameters, type: "object" };
}

/**
 * A schema's JSON text, by which its grammar is found again.
 *
 * @throws LongcatError `OPTION_INVALID` for one that is too deep or too large to be looked at.
 */
export function schemaText(schema: unknown, path: string): string {
  let values = 0;
  const pending: { value: unknown; depth: number }[] = [{ value: schema, depth: 0 }];
  for (let one = pending.pop(); one !== undefined; one = pending.pop()) {
    if (++values > MAX_VALUES) throw refuse(path, `has more than ${MAX_VALUES} values`);
    if (one.depth > MAX_DEPTH) throw refuse(path, `is nested more than ${MAX_DEPTH} levels deep`);
    if (typeof one.value !== "object" || one.value === null) continue;
    for (const value of Object.values(one.value)) pending.push({ value, depth: one.depth + 1 });
  }
  try {
    return JSON.stringify(schema) ?? "undefined";
  } catch (error) {
    throw new LongcatError("OPTION_INVALID", `${path}: cannot be written as JSON: ${(error as Error).message}`, { cause: error });
  }
}
