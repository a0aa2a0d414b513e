/**
 * What of a grammar can come to an end. The rest is cut off, so that whoever follows the grammar never enters a blind alley.
 * @module
 */
import { MAX_NODES, type Node, type Rule } from "./node.js";

/**
 * Cuts off every step from which the end cannot be reached.
 *
 * @returns by a node's id, 1 where the end can be reached; if it cannot from `start`, nothing can be written.
 */
export function cutBlindAlleys(start: Node): Uint8Array {
  const nodes = reachable(start);
  const productive = new Uint8Array(MAX_NODES);
  const waiting = whoWaits(nodes);
  const pending = nodes.filter(({ isEnd }) => isEnd);
  let count = 0;
  for (let node = pending.pop(); node !== undefined; node = pending.pop()) {
    if (productive[node.id] === 1 || !goesOn(node, productive)) continue;
    productive[node.id] = 1;
    count++;
    for (const other of waiting[node.id] ?? []) pending.push(other);
  }
  if (count < nodes.length) for (const node of nodes) cut(node, productive);
  return productive;
}

/** By node: those that may reach the end once it does. */
function whoWaits(nodes: readonly Node[]): Node[][] {
  const waiting: Node[][] = [];
  const wait = (on: Node, node: Node): void => {
    const list = waiting[on.id];
    if (list === undefined) waiting[on.id] = [node];
    else if (list[list.length - 1] !== node) list.push(node);
  };
  for (const node of nodes) {
    for (const { to } of node.edges) wait(to, node);
    for (const to of node.empties) wait(to, node);
    for (const { rule, after } of node.calls) {
      wait(rule.start, node);
      wait(after, node);
    }
  }
  return waiting;
}

function goesOn({ isEnd, edges, empties, calls }: Node, productive: Uint8Array): boolean {
  return (
    isEnd ||
    edges.some(({ to }) => productive[to.id] === 1) ||
    empties.some(({ id }) => productive[id] === 1) ||
    calls.some(({ rule, after }) => productive[rule.start.id] === 1 && productive[after.id] === 1)
  );
}

function cut(node: Node, productive: Uint8Array): void {
  node.edges = node.edges.filter(({ to }) => productive[to.id] === 1);
  node.empties = node.empties.filter(({ id }) => productive[id] === 1);
  node.calls = node.calls.filter(({ rule, after }) => productive[rule.start.id] === 1 && productive[after.id] === 1);
}

function reachable(start: Node): Node[] {
  const seen = new Uint8Array(MAX_NODES);
  const nodes: Node[] = [];
  const see = (node: Node): void => {
    if (seen[node.id] === 1) return;
    seen[node.id] = 1;
    nodes.push(node);
  };
  see(start);
  for (let i = 0; i < nodes.length; i++) {
    const { edges, empties, calls } = nodes[i] as Node;
    for (const { to } of edges) see(to);
    for (const to of empties) see(to);
    for (const { rule, after } of calls) {
      see(rule.start);
      see(after);
    }
  }
  return nodes;
}

/** Among `rules`, one that comes to itself again before anything is written; undefined if there is none. */
export function leftRecursive(rules: readonly Rule[]): Rule | undefined {
  const done = new Set<Rule>();
  const open = new Set<Rule>();
  const visit = (rule: Rule): Rule | undefined => {
    if (done.has(rule)) return undefined;
    if (open.has(rule)) return rule;
    open.add(rule);
    for (const called of calledFirst(rule)) {
      const found = visit(called);
      if (found !== undefined) return found;
    }
    open.delete(rule);
    done.add(rule);
    return undefined;
  };
  for (const rule of rules) {
    const found = visit(rule);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Rules that are called before a symbol is read. What stands behind a call counts too if the called rule may be empty. */
function calledFirst(rule: Rule): Rule[] {
  const called: Rule[] = [];
  for (const node of withoutSymbol(rule.start)) for (const call of node.calls) called.push(call.rule);
  return called;
}

function withoutSymbol(start: Node): Set<Node> {
  const seen = new Set<Node>([start]);
  for (const node of seen) {
    for (const to of node.empties) seen.add(to);
    for (const { rule, after } of node.calls) if (mayBeEmpty(rule)) seen.add(after);
  }
  return seen;
}

/** Only white space may be empty, and it calls nothing. */
function mayBeEmpty(rule: Rule): boolean {
  const seen = new Set<Node>([rule.start]);
  for (const node of seen) {
    if (node.isEnd) return true;
    for (const to of node.empties) seen.add(to);
  }
  return false;
}
