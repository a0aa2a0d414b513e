/**
 * Forward passes that all ranks run together. The experts of a layer lie on all ranks, so none can run a layer alone: each has as many forward
 * passes as the others, in the same order and over programs of the same number of rows, some of them without rows of its own.
 * @module
 */

/** A forward pass as one rank wants it, or as it serves all. */
export interface Forward {
  /** "prompt": some sequence of some rank has a prompt's chunk in it. */
  kind: "prompt" | "decode";
  /** Sequences of the rank that has most. */
  sequences: number;
  /** Most drafts that a sequence verifies, and that are made for the next step. */
  drafts: number;
}

/** A forward pass that is decided: each rank runs it, as number `round` (0, 1, 2 …) of all that the ranks run. */
export interface Round extends Forward {
  round: number;
}

/** How the ranks agree. */
export interface Lockstep {
  /**
   * Asks for a forward pass; the round in which this rank's rows are to run. Rounds in which it has none come to it through `Runner.join`;
   * promises may settle in any order beside those calls, since the runner goes by the rounds' numbers.
   *
   * @throws LongcatError COMM_ERROR where there will be none: a rank is lost
   */
  agree(want: Forward): Promise<Round>;
}

/** The forward pass that serves all who want one. */
export function agreeOn(wants: readonly Forward[]): Forward {
  return {
    kind: wants.some(({ kind }) => kind === "prompt") ? "prompt" : "decode",
    sequences: Math.max(...wants.map(({ sequences }) => sequences)),
    drafts: Math.max(...wants.map(({ drafts }) => drafts)),
  };
}
