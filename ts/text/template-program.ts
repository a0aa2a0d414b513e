/**
 * A parsed chat template: which variables it reads, and rendering within bounds.
 * @module
 */
import * as jinja from "@huggingface/jinja";

/** A node of a template's tree. */
type Node = Record<string, unknown> & { type: string };

interface Scope {
  set(name: string, value: unknown): unknown;
}

/** The part of the library that is used. Its declarations do not resolve under Node's rules, so it is said here. */
interface Jinja {
  tokenize(source: string, options: { lstrip_blocks: boolean; trim_blocks: boolean }): unknown[];
  parse(tokens: unknown[]): Node;
  Environment: new () => Scope;
  Interpreter: new (
    scope: Scope,
  ) => { run(program: Node): { value: unknown }; evaluate(statement: Node | undefined, scope: Scope): unknown };
}

const { Environment, Interpreter, parse, tokenize } = jinja as unknown as Jinja;

/** How many parts of the template a rendering may evaluate, to begin with: about a second's work. */
const BASE_EVALUATIONS = 200_000;
/** And how many more for each text that goes in. */
const EVALUATIONS_PER_TEXT = 2_000;
/** `range` makes a list; a longer one is refused. */
const MAX_RANGE = 100_000;

/** What every template may use besides what it is given. */
const GLOBALS = [
  "true",
  "false",
  "none",
  "True",
  "False",
  "None",
  "range",
  "namespace",
  "loop",
  "caller",
  "raise_exception",
  "strftime_now",
];

/** The template itself called `raise_exception`, or went beyond a bound. */
export class TemplateRefusal extends Error {}

/** Interprets a template and counts what it does, so that a loop over loops comes to an end. */
class BoundedInterpreter extends Interpreter {
  readonly #bound: number;
  #count = 0;

  constructor(scope: Scope, bound: number) {
    super(scope);
    this.#bound = bound;
  }

  override evaluate(statement: Node | undefined, scope: Scope): unknown {
    if (++this.#count > this.#bound) throw new TemplateRefusal(`rendering takes more than ${this.#bound} evaluations`);
    return super.evaluate(statement, scope);
  }
}

/** A chat template. The constructor throws what the parser throws. */
export class TemplateProgram {
  readonly #program: Node;
  /** The variables that the template takes from outside. */
  readonly reads: ReadonlySet<string>;
  /** The names of all attributes that it asks for: `role`, `description`, … */
  readonly attributes: ReadonlySet<string>;

