/**
 * What a grammar is made of: nodes joined by bytes, by empty steps and by calls of rules; and the builder that counts them.
 * Everything is built from its end: a function that writes something takes the node that follows, and gives the node to start from.
 * @module
 */

/** From one node to another by a symbol: a byte (0 … 255), or a special token (256 and up). */
export interface Edge {
  low: number;
  high: number;
  to: Node;
}

/** A rule is entered at `start` and left at `end`. */
export interface Rule {
  start: Node;
  end: Node;
}

export class Node {
  edges: Edge[] = [];
  /** Where one may go on without a symbol. */
  empties: Node[] = [];
  /** Rules that may be read here, and what follows each. */
  calls: { rule: Rule; after: Node }[] = [];
  /** The end of its rule. */
  isEnd = false;
  /** How many characters of a JSON string may follow here, each of them any; 0: this is no such place. */
  room = 0;
  /** Where one of those characters begins. */
  startsCharacter = false;

  /** @param id counts the nodes of a grammar from 0. */
  constructor(readonly id: number) {}
}

/** Most nodes of one grammar: what keeps compiling short. */
export const MAX_NODES = 12_000;

/** Thrown where a grammar becomes too large; the schema compiler names the place. */
export class TooLarge extends Error {}

/** Makes nodes, and the few forms that everything else is made of. */
export class Builder {
  #count: number;

  /** @param count how many nodes there are already, of which its own may be led to. */
  constructor(count = 0) {
    this.#count = count;
  }

  get count(): number {
    return this.#count;
  }

  node(parts: { edges?: Edge[]; empties?: Node[]; calls?: Node["calls"]; isEnd?: boolean; room?: number } = {}): Node {
    if (this.#count >= MAX_NODES) throw new TooLarge(`needs more than ${MAX_NODES} grammar nodes`);
    const node = new Node(this.#count++);
    if (parts.edges !== undefined) node.edges = parts.edges;
    if (parts.empties !== undefined) node.empties = parts.empties;
    if (parts.calls !== undefined) node.calls = parts.calls;
    if (parts.isEnd !== undefined) node.isEnd = parts.isEnd;
    if (parts.room !== undefined) node.room = parts.room;
    return node;
  }

  /** A rule without a body; `start` is to be led to `end`. */
  rule(): Rule {
    return { start: this.node(), end: this.node({ isEnd: true }) };
  }

  /** A rule whose body is built towards its end. */
  ruleOf(body: (end: Node) => Node): Rule {
    const end = this.node({ isEnd: true });
    return { start: body(end), end };
  }

  symbols(low: number, high: number, next: Node): Node {
    return this.node({ edges: [{ low, high, to: next }] });
  }

  /** Any one of the characters of an ASCII text. */
  oneOf(characters: string, next: Node): Node {
    return this.node({ edges: [...characters].map((c) => ({ low: c.charCodeAt(0), high: c.charCodeAt(0), to: next })) });
  }

  /** The UTF-8 of a text. */
  literal(text: string, next: Node): Node {
    return new TextEncoder().encode(text).reduceRight((to: Node, byte) => this.symbols(byte, byte, to), next);
  }

  /** One of some texts, each with what follows it; texts that begin alike share nodes. */
  literals(entries: readonly { text: string; next: Node }[]): Node {
    const root = this.node();
    const children = new Map<Node, Map<number, Node>>();
    for (const { text, next } of entries) {
      let at = root;
      for (const byte of new TextEncoder().encode(text)) {
        let known = children.get(at);
        if (known === undefined) children.set(at, (known = new Map()));
        let to = known.get(byte);
        if (to === undefined) {
          to = this.node();
          known.set(byte, to);
          at.edges.push({ low: byte, high: byte, to });
        }
        at = to;
      }
      at.empties.push(next);
    }
    return root;
  }

  alternatives(starts: Node[]): Node {
    const [only] = starts;
    return starts.length === 1 && only !== undefined ? only : this.node({ empties: starts });
  }

  optional(start: Node, next: Node): Node {
    return this.node({ empties: [start, next] });
  }

  call(rule: Rule, after: Node): Node {
    return this.node({ calls: [{ rule, after }] });
  }

  /** `least` to `most` times what `once` writes. */
  repeat(once: (next: Node) => Node, least: number, most: number, next: Node): Node {
    let at = next;
    if (most === Number.POSITIVE_INFINITY) {
      const loop = this.node({ empties: [next] });
      loop.empties.push(once(loop));
      at = loop;
    } else
      for (let i = least; i < most; i++) {
        const more = once(at);
        if (more === at) break;
        at = this.optional(more, next);
      }
    for (let i = 0; i < least; i++) {
      const more = once(at);
      if (more === at) break; // what writes nothing does so however often
      at = more;
    }
    return at;
  }

  digits(least: number, most: number, next: Node): Node {
    return this.repeat((to) => this.symbols(0x30, 0x39, to), least, most, next);
  }
}
