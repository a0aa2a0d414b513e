/**
 * What the router did: counts of FFN experts by token and layer, and the figures of a conversation.
 * @module
 */

/** Counts by layer → the letters that are kept. */
export const encodeToken = (counts) => counts.map((count) => count.toString(36)).join("");

/** The letters → counts by layer. */
export const decodeToken = (token) => [...token].map((letter) => Number.parseInt(letter, 36));

/** FFN experts a layer, on average over the layers of all `tokens`. */
export function meanExperts(tokens) {
  const counts = tokens.flatMap(decodeToken);
  return counts.reduce((sum, count) => sum + count, 0) / counts.length;
}

/** Figures over all tokens so far. */
export class Figures {
  tokens = 0;
  /** The least and the most FFN experts that a token used, on average over its layers: the ends of the colours' scale. */
  low = Number.POSITIVE_INFINITY;
  high = 0;
  #sum = 0;

  /** @param {object[]} messages Whose tokens to start with. */
  constructor(messages) {
    for (const message of messages) for (const piece of message.pieces ?? []) this.add(piece.tokens);
  }

  add(tokens) {
    for (const token of tokens) {
      const mean = meanExperts([token]);
      this.tokens++;
      this.#sum += mean;
      this.low = Math.min(this.low, mean);
      this.high = Math.max(this.high, mean);
    }
  }

  /** FFN experts a token and layer. */
  get mean() {
    return this.#sum / this.tokens;
  }
}