  constructor(source: string) {
    this.#program = parse(tokenize(source, { lstrip_blocks: true, trim_blocks: true }));
    const names = new NameScan();
    names.visit(this.#program);
    this.reads = names.outside();
    this.attributes = names.attributes;
  }

  /** Renders with some variables, in which there are `texts` strings. Throws what the template throws. */
  render(variables: Record<string, unknown>, texts: number): string {
    const environment = new Environment();
    const globals = { true: true, false: false, none: null, True: true, False: false, None: null };
    for (const [name, value] of Object.entries({ ...globals, raise_exception: refuse, range, strftime_now: strftime, ...variables })) {
      environment.set(name, value);
    }
    return String(new BoundedInterpreter(environment, BASE_EVALUATIONS + EVALUATIONS_PER_TEXT * texts).run(this.#program).value);
  }
}

function refuse(message: unknown): never {
  throw new TemplateRefusal(String(message));
}

function range(first: number, end?: number, step = 1): number[] {
  const [from, to] = end === undefined || end === null ? [0, first] : [first, end];
  const count = Math.max(0, Math.ceil((to - from) / step));
  if (!(count <= MAX_RANGE)) throw new TemplateRefusal(`range of ${count} elements; at most ${MAX_RANGE} are made`);
  return Array.from({ length: count }, (_, at) => from + at * step);
}

const MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];
const DAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/** The date as Python's strftime writes it, in the directives that chat templates use. */
function strftime(format: string): string {
  const now = new Date();
  const two = (value: number): string => String(value).padStart(2, "0");
  const month = MONTHS[now.getMonth()] as string;
  const day = DAYS[now.getDay()] as string;
  const directives: Record<string, string> = {
    Y: String(now.getFullYear()),
    y: two(now.getFullYear() % 100),
    m: two(now.getMonth() + 1),
    d: two(now.getDate()),
    B: month,
    b: month.slice(0, 3),
    A: day,
    a: day.slice(0, 3),
    H: two(now.getHours()),
    M: two(now.getMinutes()),
    S: two(now.getSeconds()),
    I: two(now.getHours() % 12 || 12),
    p: now.getHours() < 12 ? "AM" : "PM",
    "%": "%",
  };
  return format.replace(/%(.)/g, (all, letter: string) => directives[letter] ?? all);
}

/** Walks a template's tree and collects names. */
class NameScan {
  readonly attributes = new Set<string>();
  readonly #read = new Set<string>();
  readonly #local = new Set<string>();
  /** Names that are asked for before they are set: `set x = x if x is defined else 1`. */
  readonly #asked = new Set<string>();

  outside(): Set<string> {
    const names = [...this.#read].filter((name) => !this.#local.has(name));
    return new Set([...names, ...this.#asked].filter((name) => !GLOBALS.includes(name)));
  }

  visit(value: unknown): void {
    if (Array.isArray(value)) {
      for (const item of value) this.visit(item);
    } else if (value instanceof Map) {
      for (const [key, item] of value) this.visit([key, item]);
    } else if (typeof value === "object" && value !== null && "type" in value) {
      this.#visitNode(value as Node);
    }
  }

  #visitNode(node: Node): void {
    switch (node.type) {
      case "Identifier":
        this.#read.add(node["value"] as string);
        return;
      case "MemberExpression":
        this.visit(node["object"]);
        if (node["computed"] === true) this.#visitKey(node["property"] as Node);
        else this.attributes.add((node["property"] as Node)["value"] as string);
        return;
      case "FilterExpression":
      case "FilterStatement": {
        const filter = node["filter"] as Node;
        this.visit([node["operand"], node["body"], filter["args"]]);
        return;
      }
      case "TestExpression":
        this.#visitTest(node);
        return;
      case "KeywordArgumentExpression":
        this.visit(node["value"]);
        return;
      case "For":
        this.#declare(node["loopvar"] as Node);
        this.visit([node["iterable"], node["body"], node["defaultBlock"]]);
        return;
      case "Set":
        this.#visitSet(node);
        return;
      case "Macro":
        this.#local.add((node["name"] as Node)["value"] as string);
        for (const parameter of node["args"] as Node[]) this.#declare(parameter);
        this.visit(node["body"]);
        return;
      default:
        for (const [key, child] of Object.entries(node)) if (key !== "operator") this.visit(child);
    }
  }

  #visitKey(property: Node): void {
    if (property.type === "StringLiteral") this.attributes.add(property["value"] as string);
    else this.visit(property);
  }

  #visitTest(node: Node): void {
    const operand = node["operand"] as Node;
    const test = node["test"] as Node;
    if (operand.type === "Identifier" && ["defined", "undefined"].includes(test["value"] as string))
      this.#asked.add(operand["value"] as string);
    this.visit([operand, test["args"]]);
  }

  #visitSet(node: Node): void {
    const assignee = node["assignee"] as Node;
    if (assignee.type === "MemberExpression") this.visit(assignee["object"]);
    else this.#declare(assignee);
    this.visit([node["value"], node["body"]]);
  }

  #declare(target: Node): void {
    if (target.type === "Identifier") this.#local.add(target["value"] as string);
    if (target.type === "KeywordArgumentExpression") {
      this.#declare(target["key"] as Node);
      this.visit(target["value"]);
    }
    if (Array.isArray(target["value"])) for (const item of target["value"] as Node[]) this.#declare(item);
  }
}
